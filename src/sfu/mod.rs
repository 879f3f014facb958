//! The pure media core of one worker: rooms, transports, forwarding. No threads, no sockets, no clock: time is an
//! argument and datagrams are values, so that a thread, a test and a bench can run it alike.
//!
//! Polling order: any number of [`Sfu::handle_command`] and [`Sfu::handle_datagram`], then [`Sfu::handle_timeout`]
//! once (it sends what they queued), then send [`Sfu::transmits`], poll [`Sfu::poll_event`] and [`Sfu::poll_relay`] until they
//! are empty, then sleep until [`Sfu::poll_timeout`]. Time never goes back.

mod allocator;
mod api;
mod bandwidth;
mod clock;
mod data_packet;
mod data_tracks;
mod demux;
mod dependency;
mod downlinks;
mod egress;
mod encodings;
mod estimator;
mod extensions;
mod formats;
mod forwarder;
mod frames;
pub(crate) mod fuzzing;
mod injector;
mod lane;
mod losses;
mod media;
mod moving;
mod munger;
mod negotiation;
mod offers;
mod participant;
mod path;
mod rates;
mod redundancy;
mod room;
mod sdp;
mod signalling;
mod silence;
mod slots;
mod speakers;
mod stats;
mod subscription;
mod timers;
mod track;
mod transmits;
mod transport;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

pub use allocator::{Claim, Step, allocate};
pub use api::{Command, Connections, DataChannel, Event, EventKind, MediaKind, OpusOptions, PendingTrack};
pub use demux::{BindingRequest, binding_request};
pub use lane::{LaneEnd, LaneId, Relayed};
pub use path::{Path, Protocol};
pub use stats::SfuStats;
pub use subscription::View;
pub use transmits::{Run, Transmits};
pub use transport::{Certificate, CertificateError};

use self::{
    demux::Demux,
    lane::Lanes,
    participant::{Leg, ParticipantKey},
    room::{Room, RoomKey},
    slots::Slots,
    timers::Timers,
    track::Tap,
    transport::{Notice, TransportConfig},
};
use crate::id::{ParticipantSid, RoomSid};

/// A transport, wherever it is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Route {
    room: RoomKey,
    participant: ParticipantKey,
    leg: Leg,
}

#[derive(Clone, Copy)]
enum TimerKey {
    Room(RoomKey),
    Participant(RoomKey, ParticipantKey),
}

/// What all rooms of a worker share.
struct Context {
    transports: TransportConfig,
    demux: Demux<Route>,
    timers: Timers<TimerKey>,
    lanes: Lanes,
    transmits: Transmits,
    events: VecDeque<Event>,
    stats: SfuStats,
    /// Scratch of one drain; empty between calls.
    notices: Vec<Notice>,
}

impl Context {
    fn emit(&mut self, room: &RoomSid, participant: &ParticipantSid, kind: EventKind) {
        self.events.push_back(Event { room: room.clone(), participant: participant.clone(), kind });
    }
}

/// All rooms of one worker.
pub struct Sfu {
    rooms: Slots<Room>,
    by_sid: HashMap<RoomSid, RoomKey>,
    dirty: Vec<RoomKey>,
    /// The room that is being worked on; what remains here after a panic is to blame.
    current: Option<RoomKey>,
    cx: Context,
}

impl Sfu {
    /// `addresses` are where clients can reach this core by UDP: none may be unspecified.
    pub fn new(certificate: Certificate, addresses: &[SocketAddr]) -> Self {
        Self::with_tcp(certificate, addresses, &[])
    }

    /// The same, where clients can also open TCP connections to `tcp`.
    pub fn with_tcp(certificate: Certificate, udp: &[SocketAddr], tcp: &[SocketAddr]) -> Self {
        debug_assert!(udp.iter().chain(tcp).all(|address| !address.ip().is_unspecified()));
        Self {
            rooms: Slots::default(),
            by_sid: HashMap::new(),
            dirty: Vec::new(),
            current: None,
            cx: Context {
                transports: TransportConfig::new(certificate, udp, tcp),
                demux: Demux::default(),
                timers: Timers::default(),
                lanes: Lanes::default(),
                transmits: Transmits::default(),
                events: VecDeque::new(),
                stats: SfuStats::default(),
                notices: Vec::new(),
            },
        }
    }

    /// Whether what is sent follows what each receiver's network carries; it does unless told otherwise. For transports
    /// from now on.
    pub fn set_congestion_control(&mut self, on: bool) {
        self.cx.transports.congestion_control = on;
    }

