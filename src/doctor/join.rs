//! Joins a room as LiveKit's clients do, far enough to learn where media goes and which relays there are.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::{
    JoinRequest, SignalRequest, SignalResponse, WrappedJoinRequest, signal_request::Message as Ask,
    signal_response::Message as Told,
};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message as Frame},
};

use super::{Finding, PATIENCE, connection::Target};
use crate::turn_server::probe::Stream;

const CHECK: &str = "signalling";
/// Our side of ICE; the server checks nothing with it.
pub const UFRAG: &str = "doct";
const PASSWORD: &str = "doctordoctordoctordoctor";

/// What a join tells.
pub struct Joined {
    /// The answer's SDP.
    pub answer: String,
    pub ice_servers: Vec<proto::IceServer>,
    pub force_relay: bool,
    /// The media ports answer as long as the client is there.
    socket: Socket,
}

type Socket = WebSocketStream<Box<dyn Stream>>;

impl Joined {
    pub async fn leave(mut self) {
        let reason = proto::DisconnectReason::ClientInitiated as i32;
        let leave = Ask::Leave(proto::LeaveRequest { reason, ..Default::default() });
        // It would be noticed without it.
        let _ = timeout(PATIENCE, self.socket.send(frame_of(leave))).await;
    }
}

/// Joins, offers a data channel, and takes the answer.
pub async fn join(target: &Target, token: &str) -> Result<Joined, Finding> {
    let broken = |seen: String| {
        Finding::failure(
            CHECK,
            seen,
            "let the proxy in front pass WebSockets on (Upgrade and Connection headers), and see the server's log",
        )
    };
    let request = WrappedJoinRequest { compression: 0, join_request: JoinRequest::default().encode_to_vec() };
    let param = URL_SAFE_NO_PAD.encode(request.encode_to_vec());
    // The token is in the address, as browsers do it, and so in nothing that is printed.
    let scheme = if target.tls { "wss" } else { "ws" };
    let url = format!("{scheme}://{}/rtc/v1?access_token={token}&join_request={param}", target.authority());
    let stream = target.connect().await.map_err(|error| broken(format!("the connection was lost ({error})")))?;
    let upgraded = timeout(PATIENCE, client_async(url, stream)).await;
    let upgraded = upgraded.map_err(|_| broken("the WebSocket is not answered".into()))?;
    let (mut socket, _) =
        upgraded.map_err(|error| refused(&error).unwrap_or_else(|| broken("the WebSocket is refused".into())))?;
    let offer =
        Ask::Offer(proto::SessionDescription { r#type: "offer".into(), sdp: offer(), id: 1, ..Default::default() });
    let exchange = async {
        let mut joined: Option<proto::JoinResponse> = None;
        while let Some(frame) = socket.next().await {
            let Frame::Binary(bytes) = frame.ok()? else { continue };
            match SignalResponse::decode(bytes).ok()?.message? {
                Told::Join(join) => {
                    joined = Some(join);
                    socket.send(frame_of(offer.clone())).await.ok()?;
                }
                Told::Answer(answer) => {
                    let join = joined?;
                    let force = join
                        .client_configuration
                        .is_some_and(|c| c.force_relay() == proto::ClientConfigSetting::Enabled);
                    return Some((answer.sdp, join.ice_servers, force));
                }
                _ => {}
            }
        }
        None
    };
    let joined = timeout(PATIENCE, exchange).await.ok().flatten();
    let (answer, ice_servers, force_relay) =
        joined.ok_or_else(|| broken("the WebSocket opens, but the server does not answer an offer".into()))?;
    Ok(Joined { answer, ice_servers, force_relay, socket })
}

fn frame_of(ask: Ask) -> Frame {
    Frame::Binary(SignalRequest { message: Some(ask) }.encode_to_vec().into())
}

/// What a refusal by HTTP status means.
fn refused(error: &tungstenite::Error) -> Option<Finding> {
    let tungstenite::Error::Http(response) = error else { return None };
    let said = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
    let status = response.status().as_u16();
    let advice = match status {
        401 => "use a token of this server: --token, or --config with the server's own keys; check both clocks",
        404 => "let the proxy in front pass /rtc on; with rooms.auto_create off, give --token for a room that is open",
        503 => "the server is full or shutting down: see its log and /readyz",
        _ => "let the proxy in front pass WebSockets on (Upgrade and Connection headers)",
    };
    Some(Finding::failure(CHECK, format!("joining is refused with status {status}: {said}"), advice))
}

/// A data channel and nothing else; no DTLS ever follows.
fn offer() -> String {
    let fingerprint = ["AB"; 32].join(":");
    [
        "v=0",
        "o=- 1 2 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        &format!("a=ice-ufrag:{UFRAG}"),
        &format!("a=ice-pwd:{PASSWORD}"),
        &format!("a=fingerprint:sha-256 {fingerprint}"),
        "a=setup:actpass",
        "a=mid:0",
        "a=sctp-port:5000",
        "",
    ]
    .join("\r\n")
}
