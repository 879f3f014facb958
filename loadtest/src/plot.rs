//! Pictures of results, SVG.

use std::{ops::Range, path::Path};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use plotters::prelude::*;

const SIZE: (u32, u32) = (900, 500);

/// Which part of the packets was how late, over a logarithmic axis of milliseconds.
pub fn delays(file: &Path, caption: &str, delay_us: &Histogram<u64>) -> Result<()> {
    ensure!(!delay_us.is_empty(), "there are no delays: no receiver decrypts");
    let all = delay_us.len() as f64;
    let mut seen = 0.0;
    let points = delay_us.iter_recorded().map(|step| {
        seen += step.count_since_last_iteration() as f64;
        (step.value_iterated_to() as f64 / 1e3, seen * 100.0 / all)
    });
    let points: Vec<_> = points.collect();
    let x = points[0].0 * 0.9..delay_us.max() as f64 / 1e3 * 1.1;
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Delay, {caption}"), ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(x.log_scale(), 0.0..100.0)?;
    chart.configure_mesh().x_desc("ms, from stamp to receiver").y_desc("% of packets").draw()?;
    chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?;
    root.present()?;
    Ok(())
}

/// A curve through the steps of a ramp.
pub fn ramp(file: &Path, caption: &str, steps: &[(f64, f64)], too_long_ms: f64) -> Result<()> {
    ensure!(!steps.is_empty(), "there are no steps");
    let max = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let x: Range<f64> = 0.0..max(&mut steps.iter().map(|step| step.0)) * 1.05;
    let y: Range<f64> = 0.0..max(&mut steps.iter().map(|step| step.1)).max(too_long_ms) * 1.1;
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Ramp, {caption}"), ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(x.clone(), y)?;
    chart.configure_mesh().x_desc("packets a second at receivers").y_desc("delay p99, ms").draw()?;
    chart.draw_series(LineSeries::new(steps.iter().copied(), BLUE.stroke_width(2)))?;
    chart.draw_series(LineSeries::new([(x.start, too_long_ms), (x.end, too_long_ms)], RED.stroke_width(1)))?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::histogram;

    #[test]
    fn pictures_are_svg_with_their_captions() {
        let folder = tempfile::tempdir().unwrap();
        let mut delay_us = histogram();
        (1..1_000u64).for_each(|us| delay_us.saturating_record(us * us));
        let (first, second) = (folder.path().join("a.svg"), folder.path().join("b.svg"));
        delays(&first, "3 -> 4", &delay_us).unwrap();
        ramp(&second, "3 -> 4", &[(100.0, 1.0), (200.0, 60.0)], 50.0).unwrap();
        for file in [first, second] {
            let text = std::fs::read_to_string(file).unwrap();
            assert!(text.starts_with("<svg") && text.contains("3 -&gt; 4"), "{text}");
        }
        assert!(delays(&folder.path().join("c.svg"), "none", &histogram()).is_err());
    }
}
