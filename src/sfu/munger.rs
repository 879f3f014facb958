//! Numbers of one receiver's stream: sequence numbers, RTP time, VP8 picture ids. Pure.
//!
//! A receiver must see one gapless stream, whatever we leave out: mutes, pauses, changes of layer, single packets of
//! layers that it does not get. Losses before us stay visible as gaps, so that they are asked for again.

use std::{collections::VecDeque, time::Instant};

use str0m::rtp::Vp8Descriptor;

use super::dependency::DependencyBytes;

/// Least step of RTP time over a change of source, so that two frames never share one.
const MIN_STEP_HZ_PART: u32 = 50;
/// Packets left out of a stream that goes on are remembered up to this many: late ones must be numbered as if those
/// had been there. At 1,000 packets a second this is a second's worth of any reordering.
const SKIPPED_MAX: usize = 512;
/// The same for pictures.
const PICTURES_MAX: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Start,
    Resume,
    Switch,
    Steady,
}

#[derive(Clone, Copy)]
struct Sent {
    seq: u64,
    time: u32,
    at: Instant,
}

/// Rewrites sequence numbers and RTP time. Pure.
pub struct RtpMunger {
    next: Next,
    clock_hz: u32,
    /// First sequence number since the last interruption; older ones are late and dropped.
    from: u64,
    /// `from` as it is sent.
    to: u64,
    time_offset: u32,
    last: Option<Sent>,
    /// Left out since the last interruption, in order; and how many before those.
    skipped: VecDeque<u64>,
    forgotten: u64,
    /// The highest number of the source so far.
    head: u64,
}

impl RtpMunger {
    pub fn new(first_seq: u64, clock_hz: u32) -> Self {
        Self {
            next: Next::Start,
            clock_hz,
            from: 0,
            to: first_seq,
            time_offset: 0,
            last: None,
            skipped: VecDeque::new(),
            forgotten: 0,
            head: 0,
        }
    }

    /// This packet of the source is left out, and those after it follow without a gap. One that comes late leaves a
    /// gap, since its successors have been sent.
    pub fn skip(&mut self, seq: u64) {
        if self.next != Next::Steady || seq <= self.head {
            return;
        }
        self.head = seq;
        if self.skipped.len() >= SKIPPED_MAX {
            self.skipped.pop_front();
            self.forgotten += 1;
        }
        self.skipped.push_back(seq);
    }

    /// Packets of the same source are being left out.
    pub fn resume(&mut self) {
        if self.next == Next::Steady {
            self.next = Next::Resume;
        }
    }

    /// The next packet comes from another source, whose numbers mean nothing here.
    pub fn switch(&mut self) {
        if self.next != Next::Start {
            self.next = Next::Switch;
        }
    }

    pub fn map(&mut self, seq: u64, time: u32, now: Instant) -> Option<(u64, u32)> {
        if self.next != Next::Steady {
            self.anchor(seq, time, now);
        }
        // Too late to know what was left out before it.
        if self.forgotten > 0 && self.skipped.front().is_some_and(|oldest| seq < *oldest) {
            return None;
        }
        self.head = self.head.max(seq);
        let before = self.skipped.len() - self.skipped.iter().rev().take_while(|skipped| **skipped > seq).count();
        let left_out = self.forgotten + before as u64;
        let seq = self.to.checked_add(seq.checked_sub(self.from)?)?.checked_sub(left_out)?;
        let time = time.wrapping_add(self.time_offset);
        if self.last.is_none_or(|last| seq > last.seq) {
            self.last = Some(Sent { seq, time, at: now });
        }
        Some((seq, time))
    }

    fn anchor(&mut self, seq: u64, time: u32, now: Instant) {
        if let Some(last) = self.last {
            self.to = last.seq + 1;
            let goes_on = time.wrapping_add(self.time_offset).wrapping_sub(last.time) as i32 > 0;
            if self.next == Next::Switch || !goes_on {
                let elapsed = now.saturating_duration_since(last.at).as_micros() * u128::from(self.clock_hz);
                let step = ((elapsed / 1_000_000) as u32).max(self.clock_hz / MIN_STEP_HZ_PART);
                self.time_offset = last.time.wrapping_add(step).wrapping_sub(time);
            }
        }
        self.from = seq;
        self.head = seq;
        self.skipped.clear();
        self.forgotten = 0;
        self.next = Next::Steady;
    }
}

/// Picture ids have 15 bits.
const PICTURE_MASK: u16 = 0x7fff;

/// Keeps VP8 picture ids (RFC 7741 section 4.2) continuous over changes of source.
#[derive(Default)]
pub struct Vp8Munger {
    /// Nothing is rewritten before the first change.
    switched: bool,
    pending: bool,
    /// From which picture of the source on which offset counts; the newest last.
    offsets: VecDeque<(u16, u16)>,
    tl0_offset: u8,
    /// Of the source, sent or left out.
    newest: Option<u16>,
    last_picture: Option<u16>,
    last_tl0: Option<u8>,
}

impl Vp8Munger {
    pub fn switch(&mut self) {
        self.switched = true;
        self.pending = true;
        self.offsets.clear();
        self.newest = None;
    }

