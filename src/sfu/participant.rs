//! One member of a room: its transport if it has one, what it publishes, what it receives.

use std::time::{Duration, Instant};

use str0m::rtp::{RtpWrite, Ssrc};

use super::{
    clock::SenderClock, negotiation::Negotiation, slots::Key, timers::Armed, track::TrackKey, transport::Transport,
};
use crate::id::ParticipantSid;

pub type ParticipantKey = Key<Participant>;

/// Streams that one publisher may send before the oldest is looked up anew: a camera in three layers, a screen, a
/// microphone, and changes of SSRC.
const ROUTES_MAX: usize = 32;
/// Data that a participant may send: text, captions and RPC need a hundredth; file transfers get through. Beyond,
/// lossy packets are dropped and a reliable channel, in which nothing may be missing, is closed.
const DATA_BYTES_PER_SECOND: f64 = 4.0 * 1024.0 * 1024.0;
const DATA_BURST_BYTES: f64 = 8.0 * 1024.0 * 1024.0;
/// What a data packet costs beside its bytes, so that floods of tiny ones are bounded too: 4,096 packets a second.
const DATA_PACKET_COST_BYTES: f64 = 1024.0;

pub struct Participant {
    pub sid: ParticipantSid,
    /// Absent on the AI, and after the transport ended.
    pub transport: Option<Transport>,
    pub negotiation: Negotiation,
    pub clock: SenderClock,
    /// Something was queued on the transport since its last flush.
    pub dirty: bool,
    pub armed: Armed,
    pub data: DataBudget,
    /// The user name that the demultiplexer knows us by.
    pub ufrag: String,
    routes: Vec<Route>,
}

/// Where packets of a stream go: a cache, since finding out takes three look-ups.
#[derive(Clone, Copy)]
struct Route {
    ssrc: Ssrc,
    track: TrackKey,
    rank: usize,
}

impl Participant {
    pub fn new(now: Instant, sid: ParticipantSid, transport: Option<Transport>) -> Self {
        Self {
            sid,
            transport,
            negotiation: Negotiation::default(),
            clock: SenderClock::default(),
            dirty: false,
            armed: Armed::default(),
            data: DataBudget::new(now),
            ufrag: String::new(),
            routes: Vec::new(),
        }
    }

    pub fn write_rtp(&mut self, ssrc: Ssrc, packet: RtpWrite) -> bool {
        self.transport.as_mut().is_some_and(|transport| transport.write_rtp(ssrc, packet))
    }

    /// The track that a received stream belongs to, and the rank of its layer.
    pub fn route(&mut self, ssrc: Ssrc) -> Option<(TrackKey, usize)> {
        if let Some(route) = self.routes.iter().find(|route| route.ssrc == ssrc) {
            return Some((route.track, route.rank));
        }
        let (mid, rid) = self.transport.as_mut()?.inlet(ssrc)?;
        let (track, rank) = self.negotiation.uplink(&mid, rid.as_deref())?;
        if self.routes.len() >= ROUTES_MAX {
            self.routes.remove(0);
        }
        self.routes.push(Route { ssrc, track, rank });
        Some((track, rank))
    }

    /// Must follow every change of what the participant publishes.
    pub fn forget_routes(&mut self) {
        self.routes.clear();
    }

    pub fn deadline(&self) -> Option<Instant> {
        let transport = self.transport.as_ref().and_then(Transport::deadline);
        [transport, self.negotiation.poll_timeout()].into_iter().flatten().min()
    }
}

/// A token bucket for received data packets.
pub struct DataBudget {
    bytes: f64,
    filled_at: Instant,
}

impl DataBudget {
    fn new(now: Instant) -> Self {
        Self { bytes: DATA_BURST_BYTES, filled_at: now }
    }

    /// Whether a packet of this length may pass now.
    pub fn take(&mut self, now: Instant, length: usize) -> bool {
        let passed = now.saturating_duration_since(self.filled_at).min(Duration::from_secs(60));
        self.filled_at = now;
        self.bytes = (self.bytes + passed.as_secs_f64() * DATA_BYTES_PER_SECOND).min(DATA_BURST_BYTES);
        let cost = length as f64 + DATA_PACKET_COST_BYTES;
        let affordable = self.bytes >= cost;
        if affordable {
            self.bytes -= cost;
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let now = Instant::now();
        let mut budget = DataBudget::new(now);
        let passed = (0..10_000).filter(|_| budget.take(now, 15_000)).count();
        assert!((500..600).contains(&passed), "{passed}");
        let later = now + Duration::from_secs(1);
        assert!(budget.take(later, 15_000));
    }
}
