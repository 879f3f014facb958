//! LiveKit's server API: Twirp over HTTP, protobuf or JSON, for the SDKs that services use.
//!
//! `POST /twirp/livekit.<Service>/<Method>`, with an access token whose grants say what it may do. Errors are Twirp's:
//! a status and `{"code", "msg"}`.

mod agents;
mod rooms;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::App;
use crate::{
    auth::{AuthError, Claims, Grants, bearer},
    rooms::{AdminError, RoomError},
};

/// Bytes of a request: metadata and attributes of a participant, and some.
pub(super) const BODY_BYTES_MAX: usize = 512 * 1024;

pub fn router() -> Router<App> {
    Router::new()
        .route("/twirp/livekit.RoomService/{method}", post(rooms::serve))
        .route("/twirp/livekit.AgentDispatchService/{method}", post(agents::serve))
        .route("/twirp/{service}/{method}", post(unknown_service))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn unknown_service(Path((service, _)): Path<(String, String)>) -> TwirpError {
    match service.as_str() {
        "livekit.Egress" | "livekit.Ingress" | "livekit.SIP" => {
            TwirpError::new(Code::Unimplemented, "this server does not offer this service yet")
        }
        _ => TwirpError::new(Code::BadRoute, "there is no such service"),
    }
}

/// A request that was not read at all.
pub(super) fn refused(status: StatusCode, msg: &str) -> Response {
    (status, axum::Json(json!({ "code": "malformed", "msg": msg, "meta": {} }))).into_response()
}

/// Twirp's error codes, as far as they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    BadRoute,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    Malformed,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
}

impl Code {
    fn parts(self) -> (&'static str, StatusCode) {
        match self {
            Self::BadRoute => ("bad_route", StatusCode::NOT_FOUND),
            Self::FailedPrecondition => ("failed_precondition", StatusCode::PRECONDITION_FAILED),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
            Self::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Self::PermissionDenied => ("permission_denied", StatusCode::FORBIDDEN),
            Self::ResourceExhausted => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
            Self::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
        }
    }
}

#[derive(Debug)]
struct TwirpError {
    code: Code,
    msg: String,
    meta: serde_json::Value,
}

impl TwirpError {
    fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), meta: json!({}) }
    }
}

impl IntoResponse for TwirpError {
    fn into_response(self) -> Response {
        let (code, status) = self.code.parts();
        let body = json!({ "code": code, "msg": self.msg, "meta": self.meta });
        (status, axum::Json(body)).into_response()
    }
}

impl From<AuthError> for TwirpError {
    fn from(error: AuthError) -> Self {
        Self::new(Code::Unauthenticated, error.to_string())
    }
}

impl From<RoomError> for TwirpError {
    fn from(error: RoomError) -> Self {
        let code = match error {
            RoomError::NotFound | RoomError::NotHere | RoomError::Closed => Code::NotFound,
            RoomError::BadName
            | RoomError::BadConfig(_)
            | RoomError::UnknownPreset
            | RoomError::NoIdentity
            | RoomError::OfferRejected(_) => Code::InvalidArgument,
            RoomError::IdentityTaken | RoomError::MayNotPublish | RoomError::TakenOut => Code::PermissionDenied,
            RoomError::TooManyRooms
            | RoomError::RoomFull
            | RoomError::KeyRooms
            | RoomError::KeyParticipants
            | RoomError::KeyJoins => Code::ResourceExhausted,
            RoomError::Revoked => Code::Unauthenticated,
            RoomError::Draining | RoomError::NoWorker => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<AdminError> for TwirpError {
    fn from(error: AdminError) -> Self {
        let code = match error {
            AdminError::NoRoom | AdminError::NoParticipant | AdminError::NoTrack => Code::NotFound,
            AdminError::TooLarge(_) | AdminError::SameRoom => Code::InvalidArgument,
            AdminError::RemoteUnmute
            | AdminError::Agent
            | AdminError::NotConnected
            | AdminError::Forwarded
            | AdminError::AlreadyThere => Code::FailedPrecondition,
            AdminError::TooManyCalls | AdminError::TooManyForwards => Code::ResourceExhausted,
            AdminError::Room(error) => return error.into(),
        };
        Self::new(code, error.to_string())
    }
}

/// The form of a request, and so of its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

/// One call: who makes it, and what it says.
struct Call {
    claims: Claims,
    form: Form,
    body: Bytes,
}

impl Call {
    fn new(app: &App, headers: &HeaderMap, body: Bytes) -> Result<Self, TwirpError> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let form = match text(header::CONTENT_TYPE).map(|kind| kind.split(';').next().unwrap_or_default().trim()) {
            Some("application/protobuf") => Form::Protobuf,
            Some("application/json") => Form::Json,
            _ => {
                let msg = "send Content-Type application/protobuf or application/json";
                return Err(TwirpError::new(Code::BadRoute, msg));
            }
        };
        let token = text(header::AUTHORIZATION).and_then(bearer).ok_or(AuthError::Missing)?;
        Ok(Self { claims: app.keys.verify(token)?, form, body })
    }

    /// Refuses the call where the token lacks the grant.
    fn needs(&self, granted: impl Fn(&Grants) -> bool, name: &str) -> Result<(), TwirpError> {
        if granted(&self.claims.grants) {
            return Ok(());
        }
        Err(TwirpError::new(Code::PermissionDenied, format!("this access token lacks the grant `{name}`")))
    }

    /// Refuses the call where the token does not administer this room.
    fn administers(&self, room: &str) -> Result<(), TwirpError> {
        self.needs(|grants| grants.room_admin && grants.room == room, "roomAdmin` for this `room")
    }

    fn read<T: prost::Message + Default + DeserializeOwned>(&self) -> Result<T, TwirpError> {
        match self.form {
            Form::Protobuf => T::decode(self.body.clone())
                .map_err(|_| TwirpError::new(Code::Malformed, "the body is not the request's protobuf message")),
            Form::Json => serde_json::from_slice(&self.body)
                .map_err(|_| TwirpError::new(Code::Malformed, "the body is not the request's JSON form")),
        }
    }

    fn write<T: prost::Message + Serialize>(&self, answer: &T) -> Result<Response, TwirpError> {
        let (kind, body) = match self.form {
            Form::Protobuf => ("application/protobuf", answer.encode_to_vec()),
            Form::Json => {
                let body = serde_json::to_vec(answer)
                    .map_err(|_| TwirpError::new(Code::Internal, "the answer has no JSON form"))?;
                ("application/json", body)
            }
        };
        Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
    }
}

/// Any bytes as the body of each request that is read here; for fuzzers.
pub(super) fn fuzz(bytes: &[u8], json: bool) {
    use livekit_protocol as proto;
    let form = if json { Form::Json } else { Form::Protobuf };
    let call = Call { claims: Claims::default(), form, body: Bytes::copy_from_slice(bytes) };
    fn read<T: prost::Message + Default + DeserializeOwned + Serialize>(call: &Call) {
        if let Ok(request) = call.read::<T>() {
            let _ = call.write(&request);
        }
    }
    read::<proto::CreateRoomRequest>(&call);
    read::<proto::ListRoomsRequest>(&call);
    read::<proto::RoomParticipantIdentity>(&call);
    read::<proto::MuteRoomTrackRequest>(&call);
    read::<proto::UpdateParticipantRequest>(&call);
    read::<proto::UpdateSubscriptionsRequest>(&call);
    read::<proto::SendDataRequest>(&call);
    read::<proto::PerformRpcRequest>(&call);
}
