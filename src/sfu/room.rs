//! A room: its members, their tracks, and everything that one of them does to the others.
//!
//! Invariant: between two calls no notice of a transport is left unread, and every transport on which something was
//! queued is in `dirty`.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    Context, DataChannel, EventKind, Route, TimerKey,
    participant::{Participant, ParticipantKey},
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
    pub(super) speakers: ActiveSpeakers<ParticipantKey>,
    pub(super) dirty: Vec<ParticipantKey>,
    inbox: VecDeque<(ParticipantKey, Notice)>,
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
            speakers: ActiveSpeakers::default(),
            dirty: Vec::new(),
            inbox: VecDeque::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.participants.is_empty()
    }

    // --- members ---

    pub fn join(&mut self, now: Instant, sid: ParticipantSid, transport: bool, cx: &mut Context) {
        if self.by_sid.contains_key(&sid) {
            return;
        }
        let transport = transport.then(|| Transport::new(now, &cx.transports));
        cx.stats.transports += u64::from(transport.is_some());
        let participant = Participant::new(now, sid.clone(), transport);
        let key = self.participants.insert(participant);
        self.by_sid.insert(sid, key);
        self.update_ufrag(key, cx);
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
            cx.stats.transports -= u64::from(participant.transport.is_some());
        }
        self.speakers.remove(key);
        if let Some(room) = self.key {
            cx.demux.remove(Route { room, participant: key });
        }
    }

    /// Tells everybody that it is over; for a room that cannot go on. Those without a transport too: what they
    /// injected is gone with the room.
    pub fn fail(&mut self, reason: &str, cx: &mut Context) {
        for (key, participant) in self.participants.iter_mut() {
            cx.stats.transports -= u64::from(participant.transport.take().is_some());
            cx.emit(&self.sid, &participant.sid, EventKind::Closed { reason: reason.to_owned() });
            if let Some(room) = self.key {
                cx.demux.remove(Route { room, participant: key });
            }
        }
        for (_, track) in self.tracks.iter_mut() {
            cx.stats.taps_open -= u64::from(track.tap.take().is_some());
        }
    }

    // --- transports ---

    pub fn handle_datagram(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        (source, destination): (SocketAddr, SocketAddr),
        datagram: &[u8],
        cx: &mut Context,
    ) {
        self.drive(now, key, cx, |transport, sink| {
            transport.handle_datagram(now, source, destination, datagram, sink);
        });
        self.settle(now, cx);
    }

    pub fn accepts(
        &self,
        now: Instant,
        key: ParticipantKey,
        (source, destination): (SocketAddr, SocketAddr),
        datagram: &[u8],
    ) -> bool {
        let transport = self.participants.get(key).and_then(|it| it.transport.as_ref());
        transport.is_some_and(|transport| transport.accepts(now, source, destination, datagram))
    }

    /// Runs one member's transport and keeps what it says for [`Self::settle`].
    pub(super) fn drive<T>(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        cx: &mut Context,
        change: impl FnOnce(&mut Transport, &mut Sink<'_>) -> T,
    ) -> Option<T> {
        let transport = self.participants.get_mut(key)?.transport.as_mut()?;
        let mut sink = Sink { transmits: &mut cx.transmits, notices: &mut cx.notices, stats: &mut cx.stats };
        let result = change(transport, &mut sink);
        self.inbox.extend(cx.notices.drain(..).map(|notice| (key, notice)));
        self.rearm(now, key, cx);
        Some(result)
    }

    pub(super) fn rearm(&mut self, now: Instant, key: ParticipantKey, cx: &mut Context) {
        let (Some(room), Some(participant)) = (self.key, self.participants.get_mut(key)) else { return };
        if let Some(at) = participant.deadline() {
            let at = at.max(now + TIMER_GRAIN);
            cx.timers.arm(&mut participant.armed, at, TimerKey::Participant(Route { room, participant: key }));
        }
    }

    fn rearm_room(&mut self, cx: &mut Context) {
        let keyframes = self.tracks.iter().filter_map(|(_, track)| track.keyframe_deadline()).min();
        let deadline = [keyframes, self.speakers.poll_timeout()].into_iter().flatten().min();
        if let (Some(room), Some(at)) = (self.key, deadline) {
            cx.timers.arm(&mut self.armed, at, TimerKey::Room(room));
        }
    }

    pub(super) fn mark_dirty(&mut self, key: ParticipantKey) {
        if let Some(participant) = self.participants.get_mut(key)
            && !std::mem::replace(&mut participant.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Sends what was queued. Each transport once, so that its datagrams leave side by side.
    pub fn flush(&mut self, now: Instant, cx: &mut Context) {
        while let Some(key) = self.dirty.pop() {
            if let Some(participant) = self.participants.get_mut(key) {
                participant.dirty = false;
            }
            self.drive(now, key, cx, |transport, sink| transport.flush(now, sink));
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
        let due = participant.transport.as_ref().and_then(Transport::deadline).is_some_and(|deadline| deadline <= now);
        for published in outcome.published {
            self.go_live(now, key, published, cx);
        }
        if due {
            self.drive(now, key, cx, |transport, sink| transport.flush(now, sink));
            self.settle(now, cx);
        } else {
            self.rearm(now, key, cx);
        }
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
            let due = self.tracks.get_mut(track).and_then(|it| Some((it.owner, it.keyframe_due(now)?)));
            if let Some((owner, ssrc)) = due {
                self.request_keyframe(now, owner, ssrc, cx);
            }
        }
        self.rearm_room(cx);
        self.settle(now, cx);
    }

    /// Acts on everything that transports said.
    pub(super) fn settle(&mut self, now: Instant, cx: &mut Context) {
        while let Some((key, notice)) = self.inbox.pop_front() {
            match notice {
                Notice::Packet(packet) => self.handle_packet(now, key, packet, cx),
                Notice::Connected => self.emit(key, EventKind::Connected, cx),
                Notice::Disconnected => self.emit(key, EventKind::Disconnected, cx),
                Notice::ChannelOpen(channel) => {
                    self.mark_dirty(key);
                    self.emit(key, EventKind::DataChannelOpen { channel }, cx);
                }
                Notice::Data(channel, payload) => self.handle_data(now, key, channel, payload, cx),
                Notice::KeyframeRequest(mid) => {
                    let carried = self.participants.get(key).and_then(|it| it.negotiation.carried(&mid));
                    if let Some(track) = carried {
                        self.need_keyframe(now, track, None, cx);
                    }
                }
                Notice::Closed(reason) => self.close_transport(key, reason, cx),
            }
        }
    }

    pub(super) fn emit(&self, key: ParticipantKey, kind: EventKind, cx: &mut Context) {
        if let Some(participant) = self.participants.get(key) {
            cx.emit(&self.sid, &participant.sid, kind);
        }
    }

    fn close_transport(&mut self, key: ParticipantKey, reason: String, cx: &mut Context) {
        let taken = self.participants.get_mut(key).and_then(|it| it.transport.take());
        if taken.is_some() {
            cx.stats.transports -= 1;
            if let Some(room) = self.key {
                cx.demux.remove(Route { room, participant: key });
            }
            self.emit(key, EventKind::Closed { reason }, cx);
        }
    }

    /// Makes the demultiplexer know the transport's user name, which an ICE restart changes.
    pub(super) fn update_ufrag(&mut self, key: ParticipantKey, cx: &mut Context) {
        let (Some(room), Some(participant)) = (self.key, self.participants.get_mut(key)) else { return };
        let Some(transport) = &mut participant.transport else { return };
        let ufrag = transport.local_ufrag();
        if ufrag != participant.ufrag {
            cx.demux.remove_ufrag(&participant.ufrag);
            cx.demux.add_ufrag(ufrag.clone(), Route { room, participant: key });
            participant.ufrag = ufrag;
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
        let affordable = self.participants.get_mut(key).is_some_and(|it| it.data.take(now, payload.len()));
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
