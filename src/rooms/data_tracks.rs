//! Data tracks: published under a number and a name, told to others, given to those who ask. Their packets never come
//! here: the media core forwards them.
//!
//! Invariant: a subscriber is told the number of a track before the media worker sends it packets with that number.

use std::collections::HashMap;

use livekit_protocol as proto;
use prost::Message as _;
use proto::{
    DataTrackInfo, PublishDataTrackRequest, SubscriptionError, UnpublishDataTrackRequest,
    data_track_subscriber_handles::PublishedDataTrack, request_response::Reason, request_response::Request,
    signal_response::Message as Response,
};

use super::{participant::Participant, room::Room, subscribe::WISH_BYTES_MAX};
use crate::{
    id::{DataTrackSid, ParticipantSid, TrackSid},
    sfu::Command,
};

/// Data tracks of one participant.
const TRACKS_MAX: usize = 32;
/// Bytes of a track's name, and of all that is said of it: how its frames and their schema are called, too.
const NAME_BYTES_MAX: usize = 256;
const REQUEST_BYTES_MAX: usize = 1024;
/// Data tracks that one participant may receive, and wishes about single ones.
const SUBSCRIPTIONS_MAX: usize = 1024;
/// Entries of one message about subscriptions.
const ENTRIES_MAX: usize = 512;

/// What a participant does with data tracks.
#[derive(Default)]
pub(super) struct DataTracks {
    pub published: Vec<DataTrackInfo>,
    /// Whether it takes every data track that it is not told to leave.
    pub auto_subscribe: bool,
    /// What it asked for, by track.
    pub(super) wanted: HashMap<DataTrackSid, bool>,
    /// What it gets, and the number by which it knows it.
    subscribed: HashMap<DataTrackSid, u16>,
    last_handle: u16,
}

impl DataTracks {
    /// It is in another room, where there is none of what it got.
    pub fn unsubscribe_all(&mut self) {
        self.wanted.clear();
        self.subscribed.clear();
    }

    /// A number that no subscription of it has. 0 belongs to nobody.
    fn free_handle(&mut self) -> u16 {
        loop {
            self.last_handle = self.last_handle.wrapping_add(1);
            let taken = self.subscribed.values().any(|handle| *handle == self.last_handle);
            if self.last_handle != 0 && !taken {
                return self.last_handle;
            }
        }
    }
}

impl Room {
    pub(super) fn publish_data_track(&mut self, sid: &ParticipantSid, request: PublishDataTrackRequest) {
        let Some(p) = self.get_mut(sid) else { return };
        let handle = match acceptable(p, &request) {
            Ok(handle) => handle,
            Err(reason) => return self.refuse(sid, 0, reason, Some(Request::PublishDataTrack(request))),
        };
        let track = DataTrackSid::random();
        let PublishDataTrackRequest { pub_handle, name, encryption, frame_encoding, schema } = request;
        let info =
            DataTrackInfo { pub_handle, sid: track.as_str().to_owned(), name, encryption, frame_encoding, schema };
        p.data_tracks.published.push(info.clone());
        let (room, participant) = (self.sid.clone(), sid.clone());
        self.media(Command::PublishData { room, participant, track, handle });
        self.tell(sid, Response::PublishDataTrackResponse(proto::PublishDataTrackResponse { info: Some(info) }));
        self.announce(sid, false);
        self.sync_data_of(sid);
    }

    pub(super) fn unpublish_data_track(&mut self, sid: &ParticipantSid, request: UnpublishDataTrackRequest) {
        let Some(p) = self.get(sid) else { return };
        if p.data_tracks.published.iter().any(|info| info.pub_handle == request.pub_handle) {
            self.end_data_tracks(sid, |info| info.pub_handle == request.pub_handle);
        } else {
            self.refuse(sid, 0, Reason::NotFound, Some(Request::UnpublishDataTrack(request)));
        }
    }