    /// A picture is left out: the next one takes its number.
    pub fn skip(&mut self, descriptor: &Vp8Descriptor) {
        let Some(picture) = descriptor.picture_id().filter(|_| !self.pending) else { return };
        // One that comes late has a gap of its own already.
        if !self.is_ahead(picture) {
            return;
        }
        self.newest = Some(picture);
        self.switched = true;
        let offset = self.offsets.back().map_or(0, |(_, offset)| *offset);
        self.push_offset(picture.wrapping_add(1) & PICTURE_MASK, offset.wrapping_sub(1));
    }

    fn is_ahead(&self, picture: u16) -> bool {
        self.newest.is_none_or(|newest| (1..PICTURE_MASK / 2).contains(&(picture.wrapping_sub(newest) & PICTURE_MASK)))
    }

    fn push_offset(&mut self, from: u16, offset: u16) {
        if self.offsets.len() >= PICTURES_MAX {
            self.offsets.pop_front();
        }
        self.offsets.push_back((from, offset));
    }

    /// The offset that counts for this picture; the oldest known one for those from before.
    fn offset(&self, picture: u16) -> u16 {
        let from = |(from, _): &&(u16, u16)| picture.wrapping_sub(*from) & PICTURE_MASK < PICTURE_MASK / 2;
        let found = self.offsets.iter().rev().find(from).or_else(|| self.offsets.front());
        found.map_or(0, |(_, offset)| *offset)
    }

    /// How to rewrite the descriptor so that numbers go on; `None` to leave it.
    pub fn map(&mut self, descriptor: &Vp8Descriptor) -> Option<Vp8Patch> {
        let (picture, tl0) = (descriptor.picture_id(), descriptor.tl0_pic_idx());
        if std::mem::take(&mut self.pending) {
            if let (Some(last), Some(picture)) = (self.last_picture, picture) {
                self.push_offset(picture, last.wrapping_add(1).wrapping_sub(picture));
            }
            if let (Some(last), Some(tl0)) = (self.last_tl0, tl0) {
                self.tl0_offset = last.wrapping_add(1).wrapping_sub(tl0);
            }
        }
        let picture = picture.map(|picture| picture.wrapping_add(self.offset(picture)) & PICTURE_MASK);
        let tl0 = tl0.map(|tl0| tl0.wrapping_add(self.tl0_offset));
        if descriptor.picture_id().is_none_or(|id| self.newest == Some(id) || self.is_ahead(id)) {
            self.newest = descriptor.picture_id();
            (self.last_picture, self.last_tl0) = (picture.or(self.last_picture), tl0.or(self.last_tl0));
        }
        if !self.switched {
            return None;
        }
        Some(Vp8Patch { picture, tl0 })
    }
}

/// What is to be written over a VP8 payload descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Patch {
    picture: Option<u16>,
    tl0: Option<u8>,
}

impl Vp8Patch {
    /// Writes over the descriptor at the head of the payload. A number that its field cannot hold is left as it came, and a
    /// keyframe heals.
    pub fn apply(&self, payload: &mut [u8]) {
        let [first, extension, rest @ ..] = payload else { return };
        if *first & 0x80 == 0 {
            return;
        }
        let mut at = 0;
        if *extension & 0x80 != 0 {
            match rest {
                [high, low, ..] if *high & 0x80 != 0 => {
                    if let Some(picture) = self.picture {
                        [*high, *low] = (picture | 0x8000).to_be_bytes();
                    }
                    at = 2;
                }
                [short, ..] => {
                    if let Some(picture) = self.picture.filter(|picture| *picture < 0x80) {
                        *short = picture as u8;
                    }
                    at = 1;
                }
                [] => return,
            }
        }
        if *extension & 0x40 != 0
            && let (Some(to), Some(tl0)) = (rest.get_mut(at), self.tl0)
        {
            *to = tl0;
        }
    }
}

/// Keeps the frame numbers of dependency descriptors going on over changes of source. Within a source they stay as they
/// are: frames name those that they need by distance, and those that are left out are needed by none.
#[derive(Default)]
pub struct FrameMunger {
    pending: bool,
    offset: u16,
    last: Option<u16>,
}

impl FrameMunger {
    pub fn switch(&mut self) {
        self.pending = true;
    }

