//! Why a request was refused: an HTTP status and a problem document (RFC 9457) that says what to do.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{auth::AuthError, rooms::RoomError};

/// What a client is told to wait when the server is full or going down.
const RETRY_AFTER_SECS: &str = "2";

/// The text reaches the user through their client; it quotes nothing that the client sent.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("the access token does not allow to join a room: it needs `roomJoin` and a room's name")]
    NoJoinGrant,
    #[error("the access token names no identity (`sub`), or one that is too long")]
    BadIdentity,
    #[error("the access token does not allow to publish (`canPublish`)")]
    MayNotPublish,
    #[error("the access token does not allow to subscribe (`canSubscribe`)")]
    MayNotSubscribe,
    #[error("send this request with `Content-Type: {0}`")]
    ContentType(&'static str),
    #[error("{0}")]
    BadSdp(&'static str),
    #[error("{0}")]
    BadFragment(&'static str),
    /// Well-formed, but nothing that we could serve in full.
    #[error("{0}")]
    Unsupported(&'static str),
    #[error("the body is larger than what is taken")]
    TooLarge,
    #[error("the body could not be read")]
    BadBody,
    #[error("the query cannot be read; `participant` is the identity of who is to be played")]
    BadQuery,
    #[error("send `If-Match` with the session's ETag, or with `*` for an ICE restart")]
    NoPrecondition,
    #[error("`If-Match` names another ICE session than the present one; an ICE restart needs `*`")]
    WrongPrecondition,
    #[error("there is no such session, or it is not this token's")]
    NoSession,
    #[error("this address does not take this method")]
    WrongMethod,
    #[error("this took too long; try again in a moment")]
    TooSlow,
    #[error(transparent)]
    Room(#[from] RoomError),
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        self.kind().0
    }

    /// Status, and the name that programs may rely on.
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Auth(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::NoJoinGrant | Self::MayNotPublish | Self::MayNotSubscribe => (StatusCode::FORBIDDEN, "forbidden"),
            Self::BadIdentity | Self::BadBody | Self::BadQuery => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::ContentType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_content_type"),
            Self::BadSdp(_) => (StatusCode::BAD_REQUEST, "malformed_sdp"),
            Self::BadFragment(_) => (StatusCode::BAD_REQUEST, "malformed_fragment"),
            Self::Unsupported(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unsupported_offer"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::NoPrecondition => (StatusCode::PRECONDITION_REQUIRED, "if_match_required"),
            Self::WrongPrecondition => (StatusCode::PRECONDITION_FAILED, "other_ice_session"),
            Self::NoSession => (StatusCode::NOT_FOUND, "no_session"),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "wrong_method"),
            Self::TooSlow => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::Room(error) => match error {
                RoomError::NotFound => (StatusCode::NOT_FOUND, "no_room"),
                RoomError::NotHere => (StatusCode::NOT_FOUND, "no_session"),
                RoomError::TakenOut => (StatusCode::CONFLICT, "identity_joined_again"),
                RoomError::Revoked => (StatusCode::UNAUTHORIZED, "unauthorized"),
                RoomError::KeyRooms | RoomError::KeyParticipants | RoomError::KeyJoins => {
                    (StatusCode::TOO_MANY_REQUESTS, "too_many")
                }
                RoomError::NoIdentity | RoomError::BadName | RoomError::BadConfig(_) | RoomError::UnknownPreset => {
                    (StatusCode::BAD_REQUEST, "invalid_request")
                }
                RoomError::IdentityTaken | RoomError::MayNotPublish => (StatusCode::FORBIDDEN, "forbidden"),
                RoomError::OfferRejected(_) => (StatusCode::BAD_REQUEST, "malformed_sdp"),
                RoomError::Closed
                | RoomError::TooManyRooms
                | RoomError::RoomFull
                | RoomError::Draining
                | RoomError::NoWorker => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            },
        }
    }

    /// What a join that ended so counts as; `None` where the room has counted it.
    pub fn result(&self) -> Option<&'static str> {
        match self {
            Self::Auth(_) | Self::NoJoinGrant | Self::Room(RoomError::Revoked) => Some("unauthorized"),
            Self::Room(RoomError::OfferRejected(_)) => None,
            _ => Some("refused"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = self.kind();
        let problem = serde_json::json!({
            "type": format!("urn:viva:problem:{code}"),
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": self.to_string(),
            "code": code,
        });
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
        let mut response = (status, content_type, problem.to_string()).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECS));
        }
        if let Self::ContentType(accepted @ "application/sdp") = self {
            headers.insert(header::HeaderName::from_static("accept-post"), HeaderValue::from_static(accepted));
        }
        response
    }
}