    /// Ends those data tracks of a participant, and tells it and everyone.
    pub(super) fn end_data_tracks(&mut self, sid: &ParticipantSid, which: impl Fn(&DataTrackInfo) -> bool) {
        let Some(p) = self.get_mut(sid) else { return };
        let ended: Vec<_> = p.data_tracks.published.extract_if(.., |info| which(info)).collect();
        if ended.is_empty() {
            return;
        }
        for info in ended {
            let track = DataTrackSid::from(info.sid.as_str());
            self.forget_data_track(&track);
            let (room, participant) = (self.sid.clone(), sid.clone());
            self.media(Command::UnpublishData { room, participant, track });
            let response = proto::UnpublishDataTrackResponse { info: Some(info) };
            self.tell(sid, Response::UnpublishDataTrackResponse(response));
        }
        self.announce(sid, false);
    }

    /// A data track that is gone. The media worker knows by itself.
    pub(super) fn forget_data_track(&mut self, track: &DataTrackSid) {
        for p in &mut self.participants {
            p.data_tracks.wanted.remove(track);
            p.data_tracks.subscribed.remove(track);
        }
    }

    pub(super) fn update_data_subscription(&mut self, sid: &ParticipantSid, update: &proto::UpdateDataSubscription) {
        let mut asked = Vec::new();
        for entry in update.updates.iter().take(ENTRIES_MAX) {
            let track = DataTrackSid::from(entry.track_sid.as_str());
            if entry.subscribe && !self.participants.iter().any(|p| p.sid != *sid && publishes(p, &track)) {
                let err = SubscriptionError::SeTrackNotfound as i32;
                let response = proto::SubscriptionResponse { track_sid: entry.track_sid.clone(), err };
                self.tell(sid, Response::SubscriptionResponse(response));
                continue;
            }
            let Some(p) = self.get_mut(sid) else { return };
            let wanted = &p.data_tracks.wanted;
            let fits = track.as_str().len() <= WISH_BYTES_MAX && wanted.len() < SUBSCRIPTIONS_MAX;
            if fits || wanted.contains_key(&track) {
                p.data_tracks.wanted.insert(track.clone(), entry.subscribe);
            }
            if entry.subscribe {
                asked.push(track);
            }
        }
        self.sync_data_subscriber(sid, &asked);
    }

    /// A client that resumed may have missed what it was told.
    pub(super) fn tell_data_handles_to(&mut self, sid: &ParticipantSid) {
        let Some(p) = self.get(sid) else { return };
        let all: Vec<_> = p.data_tracks.subscribed.keys().cloned().collect();
        self.tell_data_handles(sid, &all);
    }

    /// What a client that resumed believes to publish. What it gave up while it was away ends; what we do not know of
    /// it must be published anew. False where that takes a new start.
    pub(super) fn sync_data_published(&mut self, sid: &ParticipantSid, state: &proto::SyncState) -> bool {
        let named: Vec<&str> =
            state.publish_data_tracks.iter().filter_map(|track| Some(track.info.as_ref()?.sid.as_str())).collect();
        let Some(p) = self.get(sid) else { return false };
        let known = |named: &&str| p.data_tracks.published.iter().any(|info| info.sid == **named);
        if !named.iter().all(known) {
            return false;
        }
        self.end_data_tracks(sid, |info| !named.contains(&info.sid.as_str()));
        true
    }

    /// Brings every subscription to this participant's data tracks in line.
    pub(super) fn sync_data_of(&mut self, owner: &ParticipantSid) {
        let others: Vec<_> = self.participants.iter().filter(|p| p.sid != *owner).map(|p| p.sid.clone()).collect();
        for subscriber in others {
            self.sync_data_subscriber(&subscriber, &[]);
        }
    }

