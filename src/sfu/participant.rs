//! One member of a room: its transports if it has any, what it publishes, what it receives.

use std::time::Instant;

use str0m::{
    format::PayloadParams,
    media::{Mid, Pt},
    rtp::Ssrc,
};

use super::{
    MediaKind, SfuStats,
    api::Connections,
    bandwidth::Bandwidth,
    clock::SenderClock,
    egress::Outgoing,
    encodings::Origin,
    negotiation::Negotiation,
    offers::Offers,
    slots::Key,
    subscription::{Subscription, View},
    timers::Armed,
    track::TrackKey,
    transport::{Taken, Transport, TransportConfig},
};
use crate::{
    id::{ParticipantSid, TrackSid},
    limits::{Bucket, Rate},
};

pub type ParticipantKey = Key<Participant>;

/// Streams that one publisher may send before the oldest is looked up anew: a camera in three layers, a screen, a
/// microphone, and changes of SSRC.
const ROUTES_MAX: usize = 32;
/// Data that a participant may send, bytes: text, captions and RPC need a hundredth; file transfers get through. Beyond,
/// lossy packets are dropped and a reliable channel, in which nothing may be missing, is closed.
const DATA: Rate = Rate::new(8.0 * 1024.0 * 1024.0, 4.0 * 1024.0 * 1024.0);
/// What a data packet costs beside its bytes, so that floods of tiny ones are bounded too: 4,096 packets a second.
const DATA_PACKET_COST_BYTES: f64 = 1024.0;
/// RTP packets that are passed on for a publisher: each becomes one for every receiver. A camera in three layers and a
/// screen at 10 Mbit/s are 1,500 a second. Beyond, they are dropped.
const MEDIA: Rate = Rate::new(6_000.0, 3_000.0);
/// Datagrams of any kind that are decrypted for a participant: media, data, and its reports on a hundred streams. Beyond,
/// they are dropped unread.
const DATAGRAMS: Rate = Rate::new(20_000.0, 10_000.0);

/// Which of a client's peer connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// The only one, or the one that it publishes by: the client offers.
    Main,
    /// The second one, which it receives by: we offer.
    Down,
}

pub struct Participant {
    pub sid: ParticipantSid,
    /// Absent on the AI, and after the transport ended.
    main: Option<Transport>,
    down: Option<Down>,
    pub negotiation: Negotiation,
    pub clock: SenderClock,
    /// Something was queued on the transport that it receives by since its last flush; on the other one.
    pub dirty: bool,
    pub main_dirty: bool,
    /// What was told of its connection last: whether all of it stands.
    up: bool,
    /// Whether it was told that nothing comes from it.
    silent: bool,
    pub armed: Armed,
    pub budget: Budget,
    pub bandwidth: Bandwidth,
    routes: Vec<Route>,
    /// How far streams got whose section waits for another track, where sections stay open.
    retired: Vec<Subscription>,
}

/// The connection that a client with two of them receives by.
struct Down {
    transport: Transport,
    offers: Offers,
}

/// Where packets of a stream go: a cache, since finding out takes three look-ups.
#[derive(Clone, Copy)]
struct Route {
    ssrc: Ssrc,
    pt: Pt,
    place: Place,
}

/// Where a packet belongs.
#[derive(Clone, Copy)]
pub struct Place {
    pub track: TrackKey,
    pub origin: Origin,
}

impl Participant {
    pub fn new(now: Instant, sid: ParticipantSid, connections: Connections, config: &TransportConfig) -> Self {
        let transport = || Transport::new(now, config);
        Self {
            sid,
            main: (connections != Connections::None).then(transport),
            down: (connections == Connections::Two).then(|| Down { transport: transport(), offers: Offers::new(now) }),
            negotiation: Negotiation::new(connections == Connections::Fixed),
            clock: SenderClock::default(),
            dirty: false,
            main_dirty: false,
            up: false,
            silent: false,
            armed: Armed::default(),
            budget: Budget::new(now),
            bandwidth: Bandwidth::default(),
            routes: Vec::new(),
            retired: Vec::new(),
        }
    }

    pub fn transport(&self, leg: Leg) -> Option<&Transport> {
        match leg {
            Leg::Main => self.main.as_ref(),
            Leg::Down => self.down.as_ref().map(|down| &down.transport),
        }
    }

    pub fn transport_mut(&mut self, leg: Leg) -> Option<&mut Transport> {
        match leg {
            Leg::Main => self.main.as_mut(),
            Leg::Down => self.down.as_mut().map(|down| &mut down.transport),
        }
    }

    pub fn offers_mut(&mut self) -> Option<&mut Offers> {
        self.down.as_mut().map(|down| &mut down.offers)
    }

    /// The connection that it receives by.
    pub fn receiving(&self) -> Leg {
        if self.down.is_some() { Leg::Down } else { Leg::Main }
    }

    /// Ends its connections; returns how many there were.
    pub fn disconnect(&mut self) -> u64 {
        u64::from(self.main.take().is_some()) + u64::from(self.down.take().is_some())
    }

    pub fn connections(&self) -> u64 {
        u64::from(self.main.is_some()) + u64::from(self.down.is_some())
    }

    /// Whether its connection changed: the one that it receives by is what counts, and the other once it has been up.
    pub fn connection_changed(&mut self) -> Option<bool> {
        let receives = self.transport(self.receiving()).is_some_and(Transport::is_connected);
        let sends = self.main.as_ref().is_some_and(|main| main.is_connected() || !main.was_connected());
        let up = receives && sends;
        (std::mem::replace(&mut self.up, up) != up).then_some(up)
    }

