//! What one stream sent of late, for those who ask for it again. Payloads are shared with all other receivers: what is kept
//! for each of them is where they are.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::Outgoing;

/// Half a second at 1,000 packets/s is more than any round trip that a conversation survives.
const PACKETS_MAX: usize = 512;
const AGE_MAX: Duration = Duration::from_secs(1);
/// Retransmissions may take this share of a stream's bytes, and this much at once. More would feed a storm.
const SHARE_PERCENT: i64 = 50;
const CREDIT_BYTES: i64 = 64 * 1024;

#[derive(Default)]
pub struct History {
    /// In the order of their numbers.
    sent: VecDeque<Sent>,
    /// Bytes that may be sent again.
    credit: i64,
    started: bool,
}

struct Sent {
    packet: Outgoing,
    at: Instant,
    again: Option<Instant>,
}

impl History {
    /// A packet left.
    pub fn push(&mut self, now: Instant, packet: Outgoing) {
        if !std::mem::replace(&mut self.started, true) {
            self.credit = CREDIT_BYTES;
        }
        self.credit = (self.credit + packet.payload.len() as i64 * SHARE_PERCENT / 100).min(CREDIT_BYTES);
        self.expire(now);
        if self.sent.len() >= PACKETS_MAX {
            self.sent.pop_front();
        }
        // Late ones are few and not far back.
        let late = self.sent.iter().rev().take_while(|sent| sent.packet.seq > packet.seq).count();
        self.sent.insert(self.sent.len() - late, Sent { packet, at: now, again: None });
    }

    /// What is too old to be of use lets go of the payloads.
    pub fn expire(&mut self, now: Instant) {
        while self.sent.front().is_some_and(|sent| now.saturating_duration_since(sent.at) > AGE_MAX) {
            self.sent.pop_front();
        }
    }

    /// The packet with this number, as far as it is there and may be sent again: not where it was sent within `spacing`.
    pub fn again(&mut self, now: Instant, seq: u16, spacing: Duration) -> Option<Outgoing> {
        let newest = self.sent.back()?.packet.seq;
        let behind = u64::from((newest as u16).wrapping_sub(seq));
        let seq = newest.checked_sub(behind)?;
        let at = self.sent.binary_search_by_key(&seq, |sent| sent.packet.seq).ok()?;
        let sent = &mut self.sent[at];
        let length = sent.packet.payload.len() as i64;
        let waits = sent.again.unwrap_or(sent.at) + spacing > now && sent.again.is_some();
        if waits || self.credit < length {
            return None;
        }
        self.credit -= length;
        sent.again = Some(now);
        Some(sent.packet.clone())
    }

    /// The newest packet, to fill a probe with: a receiver may have use for it, as it may not for mere padding.
    pub fn newest(&self) -> Option<&Outgoing> {
        self.sent.back().map(|sent| &sent.packet)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::StreamKey, *};

    const SPACING: Duration = Duration::from_millis(20);

    fn packet(now: Instant, seq: u64) -> Outgoing {
        Outgoing { seq, payload: vec![seq as u8; 1_000].into(), ..Outgoing::empty(StreamKey::default(), 0, now) }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_was_sent_of_late_is_found_by_its_short_number_over_a_wrap() {
        let (now, mut history) = (Instant::now(), History::default());
        for seq in [65_530, 65_531, 65_533, 65_532, 65_536, 65_537] {
            history.push(now, packet(now, seq));
        }
        let mut again = |seq| history.again(now, seq, SPACING).map(|packet| packet.seq);
        assert_eq!([again(65_532), again(0), again(65_530)], [Some(65_532), Some(65_536), Some(65_530)]);
        assert_eq!([again(65_534), again(2), again(65_529)], [None; 3], "never sent");
    }

    #[test]
    fn a_packet_goes_again_once_within_a_round_trip_and_not_when_it_is_old() {
        let (now, mut history) = (Instant::now(), History::default());
        history.push(now, packet(now, 7));
        assert!(history.again(now + ms(5), 7, SPACING).is_some());
        assert!(history.again(now + ms(10), 7, SPACING).is_none());
        assert!(history.again(now + ms(30), 7, SPACING).is_some());
        history.push(now + ms(1_001), packet(now, 8));
        assert!(history.again(now + ms(1_001), 7, SPACING).is_none());
    }

    #[test]
    fn a_storm_of_requests_gets_a_share_and_no_more() {
        let (now, mut history) = (Instant::now(), History::default());
        let mut sent = 0;
        for seq in 0..1_000 {
            let at = now + ms(seq);
            history.push(at, packet(at, seq));
            sent += (0..20)
                .filter(|back| history.again(at, (seq as u16).wrapping_sub(*back), Duration::ZERO).is_some())
                .count();
        }
        assert!((500..600).contains(&sent), "{sent}");
    }
}
