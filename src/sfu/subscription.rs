//! One track as one receiver gets it: which packets, under which sequence numbers and times.
//!
//! A receiver must see one gapless stream that starts low (a first sequence number above 65,535 would be
//! undecryptable for it), whatever we leave out: mutes, pauses, changes of layer. Losses before us stay visible as
//! gaps, so that they are asked for again.

use std::time::Instant;

use str0m::rtp::{Vp8Descriptor, Vp8Patch};

use super::{MediaKind, participant::ParticipantKey, transport::Outlet};

/// A first sequence number is below this: far from a wrap, so that reordering at the start cannot cross one.
const FIRST_SEQ_MAX: u64 = 0x3fff;
/// Least step of RTP time over a change of source, so that two frames never share one.
const MIN_STEP_HZ_PART: u32 = 50;

pub struct Subscription {
    pub subscriber: ParticipantKey,
    pub outlet: Outlet,
    pub paused: bool,
    /// Video that cannot be decoded is not sent: true until a keyframe begins.
    pub needs_keyframe: bool,
    source: Option<u32>,
    rtp: RtpMunger,
    vp8: Vp8Munger,
}

impl Subscription {
    pub fn new(subscriber: ParticipantKey, outlet: Outlet, kind: MediaKind, paused: bool) -> Self {
        Self {
            subscriber,
            outlet,
            paused,
            needs_keyframe: kind == MediaKind::Video,
            source: None,
            rtp: RtpMunger::new(u64::from(*outlet.ssrc) & FIRST_SEQ_MAX, kind.clock_hz()),
            vp8: Vp8Munger::default(),
        }
    }

    /// The next packet follows what was left out without a gap; video starts with a keyframe.
    pub fn interrupt(&mut self, kind: MediaKind) {
        self.rtp.resume();
        self.needs_keyframe = kind == MediaKind::Video;
    }

    /// The stream carries another track from here on.
    pub fn hand_over(&mut self, kind: MediaKind, paused: bool) {
        self.paused = paused;
        self.needs_keyframe = kind == MediaKind::Video;
        self.source = None;
        self.rtp.switch();
        self.vp8.switch();
    }

    /// Sequence number and time to send with; `None` for a packet from before the last interruption.
    pub fn munge(&mut self, source: u32, seq: u64, time: u32, now: Instant) -> Option<(u64, u32)> {
        if self.source.is_some_and(|known| known != source) {
            self.rtp.switch();
            self.vp8.switch();
        }
        self.source = Some(source);
        self.rtp.map(seq, time, now)
    }

    /// How to rewrite the VP8 descriptor so that picture ids go on over a change of layer; `None` to leave it.
    pub fn patch(&mut self, descriptor: &Vp8Descriptor) -> Option<Vp8Patch> {
        self.vp8.map(descriptor)
    }
}

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
}

impl RtpMunger {
    pub fn new(first_seq: u64, clock_hz: u32) -> Self {
        Self { next: Next::Start, clock_hz, from: 0, to: first_seq, time_offset: 0, last: None }
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
        let seq = self.to.checked_add(seq.checked_sub(self.from)?)?;
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
        self.next = Next::Steady;
    }
}

/// Keeps VP8 picture ids (RFC 7741 section 4.2) continuous over changes of source.
#[derive(Default)]
struct Vp8Munger {
    /// Nothing is rewritten before the first change.
    switched: bool,
    pending: bool,
    picture_offset: u16,
    tl0_offset: u8,
    last_picture: Option<u16>,
    last_tl0: Option<u8>,
}

impl Vp8Munger {
    fn switch(&mut self) {
        self.switched = true;
        self.pending = true;
    }

    fn map(&mut self, descriptor: &Vp8Descriptor) -> Option<Vp8Patch> {
        let (picture, tl0) = (descriptor.picture_id(), descriptor.tl0_pic_idx());
        if std::mem::take(&mut self.pending) {
            if let (Some(last), Some(picture)) = (self.last_picture, picture) {
                self.picture_offset = last.wrapping_add(1).wrapping_sub(picture);
            }
            if let (Some(last), Some(tl0)) = (self.last_tl0, tl0) {
                self.tl0_offset = last.wrapping_add(1).wrapping_sub(tl0);
            }
        }
        let picture = picture.map(|picture| picture.wrapping_add(self.picture_offset) & 0x7fff);
        let tl0 = tl0.map(|tl0| tl0.wrapping_add(self.tl0_offset));
        (self.last_picture, self.last_tl0) = (picture.or(self.last_picture), tl0.or(self.last_tl0));
        if !self.switched {
            return None;
        }
        let mut patch = descriptor.patch();
        if let Some(picture) = picture {
            patch = patch.picture_id(picture);
        }
        if let Some(tl0) = tl0 {
            patch = patch.tl0_pic_idx(tl0);
        }
        // Fails where a 7-bit id cannot hold the number: then it goes as it came, and a keyframe heals.
        patch.build().ok()
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
