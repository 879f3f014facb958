//! What the process itself uses, read from `/proc` when the metrics are asked for.

use std::{fs, sync::OnceLock, time::Instant};

use super::Metrics;

static STARTED: OnceLock<Instant> = OnceLock::new();

/// Starts the clock of `uptime_seconds` and writes the build's version. Call once, early.
pub fn begin(metrics: &Metrics) {
    STARTED.get_or_init(Instant::now);
    metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
}

impl Metrics {
    /// Brings uptime, memory and CPU time up to date. A system without `/proc` leaves the last two at zero.
    pub fn sample_process(&self) {
        self.uptime.set(STARTED.get_or_init(Instant::now).elapsed().as_secs_f64());
        let Some((cpu_ticks, resident_pages)) = fs::read_to_string("/proc/self/stat").ok().and_then(|s| parse(&s))
        else {
            return;
        };
        // SAFETY: sysconf takes no pointers and has no preconditions.
        let (ticks_per_second, page) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
        self.process_resident_memory.set(resident_pages.saturating_mul(page));
        let seconds = cpu_ticks as f64 / ticks_per_second.max(1) as f64;
        let since = seconds - self.process_cpu.get();
        if since > 0.0 {
            self.process_cpu.inc_by(since);
        }
    }
}

/// CPU ticks (user and system) and resident pages of a `/proc/<pid>/stat` line, proc_pid_stat(5). The second field
/// is the program's name in brackets and may hold spaces, so fields are counted after the last bracket.
fn parse(stat: &str) -> Option<(u64, i64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let user: u64 = fields.get(11)?.parse().ok()?;
    let system: u64 = fields.get(12)?.parse().ok()?;
    let pages: i64 = fields.get(21)?.parse().ok()?;
    Some((user + system, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_name_may_hold_spaces_and_brackets() {
        let stat = "7 (vi va) x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 20 0 4 0 100 5000 77 0 0";
        assert_eq!(parse(stat), Some((23, 77)));
    }

    #[test]
    fn a_running_process_uses_memory() {
        let metrics = Metrics::new();
        begin(&metrics);
        metrics.sample_process();
        assert!(metrics.process_resident_memory.get() > 0);
    }
}
