//! A room: its members, their tracks, and everything that one of them does to the others.
//!
//! Invariant: between two calls no notice of a transport is left unread, and every transport on which something was
//! queued is in `dirty`.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::{
    Context, DataChannel, EventKind, Route, TimerKey,
    api::Connections,
    data_tracks::DataTracks,
    participant::{Leg, Participant, ParticipantKey},
    path::Path,
    slots::{Key, Slots},
    speakers::ActiveSpeakers,
    timers::Armed,
    track::{Track, TrackKey},
    transport::{Notice, Sink, Transport},
};
use crate::id::{ParticipantSid, RoomSid, TrackSid};

pub type RoomKey = Key<Room>;

/// A deadline that has passed already comes up again after this long, so that a transport cannot spin the thread.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

pub struct Room {
    pub sid: RoomSid,
    /// Set once, when the room got its place.
    pub key: Option<RoomKey>,
    pub armed: Armed,
    pub(super) participants: Slots<Participant>,
    pub(super) by_sid: HashMap<ParticipantSid, ParticipantKey>,
    pub(super) tracks: Slots<Track>,
    pub(super) tracks_by_sid: HashMap<TrackSid, TrackKey>,
    pub(super) data_tracks: DataTracks,
    pub(super) speakers: ActiveSpeakers<ParticipantKey>,
    pub(super) dirty: Vec<ParticipantKey>,
    inbox: VecDeque<(ParticipantKey, Leg, Notice)>,
}

