//! LiveKit's signalling protocol over WebSocket: with one peer connection (`/rtc/v1`), and in its older form with two
//! (`/rtc`).

mod allowance;
pub mod codec;
mod legacy;
pub(crate) mod shape;
mod ws;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tower_http::cors::{AllowHeaders, Any, CorsLayer};

use super::IDENTITY_BYTES_MAX;
use crate::{
    auth::{self, ApiKeys, AuthError, Claims},
    rooms::{Connections, RoomError, Rooms},
    telemetry::Metrics,
    turn_server::IceServers,
};

/// What a client is told to wait when the server is full or going down.
const RETRY_AFTER_SECS: &str = "2";

/// What clients may speak.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether clients may use one peer connection for both directions. If not, those that can fall back to two.
    pub single_connection: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { single_connection: true }
    }
}

/// What the handlers need.
#[derive(Clone)]
pub struct Signalling {
    pub config: Config,
    pub rooms: Rooms,
    pub keys: Arc<ApiKeys>,
    /// What clients are told of relays.
    pub ice_servers: IceServers,
    pub metrics: Arc<Metrics>,
}

/// The routes of LiveKit's signalling, for any origin.
pub fn router(state: Signalling) -> Router {
    let router = match state.config.single_connection {
        true => Router::new().route("/rtc/v1", get(connect)).route("/rtc/v1/validate", get(validate)),
        // To a 404 in other words than those of a missing room clients answer with `/rtc`.
        false => Router::new().route("/rtc/v1", get(older_form_only)).route("/rtc/v1/validate", get(older_form_only)),
    };
    router
        .route("/rtc", get(connect))
        .route("/rtc/validate", get(validate))
        // A star would not cover `Authorization`.
        .layer(CorsLayer::new().allow_origin(Any).allow_methods(Any).allow_headers(AllowHeaders::mirror_request()))
        .with_state(state)
}

/// Why a request was refused before the upgrade. The text reaches the user through their client.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("the access token does not allow to join a room: it needs `roomJoin` and a room's name")]
    NoJoinGrant,
    #[error("the access token names no identity (`sub`), or one that is too long")]
    BadIdentity,
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("this address speaks WebSocket only")]
    NotWebSocket,
    #[error(transparent)]
    Room(#[from] RoomError),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::Auth(_) | Refusal::NoJoinGrant | Refusal::Room(RoomError::Revoked) => StatusCode::UNAUTHORIZED,
            Refusal::BadIdentity | Refusal::BadRequest(_) => StatusCode::BAD_REQUEST,
            Refusal::NotWebSocket => StatusCode::NOT_FOUND,
            Refusal::Room(error) => match error {
                RoomError::NotFound => StatusCode::NOT_FOUND,
                RoomError::NoIdentity | RoomError::BadName | RoomError::BadConfig(_) | RoomError::UnknownPreset => {
                    StatusCode::BAD_REQUEST
                }
                RoomError::IdentityTaken | RoomError::MayNotPublish => StatusCode::FORBIDDEN,
                // Not said to a client that has a socket.
                RoomError::OfferRejected(_) => StatusCode::BAD_REQUEST,
                RoomError::TakenOut => StatusCode::CONFLICT,
                RoomError::Revoked => StatusCode::UNAUTHORIZED,
                RoomError::KeyRooms | RoomError::KeyParticipants | RoomError::KeyJoins => StatusCode::TOO_MANY_REQUESTS,
                RoomError::NotHere => StatusCode::NOT_FOUND,
                RoomError::Closed
                | RoomError::TooManyRooms
                | RoomError::RoomFull
                | RoomError::Draining
                | RoomError::NoWorker => StatusCode::SERVICE_UNAVAILABLE,
            },
        }
    }

    /// The metric's label.
    fn result(&self) -> &'static str {
        match self {
            Refusal::Auth(_) | Refusal::NoJoinGrant | Refusal::Room(RoomError::Revoked) => "unauthorized",
            _ => "refused",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, self.to_string()).into_response();
        if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER_SECS));
        }
        response
    }
}

