//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): media in and out of a room by one HTTP request, for clients without a
//! signalling socket. `/whip/v1` takes, `/whep/v1` gives; each session is a participant like any other.
//!
//! No state here: the room keeps the session, and the token that opened it says in which room to look.

mod refusal;
mod sdp;

use std::time::Duration;

use axum::{
    Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, Query, Request, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{patch, post},
};
use livekit_protocol as proto;
use serde::Deserialize;

use self::{
    refusal::Refusal,
    sdp::{Credentials, Kind, Offer, Way, track_id},
};
use super::{IDENTITY_BYTES_MAX, ice, livekit::Signalling};
use crate::{
    auth::{self, AuthError, Claims},
    id::{Identity, ParticipantSid},
    rooms::{Agreed, Direct, RoomHandle},
};

/// Bytes of an offer or a fragment. A browser's offer with one section of each kind is below 10 kB.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest that a request may take, its body's arrival included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a browser may remember what is allowed.
const PREFLIGHT_SECS: &str = "86400";

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// Pages of any origin may talk to us and read what they need of the answer: tokens say who may do what.
const CROSS_ORIGIN: [(HeaderName, &str); 2] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, "location, etag, link, retry-after, accept-post, accept-patch"),
];

/// Which of the two protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Whip,
    Whep,
}

impl Protocol {
    /// The metric's label, and the first part of the path.
    fn name(self) -> &'static str {
        match self {
            Self::Whip => "whip",
            Self::Whep => "whep",
        }
    }
}

/// What a player may say in its query.
#[derive(Deserialize)]
struct PlayQuery {
    /// Whom to play; without it, the first who publishes.
    participant: Option<String>,
}

/// The routes of both protocols, for any origin.
pub fn router(state: Signalling) -> Router {
    [Protocol::Whip, Protocol::Whep]
        .into_iter()
        .fold(Router::new(), |router, protocol| router.merge(routes(protocol)))
        .method_not_allowed_fallback(|| async { Refusal::WrongMethod })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(time_limit))
        .layer(from_fn(cross_origin))
        .with_state(state)
}

fn routes(protocol: Protocol) -> Router<Signalling> {
    let begin = move |State(state): State<Signalling>,
                      headers: HeaderMap,
                      query: Result<Query<PlayQuery>, QueryRejection>,
                      body: Result<Bytes, BytesRejection>| async move {
        let begun = begin(&state, protocol, &headers, query, body).await;
        begun.unwrap_or_else(|refusal| {
            tracing::info!(protocol = protocol.name(), status = refusal.status().as_u16(), reason = %refusal, "a join was refused");
            if let Some(result) = refusal.result() {
                state.metrics.participant_joins.with_label_values(&[protocol.name(), result]).inc();
            }
            refusal.into_response()
        })
    };
    let amend =
        move |State(state): State<Signalling>,
              Path(sid): Path<String>,
              headers: HeaderMap,
              body: Result<Bytes, BytesRejection>| async move { amend(&state, protocol, sid, &headers, body).await };
    let end = move |State(state): State<Signalling>, Path(sid): Path<String>, headers: HeaderMap| async move {
        end(&state, protocol, sid, &headers).await
    };
    let ask = |State(state): State<Signalling>, headers: HeaderMap| async move {
        let known = authenticate(&state, &headers).is_ok_and(|(claims, _)| state.rooms.check_token(&claims).is_ok());
        let mut response = preflight(headers, "accept-post", SDP);
        // A client with a token may ask before it offers, so that its first candidates have relays among them.
        if known {
            link_ice_servers(&state, &mut response);
        }
        response
    };
    let endpoint = post(begin).options(ask);
    let session = patch(amend).delete(end).options(|headers| async { preflight(headers, "accept-patch", FRAGMENT) });
    Router::new()
        .route(&format!("/{}/v1", protocol.name()), endpoint)
        .route(&format!("/{}/v1/{{session}}", protocol.name()), session)
}

