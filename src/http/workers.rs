//! `/agent`: the socket by which programs that run agents register, and get jobs.
//!
//! LiveKit's worker protocol: protobuf in binary frames, or proto3 JSON in text frames, which we then answer in kind.

use std::time::Duration;

use axum::{
    extract::{
        Query, State, WebSocketUpgrade,
        ws::{CloseFrame, Message as Frame, Utf8Bytes, WebSocket, close_code, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use livekit_protocol::{ServerMessage, WorkerMessage};
use prost::Message as _;
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::App;
use crate::{
    agents::{AgentsError, ToWorker, WorkerLink},
    auth::{AuthError, bearer},
};

/// Bytes of one message of a worker: an answer with metadata and attributes, and some.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// How often the socket itself is pinged; three answers missing: the worker is gone.
const PING_EVERY: Duration = Duration::from_secs(10);
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long one frame may take to be written.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Time between the messages of a worker that floods: 200 a second are taken.
const PACE: Duration = Duration::from_millis(5);

#[derive(Deserialize)]
pub(super) struct AgentQuery {
    #[serde(default)]
    access_token: String,
}

pub(super) async fn connect(
    State(app): State<App>,
    Query(query): Query<AgentQuery>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        return (StatusCode::NOT_FOUND, "this address speaks WebSocket only").into_response();
    };
    let key = match authenticate(&app, &query, &headers) {
        Ok(key) => key,
        Err(refusal) => return refusal.into_response(),
    };
    match app.agents.connect(key).await {
        Ok(link) => upgrade
            .max_message_size(FRAME_BYTES_MAX)
            .max_frame_size(FRAME_BYTES_MAX)
            .on_upgrade(move |socket| serve(socket, link)),
        Err(error) => {
            let status = match error {
                AgentsError::TooManyWorkers => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, error.to_string()).into_response()
        }
    }
}

/// The API key of a token that may run agents.
fn authenticate(app: &App, query: &AgentQuery, headers: &HeaderMap) -> Result<String, (StatusCode, String)> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
    let refused = |error: AuthError| (StatusCode::UNAUTHORIZED, error.to_string());
    let claims = app.keys.verify(header.unwrap_or(&query.access_token)).map_err(refused)?;
    if !claims.grants.agent {
        let msg = "this access token lacks the grant `agent`, which workers of agents need";
        return Err((StatusCode::FORBIDDEN, msg.to_owned()));
    }
    Ok(claims.iss)
}

async fn serve(mut socket: WebSocket, mut link: WorkerLink) {
    let close = run(&mut socket, &mut link).await;
    if let Some((code, reason)) = close {
        let frame = Frame::Close(Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason) }));
        // The worker may have closed first.
        let _ = timeout(WRITE_MAX, socket.send(frame)).await;
    }
}

/// Runs until one side is done; returns what to close the socket with.
async fn run(socket: &mut WebSocket, link: &mut WorkerLink) -> Option<(u16, &'static str)> {
    let mut json = false;
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        let frame = tokio::select! {
            biased;
            word = link.outbound.recv() => match word {
                Some(ToWorker::Message(message)) => encode(&message, json),
                Some(ToWorker::Close(reason)) => return Some((close_code::POLICY, reason)),
                None => return Some((close_code::AWAY, "this worker was cut off")),
            },
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    return None;
                }
                Frame::Ping(Vec::new().into())
            }
            frame = socket.recv() => {
                heard = Instant::now();
                match frame {
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(frame)) => match decode(&frame) {
                        None => {}
                        Some(None) => return Some((close_code::INVALID, "this frame is no WorkerMessage")),
                        Some(Some(message)) => {
                            json = matches!(frame, Frame::Text(_));
                            link.send(message).await;
                            sleep(PACE).await;
                        }
                    },
                }
                continue;
            }
        };
        if !matches!(timeout(WRITE_MAX, socket.send(frame)).await, Ok(Ok(()))) {
            return None;
        }
    }
}

/// The message of a frame; `None` for frames that carry none, `Some(None)` for what cannot be read.
fn decode(frame: &Frame) -> Option<Option<WorkerMessage>> {
    match frame {
        Frame::Binary(bytes) => Some(WorkerMessage::decode(bytes.as_ref()).ok()),
        Frame::Text(text) => Some(serde_json::from_str(text.as_str()).ok()),
        Frame::Ping(_) | Frame::Pong(_) | Frame::Close(_) => None,
    }
}

fn encode(message: &ServerMessage, json: bool) -> Frame {
    match json.then(|| serde_json::to_string(message)) {
        Some(Ok(text)) => Frame::Text(text.into()),
        _ => Frame::Binary(message.encode_to_vec().into()),
    }
}

/// Any bytes as a frame of either form; for fuzzers.
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = decode(&Frame::Binary(bytes.to_vec().into()));
    let _ = decode(&Frame::Text(String::from_utf8_lossy(bytes).into_owned().into()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_frame_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,200}") {
            let _ = decode(&Frame::Binary(bytes.into()));
            let _ = decode(&Frame::Text(text.into()));
        }
    }
}