impl Room {
    pub fn new(sid: RoomSid) -> Self {
        Self {
            sid,
            key: None,
            armed: Armed::default(),
            participants: Slots::default(),
            by_sid: HashMap::new(),
            tracks: Slots::default(),
            tracks_by_sid: HashMap::new(),
            data_tracks: DataTracks::default(),
            speakers: ActiveSpeakers::default(),
            dirty: Vec::new(),
            inbox: VecDeque::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.participants.is_empty()
    }

    // --- members ---

    pub fn join(&mut self, now: Instant, sid: ParticipantSid, connections: Connections, cx: &mut Context) {
        if self.by_sid.contains_key(&sid) {
            return;
        }
        let participant = Participant::new(now, sid.clone(), connections, &cx.transports);
        cx.stats.transports += participant.connections();
        let key = self.participants.insert(participant);
        self.by_sid.insert(sid, key);
        self.update_ufrags(key, cx);
        self.rearm(now, key, cx);
    }

    pub fn leave(&mut self, now: Instant, sid: &ParticipantSid, cx: &mut Context) {
        let Some(key) = self.by_sid.remove(sid) else { return };
        let published: Vec<_> = self.tracks.iter().filter(|(_, it)| it.owner == key).map(|(track, _)| track).collect();
        for track in published {
            self.remove_track(now, track, cx);
        }
        for (_, track) in self.tracks.iter_mut() {
            track.subscriptions.retain(|subscription| subscription.subscriber != key);
        }
        if let Some(participant) = self.participants.remove(key) {
            cx.stats.transports -= participant.connections();
        }
        self.data_tracks.remove(key);
        self.speakers.remove(key);
        self.unroute(key, cx);
    }

    fn unroute(&self, key: ParticipantKey, cx: &mut Context) {
        if let Some(room) = self.key {
            for leg in [Leg::Main, Leg::Down] {
                cx.demux.remove(Route { room, participant: key, leg });
            }
        }
    }

    /// Tells everybody that it is over; for a room that cannot go on, or is taken down. Those without a transport too: what they
    /// injected is gone with the room.
    pub fn fail(&mut self, reason: &str, cx: &mut Context) {
        for (_, participant) in self.participants.iter_mut() {
            cx.stats.transports -= participant.disconnect();
            cx.emit(&self.sid, &participant.sid, EventKind::Closed { reason: reason.to_owned() });
        }
        for key in self.participants.keys() {
            self.unroute(key, cx);
        }
        for (_, track) in self.tracks.iter_mut() {
            cx.lanes.forget(&mut track.lanes);
            cx.stats.taps_open -= u64::from(track.tap.take().is_some());
        }
    }

    // --- transports ---

    pub fn handle_datagram(
        &mut self,
        now: Instant,
        (key, leg): (ParticipantKey, Leg),
        path: Path,
        datagram: &[u8],
        cx: &mut Context,
    ) {
        if self.participants.get_mut(key).is_some_and(|it| !it.budget.take_datagram(now)) {
            cx.stats.dropped_flood += 1;
            return;
        }
        self.drive(now, key, leg, cx, |transport, sink| transport.handle_datagram(now, path, datagram, sink));
        self.settle(now, cx);
    }

    pub fn accepts(&self, now: Instant, (key, leg): (ParticipantKey, Leg), path: Path, datagram: &[u8]) -> bool {
        let transport = self.participants.get(key).and_then(|it| it.transport(leg));
        transport.is_some_and(|transport| transport.accepts(now, path, datagram))
    }

    /// Runs one of a member's transports and keeps what it says for [`Self::settle`].
    pub(super) fn drive<T>(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        leg: Leg,
        cx: &mut Context,
        change: impl FnOnce(&mut Transport, &mut Sink<'_>) -> T,
    ) -> Option<T> {
        let participant = self.participants.get_mut(key)?;
        let transport = participant.transport_mut(leg)?;
        let mut sink = Sink { transmits: &mut cx.transmits, notices: &mut cx.notices, stats: &mut cx.stats };
        let result = change(transport, &mut sink);
        self.inbox.extend(cx.notices.drain(..).map(|notice| (key, leg, notice)));
        // Nothing else of the participant changed, and this is done for each packet.
        if let (Some(room), Some(at)) = (self.key, transport.deadline()) {
            cx.timers.arm(&mut participant.armed, at.max(now + TIMER_GRAIN), TimerKey::Participant(room, key));
        }
        Some(result)
    }

    pub(super) fn rearm(&mut self, now: Instant, key: ParticipantKey, cx: &mut Context) {
        let (Some(room), Some(participant)) = (self.key, self.participants.get_mut(key)) else { return };
        if let Some(at) = participant.deadline() {
            let at = at.max(now + TIMER_GRAIN);
            cx.timers.arm(&mut participant.armed, at, TimerKey::Participant(room, key));
        }
    }

    pub(super) fn rearm_room(&mut self, cx: &mut Context) {
        let keyframes = self.tracks.iter().filter_map(|(_, track)| track.keyframe_deadline()).min();
        let deadline = [keyframes, self.speakers.poll_timeout()].into_iter().flatten().min();
        if let (Some(room), Some(at)) = (self.key, deadline) {
            cx.timers.arm(&mut self.armed, at, TimerKey::Room(room));
        }
    }

    /// Something is to be sent on one of its transports.
    pub(super) fn mark_dirty(&mut self, key: ParticipantKey, leg: Leg) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        participant.main_dirty |= leg != participant.receiving();
        if !std::mem::replace(&mut participant.dirty, true) {
            self.dirty.push(key);
        }
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Sends what was queued. Each transport once, so that its datagrams leave side by side.
    pub fn flush(&mut self, now: Instant, cx: &mut Context) {
        while let Some(key) = self.dirty.pop() {
            let Some(participant) = self.participants.get_mut(key) else { continue };
            participant.dirty = false;
            let (receiving, main) = (participant.receiving(), std::mem::take(&mut participant.main_dirty));
            self.drive(now, key, receiving, cx, |transport, sink| transport.flush(now, sink));
            if main {
                self.drive(now, key, Leg::Main, cx, |transport, sink| transport.flush(now, sink));
            }
            self.settle(now, cx);
        }
    }

    /// The entry of this member came up.
    pub fn handle_participant_timeout(&mut self, now: Instant, at: Instant, key: ParticipantKey, cx: &mut Context) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        if !participant.armed.take(at) {
            return;
        }
        let outcome = participant.negotiation.handle_timeout(now);
        if let Some((audios, videos)) = outcome.required {
            cx.emit(&self.sid, &participant.sid, EventKind::MediaSectionsRequired { audios, videos });
        }
        let is_due = |leg: &Leg| {
            let deadline = participant.transport(*leg).and_then(Transport::deadline);
            deadline.is_some_and(|deadline| deadline <= now)
        };
        let due = [Leg::Main, Leg::Down].map(|leg| is_due(&leg).then_some(leg));
        for published in outcome.published {
            self.go_live(now, key, published, cx);
        }
        self.make_offer(now, key, cx);
        self.allocate_if_due(now, key, cx);
        for leg in due.into_iter().flatten() {
            self.drive(now, key, leg, cx, |transport, sink| transport.flush(now, sink));
        }
        self.settle(now, cx);
        self.rearm(now, key, cx);
    }

    /// The entry of the room itself came up: speakers, and keyframe requests that were held back.
    pub fn handle_timeout(&mut self, now: Instant, at: Instant, cx: &mut Context) {
        if !self.armed.take(at) {
            return;
        }
        for change in self.speakers.handle_timeout(now) {
            if let Some(participant) = self.participants.get(change.speaker) {
                let kind = EventKind::Speaker { level: change.level, active: change.active };
                cx.emit(&self.sid, &participant.sid, kind);
            }
        }
        for track in self.tracks.keys() {
            let due = self.tracks.get_mut(track).map(|found| found.keyframes_due(now)).unwrap_or_default();
            for ssrc in due {
                self.request_keyframe(now, track, ssrc, cx);
            }
        }
        self.rearm_room(cx);
        self.settle(now, cx);
    }

    /// Acts on everything that transports said.
    pub(super) fn settle(&mut self, now: Instant, cx: &mut Context) {
        while let Some((key, leg, notice)) = self.inbox.pop_front() {
            match notice {
                Notice::Packet(packet) => self.handle_packet(now, key, packet, cx),
                Notice::Connected | Notice::Disconnected => {
                    match self.participants.get_mut(key).and_then(Participant::connection_changed) {
                        Some(true) => self.emit(key, EventKind::Connected, cx),
                        Some(false) => self.emit(key, EventKind::Disconnected, cx),
                        None => {}
                    }
                }
                Notice::Silent(since) => {
                    if self.participants.get_mut(key).and_then(Participant::silence_changed) == Some(true) {
                        self.emit(key, EventKind::Silent { since }, cx);
                    }
                }
                Notice::Heard => {
                    if self.participants.get_mut(key).and_then(Participant::silence_changed) == Some(false) {
                        self.emit(key, EventKind::Heard, cx);
                    }
                }
                Notice::ChannelOpen(channel) => {
                    self.mark_dirty(key, leg);
                    // The client's own channel, where it has two connections, is for its packets to us only.
                    if self.participants.get(key).is_some_and(|it| it.receiving() == leg) {
                        self.emit(key, EventKind::DataChannelOpen { channel }, cx);
                    }
                }
                Notice::Data(channel, payload) => self.handle_data(now, key, channel, payload, cx),
                Notice::TrackData(packet) => self.forward_data(now, key, &packet, cx),
                Notice::KeyframeRequest(mid) => {
                    let carried = self.participants.get(key).and_then(|it| it.carried(&mid));
                    if let Some(track) = carried {
                        self.subscriber_needs_keyframe(now, track, key, cx);
                    }
                }
                Notice::Bandwidth(bps) => self.bandwidth_changed(now, key, bps, cx),
                Notice::Closed(reason) => self.close_transport(key, reason, cx),
            }
        }
    }

    pub(super) fn emit(&self, key: ParticipantKey, kind: EventKind, cx: &mut Context) {
        if let Some(participant) = self.participants.get(key) {
            cx.emit(&self.sid, &participant.sid, kind);
        }
    }

    pub(super) fn close_transport(&mut self, key: ParticipantKey, reason: String, cx: &mut Context) {
        let ended = self.participants.get_mut(key).map_or(0, Participant::disconnect);
        if ended > 0 {
            cx.stats.transports -= ended;
            self.unroute(key, cx);
            self.emit(key, EventKind::Closed { reason }, cx);
        }
    }

    /// Makes the demultiplexer know the transports' user names, which an ICE restart changes.
    pub(super) fn update_ufrags(&mut self, key: ParticipantKey, cx: &mut Context) {
        let (Some(room), Some(participant)) = (self.key, self.participants.get_mut(key)) else { return };
        for leg in [Leg::Main, Leg::Down] {
            let Some(transport) = participant.transport_mut(leg) else { continue };
            let ufrag = transport.local_ufrag();
            if ufrag != transport.routed_ufrag {
                cx.demux.remove_ufrag(&transport.routed_ufrag);
                cx.demux.add_ufrag(ufrag.clone(), Route { room, participant: key, leg });
                transport.handle_route(ufrag);
            }
        }
    }

    fn handle_data(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        channel: DataChannel,
        payload: bytes::Bytes,
        cx: &mut Context,
    ) {
        cx.stats.data_in[usize::from(channel == DataChannel::Lossy)] += 1;
        let affordable = self.participants.get_mut(key).is_some_and(|it| it.budget.take_data(now, payload.len()));
        if affordable {
            self.emit(key, EventKind::Data { channel, payload }, cx);
            return;
        }
        cx.stats.dropped_queue_full += 1;
        if channel == DataChannel::Reliable {
            self.close_transport(key, "sends more data than is allowed".to_owned(), cx);
        }
    }
}
