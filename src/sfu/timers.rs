//! Deadlines in a heap, so that a wake-up costs what is due and not what exists.
//!
//! Entries are never searched: an owner remembers the one entry that counts ([`Armed`]); all others of it are stale
//! and fall out when they come up.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

/// The owner's memory of its entry.
#[derive(Default)]
pub struct Armed(Option<Instant>);

struct Entry<K> {
    at: Instant,
    key: K,
}

impl<K> PartialEq for Entry<K> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<K> Eq for Entry<K> {}

impl<K> PartialOrd for Entry<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Entry<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

pub struct Timers<K> {
    heap: BinaryHeap<Reverse<Entry<K>>>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new() }
    }
}

impl<K> Timers<K> {
    /// Makes the owner come up at `at` or before; a later deadline is found out when the earlier entry comes up.
    pub fn arm(&mut self, armed: &mut Armed, at: Instant, key: K) {
        if armed.0.is_none_or(|current| at < current) {
            armed.0 = Some(at);
            self.heap.push(Reverse(Entry { at, key }));
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// The next entry that is due; ask its owner's [`Armed::take`] whether it counts.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, K)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.key))
    }
}

impl Armed {
    /// Whether the entry of this time is the one that counts; if so the owner is disarmed.
    pub fn take(&mut self, at: Instant) -> bool {
        let counts = self.0 == Some(at);
        if counts {
            self.0 = None;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_the_earliest_entry_of_an_owner_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (mut timers, mut armed) = (Timers::default(), Armed::default());
        timers.arm(&mut armed, at(20), 'a');
        timers.arm(&mut armed, at(30), 'a');
        timers.arm(&mut armed, at(10), 'a');
        assert!(timers.pop_due(at(5)).is_none());
        let (due, _) = timers.pop_due(at(50)).unwrap();
        assert!(armed.take(due));
        let (stale, _) = timers.pop_due(at(50)).unwrap();
        assert_eq!(stale, at(20));
        assert!(!armed.take(stale));
        assert!(timers.pop_due(at(50)).is_none());
    }
}