    /// The descriptor with its new number; `None` to leave it as it is.
    pub fn map(&mut self, bytes: &DependencyBytes) -> Option<DependencyBytes> {
        let number = bytes.frame_number()?;
        if std::mem::take(&mut self.pending)
            && let Some(last) = self.last
        {
            self.offset = last.wrapping_add(1).wrapping_sub(number);
        }
        let to = number.wrapping_add(self.offset);
        if self.last.is_none_or(|last| to.wrapping_sub(last) < u16::MAX / 2) {
            self.last = Some(to);
        }
        (self.offset != 0).then(|| bytes.with_frame_number(to))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const VIDEO: u32 = 90_000;

    #[test]
    fn a_pause_leaves_no_gap_and_time_goes_on_as_the_source_says() {
        let now = Instant::now();
        let mut munger = RtpMunger::new(7, VIDEO);
        assert_eq!(munger.map(70_000, 1_000, now), Some((7, 1_000)));
        assert_eq!(munger.map(70_001, 4_000, now), Some((8, 4_000)));
        munger.resume();
        assert_eq!(munger.map(70_300, 904_000, now), Some((9, 904_000)));
        // Late from before the pause.
        assert_eq!(munger.map(70_299, 901_000, now), None);
        // A loss before us stays a gap.
        assert_eq!(munger.map(70_302, 910_000, now), Some((11, 910_000)));
        assert_eq!(munger.map(70_301, 907_000, now), Some((10, 907_000)));
    }

    #[test]
    fn packets_left_out_of_a_stream_leave_no_gap_and_losses_do() {
        let now = Instant::now();
        let mut munger = RtpMunger::new(10, VIDEO);
        let map = |munger: &mut RtpMunger, seq| munger.map(seq, 0, now).map(|(seq, _)| seq);
        assert_eq!(map(&mut munger, 100), Some(10));
        munger.skip(101);
        munger.skip(102);
        assert_eq!(map(&mut munger, 103), Some(11));
        // 104 is lost before us, 105 is left out, 106 goes on; 104 comes late.
        munger.skip(105);
        assert_eq!(map(&mut munger, 106), Some(13));
        assert_eq!(map(&mut munger, 104), Some(12));
    }

    #[test]
    fn another_source_goes_on_by_the_time_that_passed() {
        let now = Instant::now();
        let mut munger = RtpMunger::new(100, VIDEO);
        munger.map(5, 1_000, now);
        munger.switch();
        let later = now + Duration::from_millis(100);
        assert_eq!(munger.map(900_000, 77, later), Some((101, 1_000 + 9_000)));
        assert_eq!(munger.map(900_001, 77 + 3_000, later), Some((102, 1_000 + 12_000)));
    }

    #[test]
    fn a_source_that_restarts_its_time_after_a_pause_does_not_turn_it_back() {
        let now = Instant::now();
        let mut munger = RtpMunger::new(1, VIDEO);
        munger.map(1, 50_000, now);
        munger.resume();
        let (_, time) = munger.map(2, 10, now + Duration::from_secs(1)).unwrap();
        assert_eq!(time, 50_000 + 90_000);
    }

    #[test]
    fn a_picture_that_is_left_out_late_takes_no_number_back() {
        let descriptor = |picture: u16| {
            let payload = [0x90, 0x80, 0x80 | (picture >> 8) as u8, picture as u8, 0x01, 0];
            Vp8Descriptor::parse(&payload).unwrap()
        };
        let mut munger = Vp8Munger::default();
        munger.map(&descriptor(10));
        munger.skip(&descriptor(11));
        let numbered = |munger: &mut Vp8Munger, picture| {
            munger.map(&descriptor(picture));
            munger.last_picture.unwrap()
        };
        assert_eq!(numbered(&mut munger, 12), 11);
        // 13 is lost before us, 14 goes on; 13 comes late and is left out.
        assert_eq!(numbered(&mut munger, 14), 13);
        munger.skip(&descriptor(13));
        assert_eq!(numbered(&mut munger, 15), 14);
        // One that comes late and is sent changes nothing for those after it.
        munger.map(&descriptor(12));
        munger.switch();
        assert_eq!(numbered(&mut munger, 900), 15);
    }

    #[test]
    fn frame_numbers_go_on_over_a_change_of_stream() {
        let mut munger = FrameMunger::default();
        let frame = |number: u16| DependencyBytes::new(&[&[0xc0][..], &number.to_be_bytes(), &[9]].concat());
        assert!(munger.map(&frame(65_535)).is_none(), "left as it is");
        munger.switch();
        let renumbered = munger.map(&frame(700)).unwrap();
        let mut copy = renumbered.as_received().to_vec();
        renumbered.renumber(&mut copy);
        assert_eq!(copy, [0xc0, 0, 0, 9]);
        assert_eq!(munger.map(&frame(702)).unwrap().frame_number(), Some(2));
    }

    proptest! {
        /// Whatever is left out and however packets are reordered, no number is sent twice and none before the first.
        #[test]
        fn numbers_are_never_reused(
            steps in proptest::collection::vec((0u64..6, 0u8..12), 1..200),
            first in 0u64..200_000,
        ) {
            let now = Instant::now();
            let mut munger = RtpMunger::new(9, VIDEO);
            let (mut seen, mut given, mut head) = (std::collections::HashSet::new(), std::collections::HashSet::new(), first + 100);
            for (back, action) in steps {
                if action == 0 {
                    munger.resume();
                }
                let seq = head - back;
                head += 1;
                if action == 1 {
                    munger.skip(seq);
                    given.insert(seq);
                    continue;
                }
                if !given.insert(seq) {
                    continue;
                }
                if let Some((out, _)) = munger.map(seq, seq as u32, now) {
                    prop_assert!(out >= 9);
                    prop_assert!(seen.insert(out), "{out} twice");
                }
            }
        }
    }
}
