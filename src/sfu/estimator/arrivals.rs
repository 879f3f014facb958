//! How much arrives, by the receiver's clock: what its network carries, where it is full.

use std::collections::VecDeque;

/// One mark for each report of the receiver, or for so many microseconds of them.
const MARKS: usize = 16;
const SPACING: i64 = 20_000;
/// Times further apart are of a clock that was set anew.
const JUMP: u64 = 10_000_000;

#[derive(Default)]
pub struct Arrivals {
    /// When the last packet of a report arrived, and the bytes of all of it.
    marks: VecDeque<(i64, u64)>,
}

impl Arrivals {
    pub fn add(&mut self, at: i64, bytes: u64) {
        if self.marks.back().is_some_and(|(last, _)| last.abs_diff(at) > JUMP) {
            self.marks.clear();
        }
        let close = self.marks.len() > 1 && at - self.marks[self.marks.len() - 2].0 < SPACING;
        if let Some((last, sum)) = self.marks.back_mut().filter(|_| close) {
            (*last, *sum) = (at.max(*last), *sum + bytes);
            return;
        }
        if self.marks.len() == MARKS {
            self.marks.pop_front();
        }
        // What arrives out of order is counted where it is.
        let at = self.marks.back().map_or(at, |(last, _)| at.max(*last));
        self.marks.push_back((at, bytes));
    }

    /// Reports are missing: what arrived in between is not known.
    pub fn forget(&mut self) {
        self.marks.clear();
    }

    /// Bits per second over the last microseconds, at least so many.
    pub fn bps(&self, span: i64) -> Option<u64> {
        let (newest, _) = *self.marks.back()?;
        let mut bytes = 0;
        for (at, sum) in self.marks.iter().rev() {
            let passed = newest - at;
            if passed >= span.max(1) {
                return Some(bytes * 8_000_000 / passed as u64);
            }
            bytes += sum;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_reports() {
        let mut arrivals = Arrivals::default();
        (0..20).for_each(|n| arrivals.add(n * 50_000, 6_250));
        assert_eq!(arrivals.bps(200_000), Some(1_000_000));
        (20..25).for_each(|n| arrivals.add(n * 50_000, 3_125));
        assert_eq!([arrivals.bps(200_000), arrivals.bps(400_000)], [Some(500_000), Some(687_500)]);
        assert_eq!(arrivals.bps(2_000_000), None, "nobody knows");
        arrivals.add(1 << 49, 1_000);
        assert_eq!(arrivals.bps(1), None, "the clock jumped");
    }
}