/// `POST`: an offer becomes a participant, and its answer the response.
async fn begin(
    state: &Signalling,
    protocol: Protocol,
    headers: &HeaderMap,
    query: Result<Query<PlayQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let (claims, _) = authenticate(state, headers)?;
    match protocol {
        Protocol::Whip if !claims.grants.can_publish() => return Err(Refusal::MayNotPublish),
        Protocol::Whep if !claims.grants.can_subscribe() => return Err(Refusal::MayNotSubscribe),
        _ => {}
    }
    let text = text(headers, SDP, body)?;
    let text = text.as_deref().map_err(|()| Refusal::BadSdp("the SDP is no UTF-8"))?;
    let (offer, how) = match protocol {
        Protocol::Whip => {
            let offer = Offer::read(text, Way::Sends)?;
            let tracks = offer.kinds.iter().map(|kind| track(*kind)).collect();
            (offer, Direct::Publish { tracks })
        }
        Protocol::Whep => {
            let Query(query) = query.map_err(|_| Refusal::BadQuery)?;
            let of = query.participant.filter(|identity| !identity.is_empty()).map(Identity::from);
            (Offer::read(text, Way::Receives)?, Direct::Play { of })
        }
    };
    let agreed = state.rooms.join_direct(claims, how, offer.sdp).await?;
    let location = format!("/{}/v1/{}", protocol.name(), agreed.participant);
    let headers = [(header::CONTENT_TYPE, SDP.to_owned()), (header::LOCATION, location), (header::ETAG, etag(&agreed))];
    let mut response = (StatusCode::CREATED, headers, agreed.answer).into_response();
    link_ice_servers(state, &mut response);
    Ok(response)
}

/// Tells of relays, RFC 9725 section 4.6.
fn link_ice_servers(state: &Signalling, response: &mut Response) {
    for link in ice::links(&state.ice_servers) {
        response.headers_mut().append(header::LINK, link);
    }
}

/// `PATCH`: candidates, which we have no use for, or an ICE restart.
async fn amend(
    state: &Signalling,
    protocol: Protocol,
    sid: String,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let (room, sid, identity) = session(state, sid, headers)?;
    let agreed = room.agreed(&sid, &identity).await?;
    if agreed.publishes != (protocol == Protocol::Whip) {
        return Err(Refusal::NoSession);
    }
    let text = text(headers, FRAGMENT, body)?;
    let wanted = headers.get(header::IF_MATCH).ok_or(Refusal::NoPrecondition)?;
    let wanted = wanted.to_str().map_err(|_| Refusal::WrongPrecondition)?.trim();
    let text = text.as_deref().map_err(|()| Refusal::BadFragment("the fragment is no UTF-8"))?;
    // RFC 9725 writes the star in quotes.
    if wanted != "*" && wanted != "\"*\"" {
        if !wanted.split(',').any(|tag| tag.trim() == etag(&agreed)) {
            return Err(Refusal::WrongPrecondition);
        }
        sdp::check_fragment(text)?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    sdp::check_fragment(text)?;
    let lacking = Refusal::BadFragment("an ICE restart needs `a=ice-ufrag` and `a=ice-pwd`");
    let new = Credentials::read(text).ok_or(lacking)?;
    if Credentials::read(&agreed.offer).as_ref() == Some(&new) {
        return Err(Refusal::Unsupported("an ICE restart needs other credentials than the present ones"));
    }
    let agreed = room.offer(&sid, &identity, sdp::with_credentials(&agreed.offer, &new)).await?;
    let headers = [(header::CONTENT_TYPE, FRAGMENT.to_owned()), (header::ETAG, etag(&agreed))];
    Ok((StatusCode::OK, headers, sdp::fragment(&agreed.answer)).into_response())
}

/// `DELETE`: the participant leaves.
async fn end(state: &Signalling, protocol: Protocol, sid: String, headers: &HeaderMap) -> Result<StatusCode, Refusal> {
    let (room, sid, identity) = session(state, sid, headers)?;
    let agreed = room.agreed(&sid, &identity).await?;
    if agreed.publishes != (protocol == Protocol::Whip) {
        return Err(Refusal::NoSession);
    }
    room.leave(&sid, &identity).await?;
    Ok(StatusCode::OK)
}

/// Where a session is looked for: in the token's room, under the token's identity.
fn session(
    state: &Signalling,
    sid: String,
    headers: &HeaderMap,
) -> Result<(RoomHandle, ParticipantSid, Identity), Refusal> {
    let (claims, identity) = authenticate(state, headers)?;
    let room = claims.grants.joins().and_then(|name| state.rooms.get(&name)).ok_or(Refusal::NoSession)?;
    Ok((room, sid.into(), identity))
}

/// The token of the header, checked, with a room to join and somebody who joins.
fn authenticate(state: &Signalling, headers: &HeaderMap) -> Result<(Claims, Identity), Refusal> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(auth::bearer);
    let claims = state.keys.verify(token.ok_or(AuthError::Missing)?)?;
    claims.grants.joins().ok_or(Refusal::NoJoinGrant)?;
    let identity = claims.identity().filter(|identity| identity.as_str().len() <= IDENTITY_BYTES_MAX);
    Ok((claims, identity.ok_or(Refusal::BadIdentity)?))
}

