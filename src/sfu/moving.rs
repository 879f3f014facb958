//! From one room of a worker to another, with connections and published tracks: the client's peer connections do not
//! notice. Between workers this cannot be, since a transport never leaves its thread.

use std::time::Instant;

use super::{
    Context, EventKind, Route, Sfu,
    participant::{Leg, Participant, ParticipantKey},
    room::{Room, RoomKey},
    track::Track,
};
use crate::id::{DataTrackSid, ParticipantSid, RoomSid};

/// What a participant takes along.
struct Luggage {
    /// Its name in the old room.
    from: (RoomKey, ParticipantKey),
    participant: Participant,
    /// With the sections that they are on.
    tracks: Vec<(Vec<(String, bool)>, Track)>,
    data_tracks: Vec<(u16, DataTrackSid)>,
}

impl Sfu {
    pub(super) fn move_participant(&mut self, now: Instant, from: RoomKey, sid: &ParticipantSid, to: &RoomSid) {
        let mut packed = None;
        self.with_room(from, |room, cx| packed = room.pack(now, sid, cx));
        let Some(luggage) = packed else { return };
        let to = self.open(to);
        self.with_room(to, |room, cx| room.unpack(now, luggage, cx));
        self.close_if_empty(from);
    }
}

impl Room {
    fn pack(&mut self, now: Instant, sid: &ParticipantSid, cx: &mut Context) -> Option<Luggage> {
        let (room, key) = (self.key?, *self.by_sid.get(sid)?);
        let mids = self.participants.get(key)?.negotiation.uplinks();
        let published: Vec<_> = self.tracks.iter().filter(|(_, it)| it.owner == key).map(|(track, _)| track).collect();
        let mut tracks = Vec::new();
        for track in published {
            let its = mids.iter().filter(|(_, of, _)| *of == track);
            let mids = its.map(|(mid, _, backup)| (mid.clone(), *backup)).collect();
            tracks.extend(self.take_track(now, track, cx).map(|track| (mids, track)));
        }
        let received =
            self.tracks.iter_mut().flat_map(|(_, track)| track.subscriptions.extract_if(.., |it| it.subscriber == key));
        let received: Vec<_> = received.collect();
        let data_tracks = self.data_tracks.take(key);
        self.speakers.remove(key);
        self.by_sid.remove(sid);
        let mut participant = self.participants.remove(key)?;
        participant.depart(now);
        received.into_iter().for_each(|subscription| participant.retire(subscription));
        cx.emit(&self.sid, sid, EventKind::Moved);
        Some(Luggage { from: (room, key), participant, tracks, data_tracks })
    }

    fn unpack(&mut self, now: Instant, luggage: Luggage, cx: &mut Context) {
        let Luggage { from, participant, tracks, data_tracks } = luggage;
        let sid = participant.sid.clone();
        // Names are never given twice; should one be, the newcomer has it.
        self.leave(now, &sid, cx);
        let key = self.participants.insert(participant);
        self.by_sid.insert(sid.clone(), key);
        if let Some(room) = self.key {
            for leg in [Leg::Main, Leg::Down] {
                let old = Route { room: from.0, participant: from.1, leg };
                cx.demux.rename(old, Route { room, participant: key, leg });
            }
        }
        for (mids, mut track) in tracks {
            track.owner = key;
            let track = self.add_track(now, track, cx);
            for (mid, backup) in mids {
                if let Some(participant) = self.participants.get_mut(key) {
                    participant.negotiation.bind(&mid, track, backup);
                }
            }
        }
        for (handle, track) in data_tracks {
            self.publish_data(&sid, track, handle);
        }
        // What was queued on its connections has yet to be sent.
        for leg in [Leg::Main, Leg::Down] {
            self.mark_dirty(key, leg);
        }
        self.rearm(now, key, cx);
        self.rearm_room(cx);
    }
}