    /// Does what the control plane asks. What names a room or a participant that is gone is ignored: the two sides
    /// race.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        if let Command::Join { room, participant, connections } = command {
            let key = self.open(&room);
            self.with_room(key, |room, cx| room.join(now, participant, connections, cx));
            return;
        }
        let Some(key) = self.by_sid.get(command.room()).copied() else { return };
        if let Command::Close { .. } = command {
            self.take_down(key, "the room is closed");
            return;
        }
        if let Command::Move { participant, to, .. } = command {
            return self.move_participant(now, key, &participant, &to);
        }
        self.with_room(key, |room, cx| handle_room_command(now, room, command, cx));
        self.close_if_empty(key);
    }

    fn close_if_empty(&mut self, key: RoomKey) {
        if self.rooms.get(key).is_some_and(Room::is_empty)
            && let Some(room) = self.rooms.remove(key)
        {
            self.by_sid.remove(&room.sid);
            self.cx.stats.rooms = self.rooms.len() as u64;
        }
    }

    fn open(&mut self, sid: &RoomSid) -> RoomKey {
        if let Some(key) = self.by_sid.get(sid) {
            return *key;
        }
        let key = self.rooms.insert(Room::new(sid.clone()));
        if let Some(room) = self.rooms.get_mut(key) {
            room.key = Some(key);
        }
        self.by_sid.insert(sid.clone(), key);
        self.cx.stats.rooms = self.rooms.len() as u64;
        key
    }

    /// One datagram, or one frame of a TCP connection, as it was received.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        self.cx.stats.datagrams_in += 1;
        let route = match binding_request(datagram) {
            Some(request) => self.route_by_ufrag(now, path, datagram, request.ufrag),
            None => self.cx.demux.by_path(path),
        };
        let Some(Route { room, participant, leg }) = route else {
            self.cx.stats.dropped_unknown_peer += 1;
            return;
        };
        self.with_room(room, |room, cx| room.handle_datagram(now, (participant, leg), path, datagram, cx));
    }

    /// First contact, or a refresh of it: believed where the request proves to be from who we gave the name to.
    fn route_by_ufrag(&mut self, now: Instant, path: Path, datagram: &[u8], ufrag: &str) -> Option<Route> {
        let by_path = self.cx.demux.by_path(path);
        let Some(route) = self.cx.demux.by_ufrag(ufrag) else { return by_path };
        if by_path != Some(route) {
            let room = self.rooms.get(route.room)?;
            if !room.accepts(now, (route.participant, route.leg), path, datagram) {
                return None;
            }
            self.cx.demux.bind(path, route);
        }
        Some(route)
    }

    /// Whether a transport of this core has this user name.
    pub fn knows_ufrag(&self, ufrag: &str) -> bool {
        self.cx.demux.by_ufrag(ufrag).is_some()
    }

    /// Whether a transport is reached by this path: somebody proved there who they are, and is still a member.
    pub fn is_bound(&self, path: Path) -> bool {
        self.cx.demux.by_path(path).is_some()
    }

    fn with_room(&mut self, key: RoomKey, work: impl FnOnce(&mut Room, &mut Context)) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        self.current = Some(key);
        let was_dirty = room.is_dirty();
        work(room, &mut self.cx);
        if room.is_dirty() && !was_dirty {
            self.dirty.push(key);
        }
        self.current = None;
    }

    /// Does what is due and sends what was queued.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, key)) = self.cx.timers.pop_due(now) {
            match key {
                TimerKey::Room(key) => self.with_room(key, |room, cx| room.handle_timeout(now, at, cx)),
                TimerKey::Participant(room, participant) => {
                    self.with_room(room, |room, cx| room.handle_participant_timeout(now, at, participant, cx));
                }
            }
        }
        // Rooms may hand packets to each other, and ask each other for keyframes, which are rare.
        while self.carry_here(now) || !self.dirty.is_empty() {
            while let Some(key) = self.dirty.pop() {
                self.with_room(key, |room, cx| room.flush(now, cx));
            }
        }
    }

    /// The datagrams to send; clear them when they are sent. Those to one destination come side by side.
    pub fn transmits(&mut self) -> &mut Transmits {
        &mut self.cx.transmits
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.cx.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called at the latest; `None` where only input can bring work.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.cx.timers.next()
    }

    pub fn stats(&self) -> &SfuStats {
        &self.cx.stats
    }

    /// After a panic inside a call: takes down the room in which it happened and tells its members. The others go
    /// on. False where no room is to blame.
    pub fn quarantine(&mut self) -> bool {
        let Some(key) = self.current.take() else { return false };
        self.cx.notices.clear();
        self.take_down(key, "the media worker failed in this room")
    }

    fn take_down(&mut self, key: RoomKey, reason: &str) -> bool {
        let Some(mut room) = self.rooms.remove(key) else { return false };
        self.by_sid.remove(&room.sid);
        room.fail(reason, &mut self.cx);
        self.cx.stats.rooms = self.rooms.len() as u64;
        true
    }
}

