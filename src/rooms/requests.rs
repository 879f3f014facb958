//! What clients ask for on their socket.

use std::{collections::HashMap, time::Duration};

use livekit_protocol as proto;
use proto::{
    DisconnectReason, JoinRequest, SignalRequest, leave_request::Action, request_response::Reason,
    request_response::Request, signal_request::Message as Ask, signal_response::Message as Response,
    simulate_scenario::Scenario,
};

use super::{
    LinkId, Now, overtaking,
    participant::{DropOnResume, Participant},
    room::Room,
};
use crate::{
    id::{ParticipantSid, TrackSid},
    sfu::{Command, View},
};

/// Attributes that only tokens and the server set: a person must not make themselves the interviewee.
const RESERVED_ATTRIBUTES: &str = "viva.";
/// Bytes of a participant's metadata; of all its attributes together, keys and values; of its name.
const METADATA_BYTES_MAX: usize = 64 * 1024;
const ATTRIBUTES_BYTES_MAX: usize = 64 * 1024;
const NAME_BYTES_MAX: usize = 256;
/// Bytes of a client's first offer, which is 20 kB from a browser; of a later one, and of an answer: 3 kB for each section
/// of a browser's, of which a room of 50 people who all show themselves has a hundred.
const FIRST_OFFER_BYTES_MAX: usize = 64 * 1024;
const OFFER_BYTES_MAX: usize = 384 * 1024;
/// Entries of a list in what a client says after a resume.
const SYNC_ENTRIES_MAX: usize = 512;
/// Capabilities that a client may list; LiveKit's clients know two.
const CAPABILITIES_MAX: usize = 32;
/// From this protocol on a client wants to hear that a request was granted, not only that it was refused.
const PROTOCOL_OK_RESPONSES: i32 = 15;
/// Longest that a simulated speaker talks.
const SIMULATED_SPEAKER_SECS_MAX: u64 = 60;

/// A change of what a participant says of itself. Empty name and metadata mean no change, an empty value deletes
/// its key.
pub(super) struct MetadataChange {
    pub name: String,
    pub metadata: String,
    pub attributes: HashMap<String, String>,
}

impl MetadataChange {
    pub fn apply(self, p: &mut Participant) {
        if !self.name.is_empty() {
            p.name = self.name;
        }
        if !self.metadata.is_empty() {
            p.metadata = self.metadata;
        }
        for (key, value) in self.attributes {
            if value.is_empty() {
                p.attributes.remove(&key);
            } else {
                p.attributes.insert(key, value);
            }
        }
    }

    pub fn fits(&self, p: &Participant) -> bool {
        let kept = p.attributes.iter().filter(|(key, _)| !self.attributes.contains_key(*key));
        let bytes: usize = kept.chain(&self.attributes).map(|(key, value)| key.len() + value.len()).sum();
        self.name.len() <= NAME_BYTES_MAX && self.metadata.len() <= METADATA_BYTES_MAX && bytes <= ATTRIBUTES_BYTES_MAX
    }

    fn touches_reserved(&self, p: &Participant) -> bool {
        let changes = |(key, value): (&String, &String)| p.attributes.get(key).map_or("", String::as_str) != value;
        self.attributes.iter().any(|entry| entry.0.starts_with(RESERVED_ATTRIBUTES) && changes(entry))
    }
}

/// What a join request says of the client, as far as its token lets it.
pub(super) fn apply_join_request(p: &mut Participant, request: &JoinRequest) {
    if let Some(client) = &request.client_info {
        p.protocol = client.protocol;
        p.client_protocol = client.client_protocol;
        p.may_overtake = overtaking::may_overtake(client.sdk());
        p.capabilities = client.capabilities.iter().copied().take(CAPABILITIES_MAX).collect();
    }
    // Absent settings: what proto3 makes of absence is `false`, which no client means.
    p.auto_subscribe = request.connection_settings.as_ref().is_none_or(|settings| settings.auto_subscribe);
    let settings = request.connection_settings.as_ref();
    // Data tracks may be many and fast: they are taken one by one, unless the client says otherwise.
    p.data_tracks.auto_subscribe = settings.and_then(|it| it.auto_subscribe_data_track).unwrap_or(false);
    if p.grants.can_update_own_metadata() {
        let change = MetadataChange {
            name: String::new(),
            metadata: request.metadata.clone(),
            attributes: request.participant_attributes.clone(),
        };
        if change.fits(p) && !change.touches_reserved(p) {
            change.apply(p);
        }
    }
}

