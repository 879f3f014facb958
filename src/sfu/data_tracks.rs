//! Data tracks: a publisher's packets to all who take the track, each with the number by which that one knows it.
//!
//! The core forwards them itself. Packets for the other data channels are the control plane's to stamp, to keep and to
//! route; of these only the number is read, and they come as fast as sensors do.
//!
//! Nothing waits: where a receiver's channel has no room the packet is dropped and counted, as on every lossy channel.

use std::{collections::HashMap, time::Instant};

use bytes::Bytes;

use super::{
    Context, data_packet,
    participant::{Participant, ParticipantKey},
    room::Room,
};
use crate::id::{DataTrackSid, ParticipantSid};

/// The data tracks of a room, by publisher and by the publisher's number.
#[derive(Default)]
pub struct DataTracks {
    tracks: HashMap<(ParticipantKey, u16), DataTrack>,
}

struct DataTrack {
    sid: DataTrackSid,
    /// Who takes it, and the number by which they know it.
    subscriptions: Vec<(ParticipantKey, u16)>,
    /// Other workers on which members of this room take it.
    shared: Vec<usize>,
}

impl DataTracks {
    fn by_sid(&mut self, sid: &DataTrackSid) -> Option<&mut DataTrack> {
        self.tracks.values_mut().find(|track| track.sid == *sid)
    }

    /// What this participant publishes, taken out: its numbers and tracks.
    pub fn take(&mut self, key: ParticipantKey) -> Vec<(u16, DataTrackSid)> {
        let taken = self.tracks.iter().filter(|((owner, _), _)| *owner == key);
        let taken = taken.map(|((_, handle), track)| (*handle, track.sid.clone())).collect();
        self.remove(key);
        taken
    }

    /// Forgets who left.
    pub fn remove(&mut self, key: ParticipantKey) {
        self.tracks.retain(|(owner, _), _| *owner != key);
        for track in self.tracks.values_mut() {
            track.subscriptions.retain(|(subscriber, _)| *subscriber != key);
        }
    }
}

impl Room {
    pub fn publish_data(&mut self, owner: &ParticipantSid, sid: DataTrackSid, handle: u16) {
        let Some(owner) = self.by_sid.get(owner).copied() else { return };
        self.data_tracks
            .tracks
            .insert((owner, handle), DataTrack { sid, subscriptions: Vec::new(), shared: Vec::new() });
    }

    /// Whether its packets go to the part of this room that is on another worker.
    pub fn share_data(&mut self, sid: &DataTrackSid, worker: usize, shared: bool) {
        let Some(track) = self.data_tracks.by_sid(sid) else { return };
        track.shared.retain(|known| *known != worker);
        track.shared.extend(shared.then_some(worker));
    }

    pub fn unpublish_data(&mut self, owner: &ParticipantSid, sid: &DataTrackSid) {
        let Some(owner) = self.by_sid.get(owner).copied() else { return };
        self.data_tracks.tracks.retain(|(of, _), track| *of != owner || track.sid != *sid);
    }

    /// `handle`: the number that the subscriber was told; `None` where it takes the track no more.
    pub fn subscribe_data(&mut self, subscriber: &ParticipantSid, sid: &DataTrackSid, handle: Option<u16>) {
        let Some(key) = self.by_sid.get(subscriber).copied() else { return };
        let Some(track) = self.data_tracks.by_sid(sid) else { return };
        track.subscriptions.retain(|(of, _)| *of != key);
        track.subscriptions.extend(handle.map(|handle| (key, handle)));
    }

    /// A packet that came on a participant's data track channel.
    pub(super) fn forward_data(&mut self, now: Instant, from: ParticipantKey, packet: &Bytes, cx: &mut Context) {
        cx.stats.data_tracks_in += 1;
        let affordable = self.participants.get_mut(from).is_some_and(|it| it.budget.take_data_track(now, packet.len()));
        if !affordable {
            cx.stats.dropped_queue_full += 1;
            return;
        }
        self.distribute_data(now, from, packet, cx);
    }

    /// The same, which another worker has counted already.
    pub(super) fn handle_shared_data(&mut self, now: Instant, from: &ParticipantSid, packet: &Bytes, cx: &mut Context) {
        if let Some(from) = self.by_sid.get(from).copied() {
            self.distribute_data(now, from, packet, cx);
        }
    }

    fn distribute_data(&mut self, now: Instant, from: ParticipantKey, packet: &Bytes, cx: &mut Context) {
        let Some(handle) = data_packet::handle(packet) else {
            cx.stats.dropped_malformed += 1;
            return;
        };
        // One that was taken down a moment ago is nobody's.
        let Some(track) = self.data_tracks.tracks.get(&(from, handle)) else { return };
        if let Some(publisher) = self.participants.get(from) {
            track.shared.iter().for_each(|worker| cx.lanes.share(*worker, &self.sid, &publisher.sid, packet));
        }
        let subscriptions = track.subscriptions.clone();
        let mut packet = packet.to_vec();
        for (to, handle) in subscriptions {
            let Some(leg) = self.participants.get(to).map(Participant::receiving) else { continue };
            data_packet::set_handle(&mut packet, handle);
            self.drive(now, to, leg, cx, |transport, sink| transport.send_track_data(&packet, sink));
            self.mark_dirty(to, leg);
        }
    }
}
