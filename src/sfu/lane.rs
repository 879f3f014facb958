//! Lanes: a track of one room that is a track of another one too, on this worker or on another.
//!
//! A lane begins at a published track (its *outlet*) and ends at a track that nobody sends (its *inlet*). Packets go
//! down it as they came, all layers of them and before anything was chosen or rewritten; the payload is shared. What
//! they come out at is a track like any: it chooses its own layers and asks for its own keyframes, which go back up.
//!
//! Both ways are lossy: a packet or a request that finds no room or no end is dropped, as on a network. What must not
//! be lost (mutes, ends) is not said here, but by the control plane to both rooms.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::{
    Context, MediaKind, Sfu,
    encodings::Origin,
    forwarder::MediaPacket,
    room::{Room, RoomKey},
    track::{Track, TrackKey},
};
use crate::id::{ParticipantSid, RoomSid, TrackSid};

/// Names a lane, on all workers of a server. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneId(pub u64);

/// One end of a lane, as the other one is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneEnd {
    pub lane: LaneId,
    /// The worker of the lane's *other* end, by number; `None` where that is this one.
    pub worker: Option<usize>,
}

/// Something on its way along a lane, from one worker to another.
pub struct Relayed {
    lane: LaneId,
    what: Cargo,
}

#[allow(clippy::large_enum_variant, reason = "nearly all are packets, and a box would be an allocation for each")]
enum Cargo {
    /// Down: a packet of this stream.
    Packet { origin: Origin, packet: MediaPacket },
    /// Up: the stream with this SSRC is to send a keyframe.
    Keyframe { ssrc: u32 },
    /// Beside lanes: a packet on the data track channel of a member of this room, who has a stand-in there.
    Data { room: RoomSid, from: ParticipantSid, packet: Bytes },
}

#[cfg(test)]
impl Relayed {
    pub fn for_tests() -> Self {
        Self { lane: LaneId(0), what: Cargo::Keyframe { ssrc: 0 } }
    }
}

/// The lanes of one track.
#[derive(Default)]
pub struct TrackLanes {
    /// Those that begin here.
    outlets: Vec<LaneEnd>,
    /// The one that it is fed by.
    inlet: Option<LaneEnd>,
}

/// The lanes of one worker.
#[derive(Default)]
pub struct Lanes {
    outlets: HashMap<LaneId, (RoomKey, TrackKey)>,
    inlets: HashMap<LaneId, (RoomKey, TrackKey)>,
    /// For this worker, within this tick.
    here: VecDeque<Relayed>,
    away: VecDeque<(usize, Relayed)>,
}

impl Lanes {
    fn send(&mut self, end: LaneEnd, what: Cargo) {
        let relayed = Relayed { lane: end.lane, what };
        match end.worker {
            None => self.here.push_back(relayed),
            Some(worker) => self.away.push_back((worker, relayed)),
        }
    }

    /// A packet of a data track, for the part of its room that is on another worker.
    pub fn share(&mut self, worker: usize, room: &RoomSid, from: &ParticipantSid, packet: &Bytes) {
        let what = Cargo::Data { room: room.clone(), from: from.clone(), packet: packet.clone() };
        self.away.push_back((worker, Relayed { lane: LaneId(0), what }));
    }

    /// This track is gone.
    pub fn forget(&mut self, lanes: &mut TrackLanes) {
        for outlet in lanes.outlets.drain(..) {
            self.outlets.remove(&outlet.lane);
        }
        if let Some(inlet) = lanes.inlet.take() {
            self.inlets.remove(&inlet.lane);
        }
    }
}

impl Sfu {
    /// What other workers are to be given, with the worker's number.
    pub fn poll_relay(&mut self) -> Option<(usize, Relayed)> {
        self.cx.lanes.away.pop_front()
    }