impl Room {
    /// One request from the client at the other end of `link`.
    #[allow(deprecated)] // old clients may still send layers
    pub fn handle_request(&mut self, now: Now, link: LinkId, request: SignalRequest) {
        let Some(sid) = self.participants.iter().find(|p| p.link == Some(link)).map(|p| p.sid.clone()) else { return };
        if let Some(p) = self.get_mut(&sid) {
            p.silence.handle_message(now.at);
        }
        let Some(ask) = request.message else { return };
        match ask {
            Ask::Offer(offer) => self.offer(now, &sid, offer),
            Ask::Answer(answer) => self.answer(now, &sid, answer),
            Ask::AddTrack(request) => self.add_track(now, &sid, request),
            Ask::Mute(mute) => self.mute_track(&sid, &mute.sid, mute.muted),
            Ask::Subscription(update) => self.handle_subscription(now, &sid, &update),
            Ask::TrackSetting(settings) => self.update_track_settings(&sid, &settings),
            Ask::SubscriptionPermission(permission) => self.set_permission(&sid, permission),
            Ask::SyncState(state) => self.sync_state(now, &sid, state),
            Ask::UpdateMetadata(update) => self.update_metadata(now, &sid, update),
            Ask::UpdateAudioTrack(update) => self.update_audio_track(&sid, update),
            Ask::UpdateVideoTrack(update) => self.update_video_track(&sid, &update),
            Ask::Ping(_) => self.tell(&sid, Response::Pong(now.unix_ms)),
            Ask::PingReq(ping) => {
                let pong = proto::Pong { last_ping_timestamp: ping.timestamp, timestamp: now.unix_ms };
                self.tell(&sid, Response::PongResp(pong));
            }
            Ask::Leave(_) => self.remove(now, &sid, DisconnectReason::ClientInitiated, None),
            Ask::Simulate(simulate) => self.simulate(now, &sid, simulate.scenario),
            Ask::PublishDataTrackRequest(request) => self.publish_data_track(&sid, request),
            Ask::UnpublishDataTrackRequest(request) => self.unpublish_data_track(&sid, request),
            Ask::UpdateDataSubscription(update) => self.update_data_subscription(&sid, &update),
            // An ICE-lite server answers whoever proves itself by a request: it has no use for candidates. Layers and
            // blobs are not supported, and nothing is owed for them.
            Ask::Trickle(_) | Ask::UpdateLayers(_) => {}
            Ask::StoreDataBlobRequest(request) => self.store_blob(&sid, request),
            Ask::GetDataBlobRequest(request) => self.get_blob(&sid, &request),
        }
    }

    pub(super) fn offer(&mut self, now: Now, sid: &ParticipantSid, offer: proto::SessionDescription) {
        let Some(p) = self.get_mut(sid) else { return };
        let limit = if std::mem::replace(&mut p.offered, true) { OFFER_BYTES_MAX } else { FIRST_OFFER_BYTES_MAX };
        if offer.sdp.len() > limit {
            return self.offer_rejected(now, sid, offer.id, "the offer is too large");
        }
        let room = self.sid.clone();
        self.media(Command::Offer { room, participant: sid.clone(), offer_id: offer.id, sdp: offer.sdp });
    }

    fn answer(&mut self, now: Now, sid: &ParticipantSid, answer: proto::SessionDescription) {
        if answer.sdp.len() > OFFER_BYTES_MAX {
            return self.offer_rejected(now, sid, answer.id, "the answer is too large");
        }
        let room = self.sid.clone();
        self.media(Command::Answer { room, participant: sid.clone(), offer_id: answer.id, sdp: answer.sdp });
    }

    fn update_metadata(&mut self, now: Now, sid: &ParticipantSid, update: proto::UpdateParticipantMetadata) {
        let Some(p) = self.get_mut(sid) else { return };
        let (in_time, wants_ok) = (p.changes.take(now.at, 1.0), p.protocol >= PROTOCOL_OK_RESPONSES);
        let change = MetadataChange {
            name: update.name.clone(),
            metadata: update.metadata.clone(),
            attributes: update.attributes.clone(),
        };
        let refusal = if !p.grants.can_update_own_metadata() || change.touches_reserved(p) {
            Some(Reason::NotAllowed)
        } else if !in_time || !change.fits(p) {
            Some(Reason::LimitExceeded)
        } else {
            None
        };
        if !in_time {
            self.metrics.limited.with_label_values(&["metadata"]).inc();
        }
        if let Some(reason) = refusal {
            return self.refuse(sid, update.request_id, reason, Some(Request::UpdateMetadata(update)));
        }
        self.change_metadata(sid, change);
        if wants_ok {
            self.refuse(sid, update.request_id, Reason::Ok, Some(Request::UpdateMetadata(update)));
        }
    }

