//! `livekit.RoomService`: rooms and who is in them, for services.

use std::collections::HashSet;

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use livekit_protocol as proto;

use super::{App, Call, Code, TwirpError, agents::wanted};
use crate::{
    auth::Grants,
    id::{Identity, RoomName},
    rooms::{AdminError, ParticipantChange, RoomError, RoomHandle, RoomOptions, RoomSetup, Rooms},
};

type Result<T> = std::result::Result<T, TwirpError>;

/// Tokens of who is removed are void where they were made before this many seconds from now: clocks differ by a minute.
const REVOKED_UNTIL_AFTER_SECS: i64 = 60;
/// Bytes of a call's payload, as LiveKit's clients bound it.
const RPC_PAYLOAD_BYTES_MAX: usize = 15 * 1024;

pub async fn serve(
    State(app): State<App>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response> {
    let call = Call::new(&app, &headers, body)?;
    let rooms = &app.rooms;
    match method.as_str() {
        "CreateRoom" => create(&call, &app).await,
        "ListRooms" => list(&call, rooms).await,
        "DeleteRoom" => delete(&call, rooms).await,
        "ListParticipants" => participants(&call, rooms).await,
        "GetParticipant" => participant(&call, rooms).await,
        "RemoveParticipant" => remove(&call, rooms).await,
        "MutePublishedTrack" => mute(&call, rooms).await,
        "UpdateParticipant" => update_participant(&call, rooms).await,
        "UpdateSubscriptions" => update_subscriptions(&call, rooms).await,
        "SendData" => send_data(&call, rooms).await,
        "UpdateRoomMetadata" => update_metadata(&call, rooms).await,
        "PerformRpc" => perform_rpc(&call, rooms).await,
        "MoveParticipant" => move_participant(&call, rooms).await,
        "ForwardParticipant" => forward_participant(&call, rooms).await,
        _ => Err(TwirpError::new(Code::BadRoute, "there is no such method")),
    }
}

fn unix_secs() -> i64 {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(unix.as_secs()).unwrap_or(i64::MAX)
}

fn open(rooms: &Rooms, name: &str) -> Result<RoomHandle> {
    rooms.get(&RoomName::from(name)).ok_or_else(|| AdminError::NoRoom.into())
}

/// Makes a room, with its agents, or changes the options of one that is open: a service may call this before every join.
async fn create(call: &Call, app: &App) -> Result<Response> {
    call.needs(|grants| grants.room_create, "roomCreate")?;
    let request: proto::CreateRoomRequest = call.read()?;
    if request.egress.is_some() {
        let msg = "this server starts no egress with a room yet; leave `egress` out";
        return Err(TwirpError::new(Code::Unimplemented, msg));
    }
    if !request.room_preset.is_empty() {
        return Err(RoomError::UnknownPreset.into());
    }
    let name = RoomName::from(request.name.as_str());
    let secs = |value: u32| (value > 0).then_some(u64::from(value));
    let options = RoomOptions {
        empty_timeout_secs: secs(request.empty_timeout),
        departure_timeout_secs: secs(request.departure_timeout),
        max_participants: (request.max_participants > 0).then_some(request.max_participants as usize),
        metadata: (!request.metadata.is_empty()).then_some(request.metadata),
    };
    let agents = wanted(request.agents);
    if app.rooms.get(&name).is_none() {
        app.agents.check(&name, &agents)?;
    }
    let setup = RoomSetup { options: options.clone(), agents, reserved: false };
    let (room, _) = app.rooms.open_by(&name, setup, Some(&call.claims.iss))?;
    call.write(&room.set_options(options).await?)
}

async fn list(call: &Call, rooms: &Rooms) -> Result<Response> {
    call.needs(|grants| grants.room_list, "roomList")?;
    let request: proto::ListRoomsRequest = call.read()?;
    let names: HashSet<&str> = request.names.iter().map(String::as_str).collect();
    let wanted = |room: &RoomHandle| names.is_empty() || names.contains(room.name().as_str());
    let mut found = Vec::new();
    for room in rooms.list().into_iter().filter(wanted) {
        // One that closes meanwhile is no longer there.
        found.extend(room.info().await);
    }
    call.write(&proto::ListRoomsResponse { rooms: found })
}

async fn delete(call: &Call, rooms: &Rooms) -> Result<Response> {
    call.needs(|grants| grants.room_create, "roomCreate")?;
    let request: proto::DeleteRoomRequest = call.read()?;
    open(rooms, &request.room)?.close().await;
    call.write(&proto::DeleteRoomResponse {})
}

async fn participants(call: &Call, rooms: &Rooms) -> Result<Response> {
    let request: proto::ListParticipantsRequest = call.read()?;
    call.administers(&request.room)?;
    let participants = open(rooms, &request.room)?.participants().await?;
    call.write(&proto::ListParticipantsResponse { participants })
}

async fn participant(call: &Call, rooms: &Rooms) -> Result<Response> {
    let request: proto::RoomParticipantIdentity = call.read()?;
    call.administers(&request.room)?;
    call.write(&open(rooms, &request.room)?.participant(Identity::from(request.identity.as_str())).await?)
}

async fn remove(call: &Call, rooms: &Rooms) -> Result<Response> {
    let request: proto::RoomParticipantIdentity = call.read()?;
    call.administers(&request.room)?;
    let identity = Identity::from(request.identity.as_str());
    // First, and also where nobody is there: they may be about to come back.
    let before = match request.revoke_token_ts {
        0 => REVOKED_UNTIL_AFTER_SECS.saturating_add(unix_secs()),
        before => before,
    };
    rooms.revoke(&RoomName::from(request.room.as_str()), &identity, before);
    open(rooms, &request.room)?.expel(identity).await?;
    call.write(&proto::RemoveParticipantResponse {})
}

async fn mute(call: &Call, rooms: &Rooms) -> Result<Response> {
    let request: proto::MuteRoomTrackRequest = call.read()?;
    call.administers(&request.room)?;
    let identity = Identity::from(request.identity.as_str());
    let track = open(rooms, &request.room)?.force_mute(identity, request.track_sid, request.muted).await?;
    call.write(&proto::MuteRoomTrackResponse { track: Some(track) })
}

async fn update_participant(call: &Call, rooms: &Rooms) -> Result<Response> {
    let request: proto::UpdateParticipantRequest = call.read()?;
    call.administers(&request.room)?;
    let change = ParticipantChange {
        name: request.name,
        metadata: request.metadata,
        attributes: request.attributes,
        permission: request.permission,
    };
    let identity = Identity::from(request.identity.as_str());
    call.write(&open(rooms, &request.room)?.update_participant(identity, change).await?)
}

async fn update_subscriptions(call: &Call, rooms: &Rooms) -> Result<Response> {
    let request: proto::UpdateSubscriptionsRequest = call.read()?;
    call.administers(&request.room)?;
    let update = proto::UpdateSubscription {
        track_sids: request.track_sids,
        subscribe: request.subscribe,
        participant_tracks: request.participant_tracks,
    };
    let identity = Identity::from(request.identity.as_str());
    open(rooms, &request.room)?.update_subscriptions(identity, update).await?;
    call.write(&proto::UpdateSubscriptionsResponse {})
}

async fn send_data(call: &Call, rooms: &Rooms) -> Result<Response> {
    let request: proto::SendDataRequest = call.read()?;
    call.administers(&request.room)?;
    open(rooms, &request.room)?.send_data(request).await?;
    call.write(&proto::SendDataResponse {})
}

async fn update_metadata(call: &Call, rooms: &Rooms) -> Result<Response> {
    let request: proto::UpdateRoomMetadataRequest = call.read()?;
    call.administers(&request.room)?;
    let options = RoomOptions { metadata: Some(request.metadata), ..RoomOptions::default() };
    call.write(&open(rooms, &request.room)?.set_options(options).await?)
}

fn may_send_to(call: &Call, room: &str) -> Result<()> {
    let destination = |grants: &Grants| !room.is_empty() && grants.destination_room == *room;
    call.needs(destination, "destinationRoom` for this `destination_room")
}

async fn forward_participant(call: &Call, rooms: &Rooms) -> Result<Response> {
    let request: proto::ForwardParticipantRequest = call.read()?;
    call.administers(&request.room)?;
    may_send_to(call, &request.destination_room)?;
    let (from, to) = (RoomName::from(request.room.as_str()), RoomName::from(request.destination_room.as_str()));
    let identity = Identity::from(request.identity.as_str());
    rooms.forward_participant(&from, identity, &to, &call.claims.iss).await?;
    call.write(&proto::ForwardParticipantResponse {})
}

async fn move_participant(call: &Call, rooms: &Rooms) -> Result<Response> {
    let request: proto::MoveParticipantRequest = call.read()?;
    call.administers(&request.room)?;
    may_send_to(call, &request.destination_room)?;
    let (from, to) = (RoomName::from(request.room.as_str()), RoomName::from(request.destination_room.as_str()));
    let key = Some(call.claims.iss.as_str());
    rooms.move_participant(&from, Identity::from(request.identity.as_str()), &to, key).await?;
    call.write(&proto::MoveParticipantResponse {})
}

async fn perform_rpc(call: &Call, rooms: &Rooms) -> Result<Response> {
    let request: proto::PerformRpcRequest = call.read()?;
    call.administers(&request.room)?;
    if request.payload.len() > RPC_PAYLOAD_BYTES_MAX {
        return Err(TwirpError::new(Code::InvalidArgument, "the payload may have 15 KiB"));
    }
    let room = open(rooms, &request.room)?;
    match room.call(request).await? {
        Ok(payload) => call.write(&proto::PerformRpcResponse { payload }),
        // The participant's own error, with LiveKit's code for it.
        Err((code, msg)) => {
            let meta = serde_json::json!({ "rpc_code": code.to_string() });
            Err(TwirpError { code: Code::FailedPrecondition, msg, meta })
        }
    }
}