    /// What another worker gave.
    pub fn handle_relay(&mut self, now: Instant, relayed: Relayed) {
        let Relayed { lane, what } = relayed;
        if let Cargo::Data { room, from, packet } = what {
            let Some(key) = self.by_sid.get(&room).copied() else { return };
            return self.with_room(key, |room, cx| room.handle_shared_data(now, &from, &packet, cx));
        }
        let lanes = &self.cx.lanes;
        let end = match &what {
            Cargo::Packet { .. } => lanes.inlets.get(&lane),
            Cargo::Keyframe { .. } => lanes.outlets.get(&lane),
            Cargo::Data { .. } => None,
        };
        // One that was closed a moment ago, or is about to be opened.
        let Some((room, track)) = end.copied() else { return };
        self.with_room(room, |room, cx| match what {
            Cargo::Packet { origin, packet } => room.handle_carried(now, track, origin, &packet, cx),
            Cargo::Keyframe { ssrc } => room.need_keyframe(now, track, ssrc, cx),
            Cargo::Data { .. } => {}
        });
    }

    /// Hands over what lanes between rooms of this worker hold. True if there was anything.
    pub(super) fn carry_here(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(relayed) = self.cx.lanes.here.pop_front() {
            any = true;
            self.handle_relay(now, relayed);
        }
        any
    }
}

impl Room {
    /// Opens a lane at a track of this participant's. To be asked once the other end is open.
    pub fn open_lane(&mut self, owner: &ParticipantSid, sid: &TrackSid, end: LaneEnd, cx: &mut Context) {
        let owner = self.by_sid.get(owner).copied();
        let Some(key) = owner.and_then(|owner| self.track_of(owner, sid)) else { return };
        let (Some(room), Some(track)) = (self.key, self.tracks.get_mut(key)) else { return };
        track.lanes.outlets.push(end);
        cx.lanes.outlets.insert(end.lane, (room, key));
    }

    pub fn close_lane(&mut self, lane: LaneId, cx: &mut Context) {
        let Some((_, key)) = cx.lanes.outlets.remove(&lane) else { return };
        if let Some(track) = self.tracks.get_mut(key) {
            track.lanes.outlets.retain(|outlet| outlet.lane != lane);
        }
    }

    /// Makes a track that is fed by a lane, of a participant without a transport. It is live at once.
    pub fn publish_lane(
        &mut self,
        now: Instant,
        owner: &ParticipantSid,
        sid: TrackSid,
        kind: MediaKind,
        end: LaneEnd,
        cx: &mut Context,
    ) {
        let Some(owner) = self.by_sid.get(owner).copied() else { return };
        let mut track = Track::new(sid, owner, kind);
        track.lanes.inlet = Some(end);
        let key = self.add_track(now, track, cx);
        if let Some(room) = self.key {
            cx.lanes.inlets.insert(end.lane, (room, key));
        }
    }

    /// A packet of this track goes down its lanes, if it has any.
    pub(super) fn carry(&self, key: TrackKey, origin: &Origin, packet: &MediaPacket, cx: &mut Context) {
        let Some(track) = self.tracks.get(key) else { return };
        for outlet in &track.lanes.outlets {
            cx.stats.lane_packets[0] += 1;
            cx.lanes.send(*outlet, Cargo::Packet { origin: *origin, packet: packet.clone() });
        }
    }

    /// A packet that came by a lane. From here on it is as one that its owner sent.
    fn handle_carried(&mut self, now: Instant, key: TrackKey, origin: Origin, packet: &MediaPacket, cx: &mut Context) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        cx.stats.lane_packets[1] += 1;
        if track.muted {
            cx.stats.dropped_paused += 1;
        } else {
            track.encodings.see(now, packet.source, &origin);
            self.pass(now, key, origin, packet, cx);
        }
    }

    /// Asks the other end for a keyframe; false where the track is not fed by a lane.
    pub(super) fn ask_up_the_lane(&self, key: TrackKey, ssrc: u32, cx: &mut Context) -> bool {
        let Some(inlet) = self.tracks.get(key).and_then(|track| track.lanes.inlet) else { return false };
        cx.lanes.send(inlet, Cargo::Keyframe { ssrc });
        true
    }
}