    /// Answers a request: refused, or [`Reason::Ok`].
    pub(super) fn refuse(&mut self, sid: &ParticipantSid, request_id: u32, reason: Reason, request: Option<Request>) {
        let message = match reason {
            Reason::Ok => "",
            Reason::NotAllowed => "the token does not allow this",
            Reason::LimitExceeded => "this is more than the server takes",
            Reason::UnsupportedType => "this server does not support this",
            Reason::NotFound => "there is no such thing",
            Reason::InvalidRequest => "the request lacks what it is about",
            Reason::InvalidHandle => "the handle must be a number from 1 to 65535",
            Reason::InvalidName => "the name must have 1 to 256 bytes",
            Reason::DuplicateHandle => "another data track of this participant has this handle",
            Reason::DuplicateName => "another data track of this participant has this name",
            _ => "the request cannot be met",
        };
        let response =
            proto::RequestResponse { request_id, reason: reason as i32, message: message.to_owned(), request };
        self.tell(sid, Response::RequestResponse(response));
    }

    /// What a client that resumed believes. A track that we do not know means that it must start anew.
    pub(super) fn sync_state(&mut self, now: Now, sid: &ParticipantSid, state: proto::SyncState) {
        let Some(p) = self.get(sid) else { return };
        let unknown = |published: &proto::TrackPublishedResponse| {
            published.track.as_ref().is_some_and(|track| p.track(&track.sid).is_none())
        };
        if state.publish_tracks.iter().any(unknown) || !self.sync_data_published(sid, &state) {
            return self.remove(now, sid, DisconnectReason::StateMismatch, Some(Action::Reconnect));
        }
        if let Some(subscription) = &state.subscription {
            self.update_subscription(sid, subscription);
        }
        for track in state.track_sids_disabled.iter().take(SYNC_ENTRIES_MAX) {
            self.set_view(sid, TrackSid::from(track.as_str()), View { paused: true, ..View::default() });
        }
        if let Some(subscription) = &state.data_subscription {
            self.update_data_subscription(sid, subscription);
        }
        let received = &state.datachannel_receive_states;
        self.replay_missed(now, sid, &received[..received.len().min(SYNC_ENTRIES_MAX)]);
    }

    /// Test scenarios that LiveKit's clients ask for. Each touches only the participant that asks.
    fn simulate(&mut self, now: Now, sid: &ParticipantSid, scenario: Option<Scenario>) {
        let Some(p) = self.get_mut(sid) else { return };
        match scenario {
            Some(Scenario::SpeakerUpdate(secs)) => {
                let secs = u64::try_from(secs).unwrap_or(0).min(SIMULATED_SPEAKER_SECS_MAX);
                p.simulated_speaker_until = Some(now.at + Duration::from_secs(secs));
                self.speaker_changed(sid, 1.0, true);
            }
            // As if the server had crashed: nothing is said, and a resume finds nobody.
            Some(Scenario::NodeFailure(true)) => self.remove(now, sid, DisconnectReason::UnknownReason, None),
            Some(Scenario::ServerLeave(true)) => {
                self.remove(now, sid, DisconnectReason::ServerShutdown, Some(Action::Disconnect));
            }
            Some(Scenario::Migration(true) | Scenario::LeaveRequestFullReconnect(true)) => {
                self.remove(now, sid, DisconnectReason::StateMismatch, Some(Action::Reconnect));
            }
            Some(Scenario::SwitchCandidateProtocol(_)) => self.have_resume(sid),
            Some(Scenario::SubscriberBandwidth(bps)) => {
                let bps = u64::try_from(bps).ok().filter(|bps| *bps > 0);
                self.media(Command::CapBandwidth { room: self.sid.clone(), participant: sid.clone(), bps });
            }
            Some(Scenario::DisconnectSignalOnResume(true)) => p.drop_on_resume = Some(DropOnResume::AfterReconnect),
            Some(Scenario::DisconnectSignalOnResumeNoMessages(true)) => {
                p.drop_on_resume = Some(DropOnResume::BeforeAnything);
            }
            _ => {}
        }
    }
}