/// The body, if it is of the wanted type; the inner error says that it is no text.
fn text(
    headers: &HeaderMap,
    wanted: &'static str,
    body: Result<Bytes, BytesRejection>,
) -> Result<Result<String, ()>, Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(wanted) {
        return Err(Refusal::ContentType(wanted));
    }
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
        _ => Refusal::BadBody,
    })?;
    Ok(String::from_utf8(body.into()).map_err(drop))
}

/// What a LiveKit client would say of the track of this section.
fn track(kind: Kind) -> proto::AddTrackRequest {
    let (track_type, source) = match kind {
        Kind::Audio => (proto::TrackType::Audio, proto::TrackSource::Microphone),
        Kind::Video => (proto::TrackType::Video, proto::TrackSource::Camera),
    };
    proto::AddTrackRequest {
        cid: track_id(kind).to_owned(),
        r#type: track_type as i32,
        source: source as i32,
        // Such a client has not asked for silence to be left out.
        audio_features: vec![proto::AudioTrackFeature::TfNoDtx as i32],
        ..proto::AddTrackRequest::default()
    }
}

/// The ICE session: our user name in it, which changes with every restart.
fn etag(agreed: &Agreed) -> String {
    let ufrag = Credentials::read(&agreed.answer).map(|credentials| credentials.ufrag).unwrap_or_default();
    format!("\"{ufrag}\"")
}

/// `OPTIONS`, which browsers ask before they ask, and others to learn what is taken here.
fn preflight(headers: HeaderMap, accepts: &'static str, what: &'static str) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let mut put = |name: HeaderName, value: HeaderValue| drop(response.headers_mut().insert(name, value));
    put(HeaderName::from_static(accepts), HeaderValue::from_static(what));
    let methods = if accepts == "accept-post" { "POST, OPTIONS" } else { "PATCH, DELETE, OPTIONS" };
    put(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    let usual = HeaderValue::from_static("authorization, content-type, if-match");
    let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    put(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.unwrap_or(usual));
    put(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECS));
    response
}

async fn cross_origin(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in CROSS_ORIGIN {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn time_limit(request: Request, next: Next) -> Response {
    let limited = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    limited.unwrap_or_else(|_| Refusal::TooSlow.into_response())
}

/// Any text as an offer; for fuzzers. What is taken once is taken again, in the form that it was brought into.
pub(crate) fn fuzz_offer(text: &str) {
    for way in [Way::Sends, Way::Receives] {
        if let Ok(read) = Offer::read(text, way) {
            let again = Offer::read(&read.sdp, way).map(|again| again.kinds).ok();
            assert_eq!(again, Some(read.kinds), "an offer that was taken is refused");
        }
    }
}

/// Any text as a fragment; for fuzzers.
pub(crate) fn fuzz_fragment(text: &str) {
    let _ = sdp::check_fragment(text);
    let _ = sdp::fragment(text);
    if let Some(new) = Credentials::read(text) {
        let _ = sdp::with_credentials(text, &new);
    }
}
