//! What a receiver saw of a track, and what is missing of it. Pure.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use hdrhistogram::Histogram;

use crate::stamp::Stamp;

/// The measured time, in stamps' nanoseconds. It is set before it begins, so that all threads mean the same packets.
#[derive(Debug)]
pub struct Window {
    from: AtomicU64,
    to: AtomicU64,
}

impl Default for Window {
    fn default() -> Self {
        Self { from: AtomicU64::new(u64::MAX), to: AtomicU64::new(u64::MAX) }
    }
}

impl Window {
    pub fn set(&self, from: u64, to: u64) {
        // Closed while the two are changed.
        self.from.store(u64::MAX, Ordering::SeqCst);
        self.to.store(to, Ordering::SeqCst);
        self.from.store(from, Ordering::SeqCst);
    }

    pub fn close(&self) {
        self.set(u64::MAX, u64::MAX);
    }

    pub fn holds(&self, ns: u64) -> bool {
        ns >= self.from.load(Ordering::Relaxed) && ns < self.to.load(Ordering::Relaxed)
    }
}

/// Microseconds, with three digits; longer than a minute counts as a minute.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds that are in order")
}

/// Packets of one track that left in the window, by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub first: u64,
    /// One behind the last.
    pub end: u64,
}

impl Sent {
    pub fn note(&mut self, seq: u64) {
        if self.end == 0 {
            self.first = seq;
        }
        self.end = seq + 1;
    }

    pub fn count(&self) -> u64 {
        self.end - self.first
    }
}

/// One track at one receiver, by its stamps.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    pub first: u64,
    /// One behind the highest.
    pub end: u64,
    /// Each packet once, retransmissions too if they are the first to come.
    pub received: u64,
    seen: Seen,
}

impl Flow {
    /// Takes a packet; `false` if it was there before.
    pub fn handle(&mut self, seq: u64) -> bool {
        if !self.seen.insert(seq) {
            return false;
        }
        self.first = if self.received == 0 { seq } else { self.first.min(seq) };
        self.end = self.end.max(seq + 1);
        self.received += 1;
        true
    }

    /// Numbers from the first that came to the last.
    pub fn span(&self) -> u64 {
        self.end - self.first
    }
}

/// Which of the newest numbers came. What is older than all of them counts as seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Bit n is `newest - n`.
    bits: std::collections::VecDeque<bool>,
    newest: u64,
}

/// Far more than a retransmission comes late.
const SEEN_MAX: u64 = 8_192;

impl Seen {
    fn insert(&mut self, seq: u64) -> bool {
        if self.bits.is_empty() {
            self.newest = seq;
            self.bits.push_front(true);
            return true;
        }
        if seq > self.newest {
            for _ in 0..(seq - self.newest - 1).min(SEEN_MAX) {
                self.bits.push_front(false);
            }
            self.bits.push_front(true);
            self.bits.truncate(SEEN_MAX as usize);
            self.newest = seq;
            return true;
        }
        let back = self.newest - seq;
        if back >= SEEN_MAX {
            return false;
        }
        let back = back as usize;
        if back >= self.bits.len() {
            self.bits.resize(back + 1, false);
        }
        !std::mem::replace(&mut self.bits[back], true)
    }
}

/// One stream at a receiver that does not decrypt, by the sequence numbers of RTP, which are readable.
#[derive(Clone, Copy, Debug)]
pub struct RawFlow {
    first: u64,
    highest: u64,
    pub received: u64,
}

impl RawFlow {
    pub fn new(seq: u16) -> Self {
        // One turn up, so that what comes late is not below zero.
        let seq = 0x1_0000 + u64::from(seq);
        Self { first: seq, highest: seq, received: 1 }
    }

    pub fn handle(&mut self, seq: u16) {
        let step = seq.wrapping_sub(self.highest as u16).cast_signed();
        let seq = self.highest.saturating_add_signed(i64::from(step));
        self.highest = self.highest.max(seq);
        self.first = self.first.min(seq);
        self.received += 1;
    }

    pub fn span(&self) -> u64 {
        self.highest - self.first + 1
    }
}

/// What one bot saw in the window.
#[derive(Clone, Debug)]
pub struct Tally {
    pub flows: HashMap<u32, Flow>,
    pub raw: HashMap<u32, RawFlow>,
    pub delay_us: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { flows: HashMap::new(), raw: HashMap::new(), delay_us: histogram() }
    }
}

impl Tally {
    pub fn handle(&mut self, stamp: Stamp, arrived_ns: u64) {
        if self.flows.entry(stamp.track).or_default().handle(stamp.seq) {
            self.delay_us.saturating_record((arrived_ns.saturating_sub(stamp.sent_ns) / 1_000).max(1));
        }
    }

    pub fn handle_raw(&mut self, ssrc: u32, seq: u16) {
        self.raw.entry(ssrc).and_modify(|flow| flow.handle(seq)).or_insert_with(|| RawFlow::new(seq));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_comes_twice_counts_once_however_late() {
        let mut flow = Flow::default();
        assert!([10, 12, 11, 14].iter().all(|seq| flow.handle(*seq)));
        assert!(!flow.handle(11) && !flow.handle(14));
        assert!(flow.handle(9));
        assert_eq!((flow.first, flow.span(), flow.received), (9, 6, 5));
    }

    #[test]
    fn a_far_jump_keeps_what_is_counted() {
        let mut flow = Flow::default();
        assert!(flow.handle(1) && flow.handle(1_000_000));
        assert!(!flow.handle(1), "older than what is remembered");
        assert!(flow.handle(999_999));
        assert_eq!(flow.received, 3);
    }

    #[test]
    fn readable_numbers_may_turn_over_and_come_late() {
        let mut flow = RawFlow::new(65_534);
        for seq in [65_535, 1, 0, 3] {
            flow.handle(seq);
        }
        assert_eq!((flow.span(), flow.received), (6, 5));
    }

    #[test]
    fn a_window_holds_its_begin_and_not_its_end() {
        let window = Window::default();
        assert!(!window.holds(5));
        window.set(5, 9);
        assert!(!window.holds(4) && window.holds(5) && window.holds(8) && !window.holds(9));
        window.close();
        assert!(!window.holds(5));
    }

    #[test]
    fn what_was_sent_is_counted_from_the_first() {
        let mut sent = Sent::default();
        assert_eq!(sent.count(), 0);
        (40..50).for_each(|seq| sent.note(seq));
        assert_eq!(sent, Sent { first: 40, end: 50 });
        assert_eq!(sent.count(), 10);
    }
}