    /// Whether it changed that nothing comes by one of its connections.
    pub fn silence_changed(&mut self) -> Option<bool> {
        let silent = [Leg::Main, Leg::Down].into_iter().filter_map(|leg| self.transport(leg)).any(Transport::is_silent);
        (std::mem::replace(&mut self.silent, silent) != silent).then_some(silent)
    }

    pub fn write_rtp(&mut self, packet: Outgoing, paced: bool, stats: &mut SfuStats) -> bool {
        self.transport_mut(self.receiving()).is_some_and(|transport| transport.write_rtp(packet, paced, stats))
    }

    /// Whether media can be sent to it now.
    pub fn can_receive(&self) -> bool {
        self.transport(self.receiving()).is_some_and(Transport::can_send)
    }

    /// It is to receive this track.
    pub fn wish(&mut self, now: Instant, track: TrackKey, sid: &TrackSid, kind: MediaKind) {
        match &mut self.down {
            Some(down) => down.offers.wish(now, track, sid, kind),
            None => self.negotiation.wish(now, track, sid, kind),
        };
    }

    /// It is not to receive this track any more.
    pub fn unwish(&mut self, now: Instant, track: TrackKey) {
        match &mut self.down {
            Some(down) => down.offers.unwish(now, track),
            None => self.negotiation.unwish(now, track),
        }
    }

    /// It goes to another room: it receives nothing from this one any more, and this one's names mean nothing.
    pub fn depart(&mut self, now: Instant) {
        match &mut self.down {
            Some(down) => down.offers.unwish_all(now),
            None => self.negotiation.unwish_all(now),
        }
        self.forget_routes();
        (self.dirty, self.main_dirty) = (false, false);
        self.armed = Armed::default();
    }

    pub fn set_view(&mut self, track: TrackKey, view: View) {
        match &mut self.down {
            Some(down) => down.offers.set_view(track, view),
            None => self.negotiation.set_view(track, view),
        }
    }

    /// The track that a section of the connection that it receives by carries.
    pub fn carried(&self, mid: &str) -> Option<TrackKey> {
        match &self.down {
            Some(down) => down.offers.carried(mid),
            None => self.negotiation.carried(mid),
        }
    }

    /// It gets this track no more. Where its section stays open, the next track goes on where this one ended.
    pub fn retire(&mut self, subscription: Subscription) {
        if self.negotiation.is_fixed() {
            self.retired.push(subscription);
        }
    }

    /// What its stream with this SSRC carried last.
    pub fn take_retired(&mut self, ssrc: Ssrc) -> Option<Subscription> {
        let at = self.retired.iter().position(|subscription| subscription.outlet.ssrc == ssrc)?;
        Some(self.retired.swap_remove(at))
    }

    /// How it takes this format on a section.
    pub fn takes(&self, mid: Mid, params: &PayloadParams) -> Option<Taken> {
        self.transport(self.receiving())?.takes(mid, params)
    }

    /// How many packets before it a packet of sound is to bear.
    pub fn redundancy(&self) -> usize {
        self.transport(self.receiving()).map_or(0, Transport::redundancy)
    }

    /// Where a received stream belongs, by its payload type too: a sender may change the codec of a stream.
    pub fn route(&mut self, ssrc: Ssrc, pt: Pt) -> Option<Place> {
        if let Some(route) = self.routes.iter().find(|route| route.ssrc == ssrc && route.pt == pt) {
            return Some(route.place);
        }
        let main = self.main.as_mut()?;
        let (mid, rid) = main.inlet(ssrc)?;
        let params = main.format(pt)?;
        let (track, rank, backup, red) = self.negotiation.uplink(&mid, rid.as_deref())?;
        if self.routes.len() >= ROUTES_MAX {
            self.routes.remove(0);
        }
        let place = Place { track, origin: Origin { rank, backup, params, red } };
        self.routes.push(Route { ssrc, pt, place });
        Some(place)
    }

    /// Must follow every change of what the participant publishes.
    pub fn forget_routes(&mut self) {
        self.routes.clear();
    }

    pub fn deadline(&self) -> Option<Instant> {
        let main = self.main.as_ref().and_then(Transport::deadline);
        let down = self.down.as_ref().and_then(|down| down.transport.deadline());
        let offer = self.down.as_ref().and_then(|down| down.offers.poll_timeout());
        [main, down, offer, self.negotiation.poll_timeout(), self.bandwidth.poll_timeout()].into_iter().flatten().min()
    }
}

/// What a participant may still send.
pub struct Budget {
    data: Bucket,
    /// The same for packets of data tracks: a sensor must not use up what text needs.
    data_tracks: Bucket,
    media: Bucket,
    datagrams: Bucket,
}

impl Budget {
    fn new(now: Instant) -> Self {
        let full = |rate| Bucket::new(rate, now);
        Self { data: full(DATA), data_tracks: full(DATA), media: full(MEDIA), datagrams: full(DATAGRAMS) }
    }

    /// Whether a data packet of this length may pass now.
    pub fn take_data(&mut self, now: Instant, length: usize) -> bool {
        self.data.take(now, length as f64 + DATA_PACKET_COST_BYTES)
    }

    /// Whether a packet of a data track, of this length, may pass now.
    pub fn take_data_track(&mut self, now: Instant, length: usize) -> bool {
        self.data_tracks.take(now, length as f64 + DATA_PACKET_COST_BYTES)
    }

    /// Whether an RTP packet may pass now.
    pub fn take_media(&mut self, now: Instant) -> bool {
        self.media.take(now, 1.0)
    }

    /// Whether a datagram may be read now.
    pub fn take_datagram(&mut self, now: Instant) -> bool {
        self.datagrams.take(now, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        let passed = (0..10_000).filter(|_| budget.take_data(now, 15_000)).count();
        assert!((500..600).contains(&passed), "{passed}");
        let later = now + Duration::from_secs(1);
        assert!(budget.take_data(later, 15_000));
    }
}