    /// Brings every data subscription of this client in line with what is wanted and permitted. `asked`: what it has
    /// just asked for; of these it is told the number, known or not.
    pub(super) fn sync_data_subscriber(&mut self, subscriber: &ParticipantSid, asked: &[DataTrackSid]) {
        let Some(to) = self.get(subscriber) else { return };
        let others = self.participants.iter().filter(|p| p.sid != *subscriber);
        let (granted, refused): (Vec<_>, Vec<_>) = others
            .flat_map(|from| from.data_tracks.published.iter().map(move |info| (from, info)))
            .map(|(from, info)| (from, DataTrackSid::from(info.sid.as_str())))
            .map(|(from, track)| (wants(to, &track) && permitted(from, &track, to), track))
            .partition(|(granted, _)| *granted);
        let Some(to) = self.get_mut(subscriber) else { return };
        let data = &mut to.data_tracks;
        let mut changes = Vec::new();
        for (_, track) in refused {
            if data.subscribed.remove(&track).is_some() {
                changes.push((track, None));
            }
        }
        for (_, track) in granted {
            if !data.subscribed.contains_key(&track) && data.subscribed.len() < SUBSCRIPTIONS_MAX {
                let handle = data.free_handle();
                data.subscribed.insert(track.clone(), handle);
                changes.push((track, Some(handle)));
            }
        }
        let new = changes.iter().filter(|(_, handle)| handle.is_some()).map(|(track, _)| track);
        let told: Vec<_> = new.chain(asked).cloned().collect();
        self.tell_data_handles(subscriber, &told);
        for (track, handle) in changes {
            let (room, subscriber) = (self.sid.clone(), subscriber.clone());
            self.media(Command::SubscribeData { room, subscriber, track, handle });
        }
    }

    fn tell_data_handles(&mut self, to: &ParticipantSid, tracks: &[DataTrackSid]) {
        let Some(subscriber) = self.get(to) else { return };
        let describe = |track: &DataTrackSid| {
            let handle = *subscriber.data_tracks.subscribed.get(track)?;
            let from = self.participants.iter().find(|p| publishes(p, track))?;
            let described = PublishedDataTrack {
                publisher_identity: from.identity.as_str().to_owned(),
                publisher_sid: from.sid.as_str().to_owned(),
                track_sid: track.as_str().to_owned(),
            };
            Some((u32::from(handle), described))
        };
        let sub_handles: HashMap<_, _> = tracks.iter().filter_map(describe).collect();
        if !sub_handles.is_empty() {
            let handles = proto::DataTrackSubscriberHandles { sub_handles };
            self.tell(to, Response::DataTrackSubscriberHandles(handles));
        }
    }
}

fn publishes(p: &Participant, track: &DataTrackSid) -> bool {
    !p.hidden() && p.data_tracks.published.iter().any(|info| info.sid == track.as_str())
}

fn wants(to: &Participant, track: &DataTrackSid) -> bool {
    let connected = to.has_client() && to.visit.is_none();
    connected && to.data_tracks.wanted.get(track).copied().unwrap_or(to.data_tracks.auto_subscribe)
}

/// The token's `canSubscribe` and the owner's word, as for other tracks.
fn permitted(from: &Participant, track: &DataTrackSid, to: &Participant) -> bool {
    to.grants.can_subscribe() && !from.hidden() && from.permits(&TrackSid::from(track.as_str()), to)
}

/// The number of a track that may be published so, or why it may not.
fn acceptable(p: &Participant, request: &PublishDataTrackRequest) -> Result<u16, Reason> {
    if !p.grants.can_publish_data() {
        return Err(Reason::NotAllowed);
    }
    let handle = u16::try_from(request.pub_handle).ok().filter(|handle| *handle != 0).ok_or(Reason::InvalidHandle)?;
    if request.name.is_empty() || request.name.len() > NAME_BYTES_MAX {
        return Err(Reason::InvalidName);
    }
    if request.encoded_len() > REQUEST_BYTES_MAX || p.data_tracks.published.len() >= TRACKS_MAX {
        return Err(Reason::LimitExceeded);
    }
    let published = &p.data_tracks.published;
    if published.iter().any(|info| info.pub_handle == request.pub_handle) {
        return Err(Reason::DuplicateHandle);
    }
    if published.iter().any(|info| info.name == request.name) {
        return Err(Reason::DuplicateName);
    }
    Ok(handle)
}
