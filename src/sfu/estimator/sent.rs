//! What was sent, by its transport-wide number, until the receiver has told of it. Nothing is concluded here.

/// So many packets at most; older ones are forgotten, and what is told of them then is ignored.
pub const PACKETS_MAX: usize = 4_096;
const PACKETS_AT_FIRST: usize = 64;
/// The ring grows where a packet would be forgotten sooner than this, in microseconds: who gets sound alone needs little.
const KEPT: u64 = 3_000_000;

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Fate {
    #[default]
    Unknown,
    Lost,
    Arrived,
}

#[derive(Clone, Copy, Default)]
pub struct Packet {
    pub at: u64,
    pub bytes: u16,
    /// The probe that it belongs to; 0 is none.
    pub probe: u8,
    pub fate: Fate,
}

/// A ring of packets. Its length is a power of two.
pub struct SentPackets {
    ring: Vec<Packet>,
    next: u64,
}

impl SentPackets {
    pub fn new() -> Self {
        Self { ring: vec![Packet::default(); PACKETS_AT_FIRST], next: 1 }
    }

    /// The number that the next packet gets, counted on without end.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn push(&mut self, at: u64, bytes: usize, probe: u8) -> u64 {
        let number = self.next;
        let place = self.place(number);
        let oldest = self.ring[place].at;
        let full = number > self.ring.len() as u64;
        if full && self.ring.len() < PACKETS_MAX && at.saturating_sub(oldest) < KEPT {
            self.grow();
        }
        let place = self.place(number);
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.ring[place] = Packet { at, bytes, probe, fate: Fate::Unknown };
        self.next += 1;
        number
    }

    /// The packet that the receiver means; none if it was never sent, or is forgotten.
    pub fn find(&mut self, number: u16) -> Option<(u64, &mut Packet)> {
        let last = self.next - 1;
        let behind = u64::from((last as u16).wrapping_sub(number));
        if behind >= last || behind >= self.ring.len() as u64 {
            return None;
        }
        let place = self.place(last - behind);
        Some((last - behind, &mut self.ring[place]))
    }

    fn place(&self, number: u64) -> usize {
        number as usize & (self.ring.len() - 1)
    }

    fn grow(&mut self) {
        let before = self.ring.len();
        let mut bigger = vec![Packet::default(); before * 2];
        for number in self.next.saturating_sub(before as u64)..self.next {
            bigger[number as usize & (before * 2 - 1)] = self.ring[self.place(number)];
        }
        self.ring = bigger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap_and_only_what_was_sent_is_found() {
        let mut sent = SentPackets::new();
        assert!(sent.find(0).is_none() && sent.find(1).is_none());
        for n in 1..=70_000u64 {
            assert_eq!(sent.push(n * 1_000, 100, 0), n);
        }
        assert!(sent.find(70_001_u64 as u16).is_none(), "not sent yet");
        assert_eq!(sent.find(70_000_u64 as u16).unwrap().1.at, 70_000_000);
        assert_eq!(sent.find(67_001_u64 as u16).unwrap().0, 67_001);
        assert!(sent.find(60_000_u64 as u16).is_none(), "forgotten");
    }

    #[test]
    fn the_ring_grows_with_the_packets_of_seconds_and_no_further() {
        let mut sound = SentPackets::new();
        (0..10_000).for_each(|n| _ = sound.push(n * 20_000, 100, 0));
        assert_eq!(sound.ring.len(), 256);
        let mut flood = SentPackets::new();
        (0..100_000).for_each(|n| _ = flood.push(n, 100, 0));
        assert_eq!(flood.ring.len(), PACKETS_MAX);
    }
}
