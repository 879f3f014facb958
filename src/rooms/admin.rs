//! What an operator or a service asks of a room, over the heads of those who are in it.

use std::{collections::HashMap, time::Instant};

use livekit_protocol as proto;
use proto::{
    DataPacket, DisconnectReason, ParticipantInfo, TrackInfo, data_packet::Value, leave_request::Action,
    signal_response::Message as Response,
};

use super::{
    Now,
    participant::{Participant, source_of},
    requests::MetadataChange,
    room::{Output, Room},
};
use crate::{
    auth::Grants,
    id::{Identity, ParticipantSid, TrackSid},
    sfu::{Command, DataChannel},
};

/// Bytes of a room's metadata.
const METADATA_BYTES_MAX: usize = 64 * 1024;
/// Calls to participants that wait for an answer, in one room.
const CALLS_MAX: usize = 64;
/// What participants see as the caller of a call that a service makes.
pub(super) const CALLER: &str = "viva-server";
/// LiveKit's codes for calls that got no answer.
const RPC_RESPONSE_TIMEOUT: u32 = 1502;
const RPC_RECIPIENT_DISCONNECTED: u32 = 1503;

/// Why a request about a room cannot be met. The text is for whoever made it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    #[error("requested room does not exist")]
    NoRoom,
    #[error("participant does not exist")]
    NoParticipant,
    #[error("track does not exist")]
    NoTrack,
    #[error("{0} is larger than the server takes")]
    TooLarge(&'static str),
    #[error("remote unmute is not possible: only the participant may open their microphone or camera again")]
    RemoteUnmute,
    #[error("this participant lives in the server; it cannot be changed from outside")]
    Agent,
    #[error("this participant has no signalling connection now: it cannot be moved, or not before it is back")]
    NotConnected,
    #[error("the participant is in this room")]
    SameRoom,
    #[error("this participant is shown here from another room: ask for this there")]
    Forwarded,
    #[error("a participant of this identity is in the destination room")]
    AlreadyThere,
    #[error("the participant is shown in as many other rooms as it may be")]
    TooManyForwards,
    #[error("too many calls wait for an answer in this room")]
    TooManyCalls,
    #[error("{0}")]
    Room(#[from] super::RoomError),
}

/// What differs from the server's configuration in one room.
#[derive(Clone, Debug, Default)]
pub struct RoomOptions {
    pub empty_timeout_secs: Option<u64>,
    pub departure_timeout_secs: Option<u64>,
    pub max_participants: Option<usize>,
    pub metadata: Option<String>,
}

impl RoomOptions {
    /// Whether they are within the server's bounds.
    pub(super) fn check(&self) -> Result<(), AdminError> {
        match &self.metadata {
            Some(text) if text.len() > METADATA_BYTES_MAX => Err(AdminError::TooLarge("metadata")),
            _ => Ok(()),
        }
    }
}

/// A change of a participant. `None` leaves things as they are.
#[derive(Clone, Debug, Default)]
pub struct ParticipantChange {
    pub name: String,
    pub metadata: String,
    pub attributes: HashMap<String, String>,
    pub permission: Option<proto::ParticipantPermission>,
}

/// How a call ended: the answer, or LiveKit's code and words.
pub type RpcOutcome = Result<String, (u32, String)>;

/// A call that waits for its answer.
pub(super) struct Call {
    pub to: Identity,
    pub deadline: Instant,
}

impl Room {
    /// Applies what differs from the configuration.
    pub fn set_options(&mut self, options: RoomOptions) -> Result<(), AdminError> {
        options.check()?;
        self.configure(options);
        self.hook_started();
        Ok(())
    }

    /// As [`Room::set_options`], of options that were checked, in a room that may not have begun.
    pub fn configure(&mut self, options: RoomOptions) {
        if let Some(secs) = options.empty_timeout_secs {
            self.config.empty_timeout_secs = secs;
            self.reset_empty_timeout();
        }
        if let Some(secs) = options.departure_timeout_secs {
            self.config.departure_timeout_secs = secs;
        }
        if let Some(max) = options.max_participants {
            // Never more than the server's own bound.
            self.config.max_participants_per_room = max.min(self.participants_max);
        }
        if let Some(metadata) = options.metadata {
            self.metadata = metadata;
            self.tell_room_update(None);
        }
    }

    pub fn list(&self) -> Vec<ParticipantInfo> {
        self.participants.iter().map(Participant::info).collect()
    }

    pub fn find(&self, identity: &Identity) -> Result<&Participant, AdminError> {
        self.participants.iter().find(|p| p.identity == *identity).ok_or(AdminError::NoParticipant)
    }

    /// As [`Room::find`], of somebody whose own room this is.
    pub fn find_own(&self, identity: &Identity) -> Result<&Participant, AdminError> {
        self.find(identity).and_then(|p| if p.double.is_some() { Err(AdminError::Forwarded) } else { Ok(p) })
    }

    pub fn expel(&mut self, now: Now, identity: &Identity) -> Result<(), AdminError> {
        let sid = self.find(identity)?.sid.clone();
        self.remove(now, &sid, DisconnectReason::ParticipantRemoved, Some(Action::Disconnect));
        Ok(())
    }

    /// Mutes somebody's track and tells their client, which shows it. Opening it again is theirs.
    pub fn force_mute(&mut self, identity: &Identity, track: &str, muted: bool) -> Result<TrackInfo, AdminError> {
        let p = self.find_own(identity)?;
        let (sid, found) = (p.sid.clone(), p.track(track).ok_or(AdminError::NoTrack)?);
        if found.info.muted && !muted {
            return Err(AdminError::RemoteUnmute);
        }
        self.mute_track(&sid, track, muted);
        self.tell(&sid, Response::Mute(proto::MuteTrackRequest { sid: track.to_owned(), muted }));
        self.find(identity)?.track(track).map(|track| track.info.clone()).ok_or(AdminError::NoTrack)
    }

    pub fn update_participant(
        &mut self,
        now: Now,
        identity: &Identity,
        change: ParticipantChange,
    ) -> Result<ParticipantInfo, AdminError> {
        let p = self.find_own(identity)?;
        if p.is_agent() {
            return Err(AdminError::Agent);
        }
        let sid = p.sid.clone();
        let ParticipantChange { name, metadata, attributes, permission } = change;
        let change = MetadataChange { name, metadata, attributes };
        if !change.fits(p) {
            return Err(AdminError::TooLarge("the change"));
        }
        if let Some(permission) = permission {
            self.permit(now, &sid, &permission);
        }
        self.change_metadata(&sid, change);
        Ok(self.find(identity)?.info())
    }

    /// Puts other permissions in force: what is no longer allowed ends at once.
    fn permit(&mut self, now: Now, sid: &ParticipantSid, permission: &proto::ParticipantPermission) {
        let Some(p) = self.get_mut(sid) else { return };
        apply_permission(&mut p.grants, permission);
        if let Some(claims) = &mut p.claims {
            claims.grants = p.grants.clone();
        }
        let forbidden: Vec<TrackSid> =
            p.tracks.iter().filter(|t| !p.may_publish(t.info.source)).map(|t| t.sid.clone()).collect();
        for track in forbidden {
            self.take_down(sid, &track);
        }
        if !self.get(sid).is_some_and(|p| p.grants.can_publish_data()) {
            self.end_data_tracks(sid, |_| true);
        }
        self.sync_subscriber(sid);
        self.follow();
        self.refresh_token(now, sid);
    }

    /// Ends a track of somebody's and tells their client.
    fn take_down(&mut self, sid: &ParticipantSid, track: &TrackSid) {
        self.track_ended(sid, track);
        let (room, participant) = (self.sid.clone(), sid.clone());
        self.media(Command::Unpublish { room, participant, track: track.clone() });
        let track_sid = track.as_str().to_owned();
        self.tell(sid, Response::TrackUnpublished(proto::TrackUnpublishedResponse { track_sid }));
    }

    pub fn update_subscriptions(
        &mut self,
        identity: &Identity,
        update: &proto::UpdateSubscription,
    ) -> Result<(), AdminError> {
        let sid = self.find_own(identity)?.sid.clone();
        self.update_subscription(&sid, update);
        Ok(())
    }

    /// Sends a user packet that is nobody's.
    pub fn send_user_data(&mut self, now: Now, request: proto::SendDataRequest) -> Result<(), AdminError> {
        #[allow(deprecated)] // older services address by sid
        let sids = request.destination_sids;
        let named = |p: &&Participant| sids.iter().any(|sid| *sid == p.sid.as_str());
        let mut to = request.destination_identities;
        to.extend(self.participants.iter().filter(named).map(|p| p.identity.as_str().to_owned()));
        if to.is_empty() && !sids.is_empty() {
            return Err(AdminError::NoParticipant);
        }
        let lossy = request.kind == proto::data_packet::Kind::Lossy as i32;
        let channel = if lossy { DataChannel::Lossy } else { DataChannel::Reliable };
        let user = proto::UserPacket {
            payload: request.data,
            topic: request.topic,
            nonce: request.nonce,
            ..proto::UserPacket::default()
        };
        let packet = DataPacket { destination_identities: to, value: Some(Value::User(user)), ..DataPacket::default() };
        self.data_from_server(now, channel, packet).map_err(|()| AdminError::TooLarge("the packet"))
    }

    /// Calls a method of a participant. How it ends comes out as [`Output::RpcDone`].
    pub fn call(&mut self, now: Now, id: &str, request: proto::PerformRpcRequest) -> Result<(), AdminError> {
        let to = Identity::from(request.destination_identity.as_str());
        self.find_own(&to)?;
        if self.calls.len() >= CALLS_MAX {
            return Err(AdminError::TooManyCalls);
        }
        let patience = request.response_timeout_ms.clamp(1, 60_000);
        let value = Value::RpcRequest(proto::RpcRequest {
            id: id.to_owned(),
            method: request.method,
            payload: request.payload,
            response_timeout_ms: patience,
            version: 1,
            ..proto::RpcRequest::default()
        });
        let packet = DataPacket {
            participant_identity: CALLER.to_owned(),
            destination_identities: vec![request.destination_identity],
            value: Some(value),
            ..DataPacket::default()
        };
        self.data_from_server(now, DataChannel::Reliable, packet).map_err(|()| AdminError::TooLarge("the payload"))?;
        let deadline = now.at + std::time::Duration::from_millis(patience.into());
        self.calls.insert(id.to_owned(), Call { to, deadline });
        Ok(())
    }

    /// Takes an answer to a call of ours; true where it was one.
    pub(super) fn take_answer(&mut self, from: &Identity, packet: &DataPacket) -> bool {
        let (id, outcome) = match &packet.value {
            Some(Value::RpcAck(ack)) => return self.calls.contains_key(&ack.request_id),
            Some(Value::RpcResponse(response)) => {
                use proto::rpc_response::Value as Answer;
                let outcome = match &response.value {
                    Some(Answer::Payload(payload)) => Ok(payload.clone()),
                    Some(Answer::Error(error)) => Err((error.code, error.message.clone())),
                    _ => return false,
                };
                (&response.request_id, outcome)
            }
            _ => return false,
        };
        if self.calls.get(id).is_none_or(|call| call.to != *from) {
            return false;
        }
        self.end_call(id, outcome);
        true
    }

    fn end_call(&mut self, id: &str, outcome: RpcOutcome) {
        if self.calls.remove(id).is_some() {
            self.push(Output::RpcDone { id: id.to_owned(), outcome });
        }
    }

    pub(super) fn end_late_calls(&mut self, now: Now) {
        let late: Vec<_> = self.calls.iter().filter(|(_, c)| now.at >= c.deadline).map(|(id, _)| id.clone()).collect();
        for id in late {
            self.end_call(&id, Err((RPC_RESPONSE_TIMEOUT, "the participant did not answer in time".to_owned())));
        }
    }

    pub(super) fn end_calls_to(&mut self, identity: &Identity) {
        let theirs: Vec<_> = self.calls.iter().filter(|(_, c)| c.to == *identity).map(|(id, _)| id.clone()).collect();
        for id in theirs {
            self.end_call(&id, Err((RPC_RECIPIENT_DISCONNECTED, "the participant left".to_owned())));
        }
    }
}

fn apply_permission(grants: &mut Grants, permission: &proto::ParticipantPermission) {
    grants.can_subscribe = Some(permission.can_subscribe);
    grants.can_publish = Some(permission.can_publish);
    grants.can_publish_data = Some(permission.can_publish_data);
    grants.can_update_own_metadata = Some(permission.can_update_metadata);
    grants.can_subscribe_metrics = Some(permission.can_subscribe_metrics);
    let name = |source: &i32| {
        let source = proto::TrackSource::try_from(*source).ok()?;
        Some(source.as_str_name().to_ascii_lowercase()).filter(|name| source_of(name).is_some())
    };
    grants.can_publish_sources = permission.can_publish_sources.iter().filter_map(name).collect();
}