fn handle_room_command(now: Instant, room: &mut Room, command: Command, cx: &mut Context) {
    match command {
        // About the room itself, or about more than one: handled before.
        Command::Join { .. } | Command::Close { .. } | Command::Move { .. } => {}
        Command::Leave { participant, .. } => room.leave(now, &participant, cx),
        Command::Offer { participant, offer_id, sdp, .. } => room.offer(now, &participant, offer_id, &sdp, cx),
        Command::Answer { participant, offer_id, sdp, .. } => room.handle_answer(now, &participant, offer_id, &sdp, cx),
        Command::Reoffer { participant, .. } => room.reoffer(now, &participant, cx),
        Command::Publish { participant, track, .. } => room.publish(now, &participant, track, cx),
        Command::PublishInjected { participant, track, .. } => room.publish_injected(now, &participant, track, cx),
        Command::PublishLane { participant, track, kind, from, .. } => {
            room.publish_lane(now, &participant, track, kind, from, cx);
        }
        Command::OpenLane { participant, track, to, .. } => room.open_lane(&participant, &track, to, cx),
        Command::CloseLane { lane, .. } => room.close_lane(lane, cx),
        Command::Unpublish { participant, track, .. } => room.unpublish(now, &participant, &track, cx),
        Command::Mute { participant, track, muted, .. } => room.mute(now, &participant, &track, muted, cx),
        Command::Subscribe { subscriber, track, subscribed, .. } => {
            room.subscribe(now, &subscriber, &track, subscribed, cx);
        }
        Command::View { subscriber, track, view, .. } => room.set_view(now, &subscriber, &track, view, cx),
        Command::CapBandwidth { participant, bps, .. } => room.cap_bandwidth(now, &participant, bps, cx),
        Command::SendData { to, channel, payload, .. } => room.send_data(now, &to, channel, &payload, cx),
        Command::PublishData { participant, track, handle, .. } => room.publish_data(&participant, track, handle),
        Command::ShareData { track, worker, shared, .. } => room.share_data(&track, worker, shared),
        Command::UnpublishData { participant, track, .. } => room.unpublish_data(&participant, &track),
        Command::SubscribeData { subscriber, track, handle, .. } => room.subscribe_data(&subscriber, &track, handle),
        Command::OpenTap { participant, track, id, tap, .. } => {
            room.open_tap(&participant, &track, Tap { id, writer: tap }, cx);
        }
        Command::CloseTap { track, .. } => room.close_tap(&track, cx),
        Command::Inject { track, frame, .. } => room.inject(now, &track, frame, cx),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_takes_down_its_room_and_no_other() {
        let now = Instant::now();
        let mut sfu = Sfu::new(Certificate::generate().unwrap(), &["192.0.2.1:7882".parse().unwrap()]);
        for room in ["RM_broken", "RM_other"] {
            for participant in ["PA_a", "PA_b"] {
                let (room, participant) = (room.into(), participant.into());
                sfu.handle_command(now, Command::Join { room, participant, connections: Connections::One });
            }
        }
        // One without a transport, which would otherwise speak into nothing for good.
        let (room, participant) = (RoomSid::from("RM_broken"), ParticipantSid::from("PA_agent"));
        sfu.handle_command(
            now,
            Command::Join { room: room.clone(), participant: participant.clone(), connections: Connections::None },
        );
        let track = crate::id::TrackSid::from("TR_voice");
        sfu.handle_command(
            now,
            Command::PublishInjected { room: room.clone(), participant: participant.clone(), track: track.clone() },
        );
        let (tap, _reader) = crate::media::tap(1);
        sfu.handle_command(now, Command::OpenTap { room, participant, track, id: 1, tap });
        assert_eq!(sfu.stats().taps_open, 1);
        assert!(!sfu.quarantine(), "nothing is to blame between calls");
        // As after a panic in the middle of a call.
        sfu.current = sfu.by_sid.get(&RoomSid::from("RM_broken")).copied();
        assert!(sfu.quarantine());
        let told: Vec<_> = std::iter::from_fn(|| sfu.poll_event()).collect();
        assert!(
            told.iter()
                .all(|event| { event.room.as_str() == "RM_broken" && matches!(event.kind, EventKind::Closed { .. }) })
        );
        let mut who: Vec<_> = told.iter().map(|event| event.participant.as_str()).collect();
        who.sort_unstable();
        assert_eq!(who, ["PA_a", "PA_agent", "PA_b"]);
        assert_eq!((sfu.stats().rooms, sfu.stats().transports, sfu.stats().taps_open), (1, 2, 0));
        sfu.handle_timeout(now + std::time::Duration::from_secs(5));
    }
}