async fn older_form_only() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "this server takes two peer connections only (signalling.single_connection)")
}

/// Everything is checked, and the room entered, before the upgrade: a refusal is an HTTP status that every client
/// can show.
async fn connect(State(state): State<Signalling>, uri: Uri, mut parts: RequestHead) -> Response {
    let metrics = state.metrics.clone();
    match admit(&state, &uri, &mut parts).await {
        Ok(response) => response,
        Err(refusal) => {
            tracing::info!(status = refusal.status().as_u16(), reason = %refusal, "a join was refused");
            metrics.participant_joins.with_label_values(&["livekit", refusal.result()]).inc();
            refusal.into_response()
        }
    }
}

async fn admit(state: &Signalling, uri: &Uri, parts: &mut RequestHead) -> Result<Response, Refusal> {
    let upgrade = parts.upgrade().await.map_err(|_| Refusal::NotWebSocket)?;
    let claims = authenticate(state, &parts.0.headers, uri)?;
    // It is the join request that makes the difference, not the path.
    let (request, connections) = match query(uri, "join_request") {
        Some(param) => (codec::decode_join_request(&param).map_err(Refusal::BadRequest)?, Connections::One),
        None if uri.path().ends_with("/v1") => return Err(Refusal::BadRequest("the query has no `join_request`")),
        None => (legacy::join_request(|name| query(uri, name)).map_err(Refusal::BadRequest)?, Connections::Two),
    };
    let link = state.rooms.join(claims, request, connections).await?;
    let state = state.clone();
    Ok(upgrade
        .max_message_size(codec::FRAME_BYTES_MAX)
        .max_frame_size(codec::FRAME_BYTES_MAX)
        .on_upgrade(move |socket| ws::serve(socket, link, state)))
}

/// What a client asks when its WebSocket was refused, to show the reason.
async fn validate(State(state): State<Signalling>, headers: HeaderMap, uri: Uri) -> Response {
    let checked = authenticate(&state, &headers, &uri).and_then(|claims| Ok(state.rooms.check(&claims)?));
    match checked {
        Ok(()) => "success".into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// The token of the query or the header, checked, with a room to join and somebody who joins.
fn authenticate(state: &Signalling, headers: &HeaderMap, uri: &Uri) -> Result<Claims, Refusal> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(auth::bearer);
    let token = match header {
        Some(token) => token.to_owned(),
        None => query(uri, "access_token").unwrap_or_default(),
    };
    let claims = state.keys.verify(&token)?;
    claims.grants.joins().ok_or(Refusal::NoJoinGrant)?;
    let identity = claims.identity().ok_or(Refusal::BadIdentity)?;
    if identity.as_str().len() > IDENTITY_BYTES_MAX {
        return Err(Refusal::BadIdentity);
    }
    Ok(claims)
}

/// One parameter of the query, decoded.
fn query(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query()?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    codec::percent_decode(value)
}

/// Any text as the query of a join; for fuzzers.
pub(crate) fn fuzz_query(text: &str) {
    let query = |name: &str| {
        let value = text.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        codec::percent_decode(value)
    };
    let _ = legacy::join_request(query);
    let _ = query("join_request").map(|param| codec::decode_join_request(&param));
}

/// The request's head, kept so that the refusal of a request that is no WebSocket is ours to word.
struct RequestHead(Parts);

impl<S: Sync> FromRequestParts<S> for RequestHead {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let mut head = axum::http::Request::new(Body::empty()).into_parts().0;
        std::mem::swap(&mut head, parts);
        Ok(Self(head))
    }
}

impl RequestHead {
    async fn upgrade(&mut self) -> Result<WebSocketUpgrade, WebSocketUpgradeRejection> {
        WebSocketUpgrade::from_request_parts(&mut self.0, &()).await
    }
}
