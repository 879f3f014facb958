//! Opus with redundancy: packets that bear the ones before them once more (RED, RFC 2198). Pure.
//!
//! A publisher's packet is taken apart where it comes in: what it bears of lost ones become packets of their own, as if they
//! had not been lost, so that whoever comes after (taps, lanes, receivers without RED) sees plain Opus. To those receivers
//! that take RED, every packet goes with the ones before it, whether its publisher sent them so or not.

use std::{collections::VecDeque, sync::Arc};

use str0m::{
    media::Pt,
    rtp::{RedDecoder, RedEncoder, RedundantBlock},
};

/// Packets before it that one may bear.
pub const DEPTH_MAX: usize = 3;
/// The largest payload that we make: with all headers it must fit into what every path carries.
const PAYLOAD_BYTES_MAX: usize = 1_100;
/// Packets that were rebuilt, and whose originals may still be under way.
const REBUILT_MAX: usize = 16;
/// A hole larger than this is no loss of single packets.
const HOLE_MAX: u64 = 8;

/// A publisher's packet, taken apart.
pub struct Parts {
    pub primary: Arc<[u8]>,
    /// Of packets before it, the oldest first.
    pub earlier: Vec<Earlier>,
}

pub struct Earlier {
    /// How much earlier in RTP time.
    pub offset: u32,
    pub payload: Arc<[u8]>,
}

/// Takes a RED payload apart; `None` where it is malformed, or its last block is of another payload type than `opus`.
pub fn split(payload: &[u8], opus: Pt) -> Option<Parts> {
    let blocks = RedDecoder::decode(payload).ok()?;
    let (primary, earlier) = blocks.split_last().filter(|(primary, _)| primary.pt == *opus)?;
    // Blocks without content stand for nothing that could be played.
    let earlier = earlier.iter().filter(|it| it.pt == *opus && it.timestamp_offset > 0 && !it.payload.is_empty());
    let earlier = earlier.map(|it| Earlier { offset: it.timestamp_offset, payload: it.payload.into() });
    Some(Parts { primary: primary.payload.into(), earlier: earlier.collect() })
}

/// A packet that was lost and is there again.
#[derive(Debug, PartialEq, Eq)]
pub struct Rebuilt {
    pub seq: u64,
    pub rtp_time: u64,
    pub payload: Arc<[u8]>,
}

/// Finds out which of a publisher's packets were lost on their way to us.
#[derive(Default)]
pub struct Rebuilder {
    source: u32,
    /// Number and time of the newest packet so far.
    newest: Option<(u64, u64)>,
    rebuilt: VecDeque<u64>,
}

impl Rebuilder {
    /// What came is not to be rebuilt from what comes.
    pub fn interrupt(&mut self) {
        self.newest = None;
    }

    /// A packet came. Gives those before it that are to be passed on first; `None` where it is to be left out itself,
    /// since it was rebuilt before.
    pub fn handle(&mut self, source: u32, seq: u64, rtp_time: u64, earlier: Vec<Earlier>) -> Option<Vec<Rebuilt>> {
        if self.source != source {
            *self = Self { source, ..Self::default() };
        }
        if self.rebuilt.contains(&seq) {
            return None;
        }
        let newest = self.newest.filter(|(newest, _)| *newest < seq);
        if newest.is_some() || self.newest.is_none() {
            self.newest = Some((seq, rtp_time));
        }
        let Some((last, last_time)) = newest else { return Some(Vec::new()) };
        let mut found = Vec::new();
        for Earlier { offset, payload } in earlier {
            let Some(time) = rtp_time.checked_sub(u64::from(offset)).filter(|time| *time > last_time) else { continue };
            let Some(seq) = place((last, last_time), (seq, rtp_time), time) else { continue };
            if !self.rebuilt.contains(&seq) {
                self.rebuilt.push_back(seq);
                found.push(Rebuilt { seq, rtp_time: time, payload });
            }
        }
        let forgotten = self.rebuilt.len().saturating_sub(REBUILT_MAX);
        self.rebuilt.drain(..forgotten);
        Some(found)
    }
}

