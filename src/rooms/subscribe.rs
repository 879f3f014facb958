//! Who gets which track: what a client wants, what its token and the track's owner permit.

use livekit_protocol as proto;
use proto::{SubscriptionError, TrackType, signal_response::Message as Response};

use super::{
    Now, dynacast,
    participant::{Participant, Track},
    room::Room,
};
use crate::{
    id::{ParticipantSid, TrackSid},
    sfu::{Command, View},
};

/// Wishes of one client about single tracks. A room of 50 has 150 tracks; the rest is for tracks that have gone.
pub(super) const WISHES_MAX: usize = 512;
/// The name of a track that a wish is kept for: ours have 15 bytes. Clients may wish for tracks that are still to come.
pub(super) const WISH_BYTES_MAX: usize = 64;
/// Entries that one message about subscriptions may have.
const ENTRIES_MAX: usize = 512;

impl Room {
    /// Brings every subscription of this client in line with what is wanted and permitted.
    pub(super) fn sync_subscriber(&mut self, subscriber: &ParticipantSid) {
        for (owner, track) in self.tracks_but_of(subscriber) {
            self.sync(&owner, &track, subscriber);
        }
        self.sync_data_subscriber(subscriber, &[]);
    }

    /// Brings every subscription to this track in line.
    pub(super) fn sync_track(&mut self, owner: &ParticipantSid, track: &TrackSid) {
        let subscribers: Vec<_> = self.participants.iter().filter(|p| p.sid != *owner).map(|p| p.sid.clone()).collect();
        for subscriber in subscribers {
            self.sync(owner, track, &subscriber);
        }
    }

    fn tracks_but_of(&self, subscriber: &ParticipantSid) -> Vec<(ParticipantSid, TrackSid)> {
        let others = self.participants.iter().filter(|p| p.sid != *subscriber);
        others.flat_map(|p| p.live_tracks().map(|t| (p.sid.clone(), t.sid.clone()))).collect()
    }

    fn sync(&mut self, owner: &ParticipantSid, track: &TrackSid, subscriber: &ParticipantSid) {
        let (Some(from), Some(to)) = (self.get(owner), self.get(subscriber)) else { return };
        let wanted = wants(from, to, track) && permitted(from, track, to);
        let Some(to) = self.get_mut(subscriber) else { return };
        let changed = if wanted { to.subscribed.insert(track.clone()) } else { to.subscribed.remove(track) };
        if changed {
            // The media worker begins each subscription with all of the track.
            to.views.remove(track);
        }
        if changed {
            self.demand_changed = true;
            self.media(Command::Subscribe {
                room: self.sid.clone(),
                subscriber: subscriber.clone(),
                track: track.clone(),
                subscribed: wanted,
            });
        }
    }

    /// A track that is gone: nobody has it any more. The media worker knows by itself.
    pub(super) fn forget_track(&mut self, track: &TrackSid) {
        for p in &mut self.participants {
            p.subscribed.remove(track);
            p.views.remove(track);
            p.wanted.remove(track);
            p.announced.remove(track);
        }
    }

    /// The client's own word, in the order in which it seems to have been said.
    pub(super) fn handle_subscription(&mut self, now: Now, sid: &ParticipantSid, update: &proto::UpdateSubscription) {
        let Some(p) = self.get_mut(sid) else { return };
        let mut taken_again = Vec::new();
        if p.may_overtake {
            let tracks = named(update).filter(|track| track.as_str().len() <= WISH_BYTES_MAX).collect();
            let (wanted, auto_subscribe) = (&p.wanted, p.auto_subscribe);
            let has = |track: &TrackSid| wanted.get(track).copied().unwrap_or(auto_subscribe);
            taken_again = p.overtaking.handle(now.at, tracks, update.subscribe, has);
        }
        self.update_subscription(sid, update);
        if !taken_again.is_empty() {
            let track_sids = taken_again.iter().map(|track| track.as_str().to_owned()).collect();
            let again = proto::UpdateSubscription { track_sids, subscribe: true, participant_tracks: Vec::new() };
            self.update_subscription(sid, &again);
        }
    }

    pub(super) fn update_subscription(&mut self, sid: &ParticipantSid, update: &proto::UpdateSubscription) {
        for track in named(update) {
            let Some(p) = self.get_mut(sid) else { return };
            let fits = track.as_str().len() <= WISH_BYTES_MAX && p.wanted.len() < WISHES_MAX;
            if fits || p.wanted.contains_key(&track) {
                p.wanted.insert(track.clone(), update.subscribe);
            }
            match self.owner_of(&track) {
                Some(owner) if owner != *sid => self.sync(&owner, &track, sid),
                Some(_) => {}
                None if update.subscribe => {
                    let response = proto::SubscriptionResponse {
                        track_sid: track.as_str().to_owned(),
                        err: SubscriptionError::SeTrackNotfound as i32,
                    };
                    self.tell(sid, Response::SubscriptionResponse(response));
                }
                None => {}
            }
        }
    }