/// The number of the packet that was sent at `time`, between two that came: exactly one is missing, or as many as fill the
/// time evenly.
fn place(before: (u64, u64), after: (u64, u64), time: u64) -> Option<u64> {
    let steps = after.0 - before.0;
    match steps {
        0 | 1 => None,
        2 => Some(before.0 + 1),
        _ if steps > HOLE_MAX + 1 => None,
        _ => {
            let span = after.1.checked_sub(before.1).filter(|span| *span > 0 && span % steps == 0)?;
            let (length, since) = (span / steps, time - before.1);
            (since % length == 0 && since / length < steps).then(|| before.0 + since / length)
        }
    }
}

/// The last packets of a track, as the next one is to bear them.
#[derive(Default)]
pub struct History {
    source: u32,
    /// With their RTP times, the newest last.
    recent: VecDeque<(u64, Arc<[u8]>)>,
}

impl History {
    /// What was is not to be heard any more.
    pub fn interrupt(&mut self) {
        self.recent.clear();
    }

    /// A packet was passed on.
    pub fn handle(&mut self, source: u32, rtp_time: u64, payload: &Arc<[u8]>) {
        if self.source != source {
            (self.source, self.recent) = (source, VecDeque::new());
        }
        // One that comes late is borne by nothing: those after it went without it.
        if self.recent.back().is_some_and(|(newest, _)| *newest >= rtp_time) {
            return;
        }
        if self.recent.len() == DEPTH_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((rtp_time, payload.clone()));
    }

    /// The packet with as many as `depth` of those before it, for a receiver to whom Opus is `opus`.
    fn wrap(&self, source: u32, rtp_time: u64, payload: &[u8], opus: Pt, depth: usize) -> Arc<[u8]> {
        let mut room = PAYLOAD_BYTES_MAX.saturating_sub(payload.len());
        let before = self.recent.iter().rev().filter(|(time, _)| self.source == source && *time < rtp_time);
        let mut blocks = Vec::with_capacity(depth);
        for (time, payload) in before.take(depth) {
            let Ok(timestamp_offset) = u32::try_from(rtp_time - time) else { break };
            let block = RedundantBlock { pt: *opus, timestamp_offset, payload: payload.to_vec() };
            let left = room.checked_sub(payload.len());
            // After a silence those before it are too old to be borne, and nobody misses them.
            let (Some(left), true) = (left, block.fits()) else { break };
            room = left;
            blocks.push(block);
        }
        blocks.reverse();
        RedEncoder::encode(*opus, payload, &blocks).into()
    }
}

/// One packet with redundancy, made once for all receivers that take it alike.
pub struct Wrapper<'a> {
    history: &'a History,
    source: u32,
    rtp_time: u64,
    payload: &'a [u8],
    made: Vec<(Pt, usize, Arc<[u8]>)>,
}

impl<'a> Wrapper<'a> {
    pub fn new(history: &'a History, source: u32, rtp_time: u64, payload: &'a [u8]) -> Self {
        Self { history, source, rtp_time, payload, made: Vec::new() }
    }