    pub(super) fn update_track_settings(&mut self, sid: &ParticipantSid, settings: &proto::UpdateTrackSettings) {
        for track in settings.track_sids.iter().take(ENTRIES_MAX) {
            let track = TrackSid::from(track.as_str());
            let found = self.owner_of(&track).and_then(|owner| self.get(&owner)?.track(track.as_str()));
            let codec = found.and_then(|track| track.info.codecs.first());
            let view = dynacast::view(settings, codec.map(|codec| &codec.layers[..]).unwrap_or_default());
            self.set_view(sid, track, view);
        }
    }

    pub(super) fn set_view(&mut self, subscriber: &ParticipantSid, track: TrackSid, view: View) {
        if let Some(p) = self.get_mut(subscriber).filter(|p| p.subscribed.contains(&track)) {
            p.views.insert(track.clone(), view);
            self.demand_changed = true;
            self.media(Command::View { room: self.sid.clone(), subscriber: subscriber.clone(), track, view });
        }
    }

    /// A client's network does not carry a track, or does again.
    pub(super) fn stream_state(&mut self, sid: &ParticipantSid, track: &TrackSid, paused: bool) {
        let Some(owner) = self.owner_of(track) else { return };
        let state = if paused { proto::StreamState::Paused } else { proto::StreamState::Active };
        let info = proto::StreamStateInfo {
            participant_sid: owner.as_str().to_owned(),
            track_sid: track.as_str().to_owned(),
            state: state as i32,
        };
        self.tell(sid, Response::StreamStateUpdate(proto::StreamStateUpdate { stream_states: vec![info] }));
    }

    /// The owner says who may have its tracks. Those whose right changes are told.
    /// What goes beyond the bound is not permitted: entries only ever permit.
    pub(super) fn set_permission(&mut self, owner: &ParticipantSid, mut permission: proto::SubscriptionPermission) {
        permission.track_permissions.truncate(ENTRIES_MAX);
        let mut left = ENTRIES_MAX;
        for entry in &mut permission.track_permissions {
            entry.track_sids.truncate(left);
            left -= entry.track_sids.len();
        }
        let before = self.permissions_of(owner);
        let Some(p) = self.get_mut(owner) else { return };
        p.permission = (!permission.all_participants).then_some(permission);
        self.shown_changed = true;
        let after = self.permissions_of(owner);
        for ((subscriber, track, was), (_, _, is)) in before.into_iter().zip(after) {
            if was == is {
                continue;
            }
            let update = proto::SubscriptionPermissionUpdate {
                participant_sid: owner.as_str().to_owned(),
                track_sid: track.as_str().to_owned(),
                allowed: is,
            };
            self.tell(&subscriber, Response::SubscriptionPermissionUpdate(update));
            self.sync(owner, &track, &subscriber);
        }
        self.sync_data_of(owner);
        self.follow();
    }

    fn permissions_of(&self, owner: &ParticipantSid) -> Vec<(ParticipantSid, TrackSid, bool)> {
        let Some(from) = self.get(owner) else { return Vec::new() };
        let subscribers = self.participants.iter().filter(|p| p.sid != *owner);
        subscribers
            .flat_map(|to| from.live_tracks().map(move |t| (to.sid.clone(), t.sid.clone(), from.permits(&t.sid, to))))
            .collect()
    }

    pub(super) fn owner_of(&self, track: &TrackSid) -> Option<ParticipantSid> {
        self.participants.iter().find(|p| p.live_tracks().any(|t: &Track| t.sid == *track)).map(|p| p.sid.clone())
    }
}

/// The tracks that a message names, in either of its lists.
fn named(update: &proto::UpdateSubscription) -> impl Iterator<Item = TrackSid> {
    let by_participant = update.participant_tracks.iter().flat_map(|p| &p.track_sids);
    update.track_sids.iter().chain(by_participant).take(ENTRIES_MAX).map(|track| TrackSid::from(track.as_str()))
}

fn wants(from: &Participant, to: &Participant, track: &TrackSid) -> bool {
    match &to.visit {
        Some(visit) => visit.takes(from),
        None => to.has_client() && to.wanted.get(track).copied().unwrap_or(to.auto_subscribe),
    }
}

/// The token's `canSubscribe` and the owner's word. A hidden participant's tracks are nobody's: to have one would be
/// to know of it.
pub(super) fn permitted(from: &Participant, track: &TrackSid, to: &Participant) -> bool {
    let known = from
        .track(track.as_str())
        .is_some_and(|t| t.live && [TrackType::Audio as i32, TrackType::Video as i32].contains(&t.info.r#type));
    known && to.grants.can_subscribe() && !from.hidden() && from.permits(track, to)
}