    pub fn get(&mut self, opus: Pt, depth: usize) -> Arc<[u8]> {
        let known = self.made.iter().find(|(pt, at, _)| *pt == opus && *at == depth);
        if let Some((_, _, payload)) = known {
            return payload.clone();
        }
        let payload = self.history.wrap(self.source, self.rtp_time, self.payload, opus, depth);
        self.made.push((opus, depth, payload.clone()));
        payload
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPUS: u8 = 111;

    fn pt(pt: u8) -> Pt {
        Pt::from(pt)
    }

    /// The packet with this number; one each 20 ms.
    fn packet(seq: u64) -> (u64, Arc<[u8]>) {
        (seq * 960, vec![seq as u8; 3].into())
    }

    /// How a sender sends packets of these numbers with this much redundancy.
    fn sent(numbers: impl Iterator<Item = u64>, depth: usize) -> Vec<(u64, Arc<[u8]>)> {
        let mut history = History::default();
        let mut send = |seq| {
            let (time, payload) = packet(seq);
            let wrapped = Wrapper::new(&history, 1, time, &payload).get(pt(OPUS), depth);
            history.handle(1, time, &payload);
            (seq, wrapped)
        };
        numbers.map(&mut send).collect()
    }

    /// The numbers that one can play who gets these packets, in order.
    fn played(packets: &[(u64, Arc<[u8]>)]) -> Vec<u64> {
        let mut rebuilder = Rebuilder::default();
        let mut played = Vec::new();
        for (seq, payload) in packets {
            let parts = split(payload, pt(OPUS)).unwrap();
            let Some(rebuilt) = rebuilder.handle(1, *seq, seq * 960, parts.earlier) else { continue };
            for it in rebuilt {
                assert_eq!((it.rtp_time, it.payload), packet(it.seq), "a packet is rebuilt as it was");
                played.push(it.seq);
            }
            assert_eq!(parts.primary, packet(*seq).1);
            played.push(*seq);
        }
        played
    }

    #[test]
    fn as_many_as_a_packet_bears_may_be_lost_in_a_row() {
        let packets = sent(0..12, 2);
        let came = |lost: &[u64]| packets.iter().filter(|(seq, _)| !lost.contains(seq)).cloned().collect::<Vec<_>>();
        assert_eq!(played(&came(&[4])), (0..12).collect::<Vec<_>>());
        assert_eq!(played(&came(&[4, 5])), (0..12).collect::<Vec<_>>());
        assert_eq!(played(&came(&[4, 5, 6])), [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]);
        let single = sent(0..6, 1);
        assert_eq!(played(&[single[0].clone(), single[3].clone()]), [0, 2, 3]);
    }

    #[test]
    fn one_that_comes_late_is_not_passed_on_twice() {
        let packets = sent(0..4, 1);
        let order = [0, 2, 1, 3].map(|seq: usize| packets[seq].clone());
        assert_eq!(played(&order), [0, 1, 2, 3]);
    }

    #[test]
    fn after_a_silence_nothing_of_before_is_borne() {
        let packets = sent([1, 2, 100, 101].into_iter(), 2);
        let blocks = packets.iter().map(|(_, payload)| split(payload, pt(OPUS)).unwrap().earlier.len());
        assert_eq!(blocks.collect::<Vec<_>>(), [0, 1, 0, 1]);
    }

    #[test]
    fn what_was_said_while_muted_is_neither_rebuilt_nor_borne() {
        let packets = sent(0..4, 2);
        let mut rebuilder = Rebuilder::default();
        rebuilder.handle(1, 0, 0, Vec::new());
        rebuilder.interrupt();
        let parts = split(&packets[3].1, pt(OPUS)).unwrap();
        assert_eq!(rebuilder.handle(1, 3, 3 * 960, parts.earlier), Some(Vec::new()));
        let mut history = History::default();
        history.handle(1, 0, &packet(0).1);
        history.interrupt();
        assert_eq!(*Wrapper::new(&history, 1, 960, &[7]).get(pt(OPUS), 2), [OPUS, 7]);
    }

    #[test]
    fn large_packets_bear_less_so_that_they_pass_everywhere() {
        let mut history = History::default();
        let large: Arc<[u8]> = vec![1; 500].into();
        history.handle(1, 960, &large);
        history.handle(1, 1_920, &large);
        let wrapped = Wrapper::new(&history, 1, 2_880, &large).get(pt(OPUS), 2);
        assert_eq!(split(&wrapped, pt(OPUS)).unwrap().earlier.len(), 1);
        assert!(wrapped.len() <= PAYLOAD_BYTES_MAX);
    }

    #[test]
    fn receivers_with_other_payload_types_get_their_own() {
        let history = History::default();
        let mut wrapper = Wrapper::new(&history, 1, 0, &[5]);
        let (first, again, other) = (wrapper.get(pt(111), 1), wrapper.get(pt(111), 1), wrapper.get(pt(96), 1));
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!((&first[..], &other[..]), (&[111, 5][..], &[96, 5][..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(parts) = split(&bytes, pt(bytes.last().copied().unwrap_or(0) & 0x7f)) {
                let mut rebuilder = Rebuilder::default();
                rebuilder.handle(1, u64::MAX - 9, u64::MAX - 9_000, Vec::new());
                prop_assert!(rebuilder.handle(1, u64::MAX, u64::MAX, parts.earlier).is_some());
            }
        }

        /// Whatever is lost and reordered: each packet is passed on once, as it was sent.
        #[test]
        fn each_is_passed_on_once(lost in proptest::collection::hash_set(0u64..60, 0..40), swap in 1usize..59, depth in 0usize..=2) {
            let mut packets = sent(0..60, depth);
            packets.swap(swap - 1, swap);
            packets.retain(|(seq, _)| !lost.contains(seq));
            let mut played = played(&packets);
            let count = played.len();
            played.sort_unstable();
            played.dedup();
            prop_assert_eq!(played.len(), count);
            prop_assert!(played.len() >= packets.len());
        }
    }
}
