//! LiveKit's signalling from the client's side (`/rtc/v1`): one task per bot, a few messages in its life.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::{SinkExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header, encode};
use livekit_protocol as proto;
use prost::Message as _;
use proto::{
    SignalRequest, SignalResponse, WrappedJoinRequest, signal_request::Message as Ask, signal_response::Message as Told,
};
use serde::Serialize;
use tokio::{net::TcpStream, sync::mpsc, time};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message as Frame},
};

use crate::bot::{BotEvent, BotSpec, Kind};

/// Longer than a server that can be measured at all takes to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// It does so to those who speak on the socket and are silent by UDP, too, so that they look for another path.
const CLOSED: &str = "the server closed the signalling socket: it ended, or the bot had no time to answer by UDP (is the \
                      machine too busy for so many bots?)";
const PING_EVERY: Duration = Duration::from_secs(5);
const TOKEN_SECS: u64 = 6 * 3_600;

/// Where bots join, and whose tokens they bring.
#[derive(Clone, Debug)]
pub struct Place {
    /// Host and port.
    pub authority: String,
    pub api_key: String,
    pub api_secret: String,
}

/// What a bot wants said.
#[derive(Debug)]
pub enum Say {
    Offer { id: u32, sdp: String },
    MuteAudio(bool),
    Leave,
}

/// What the server says to it.
#[derive(Debug)]
pub enum Heard {
    /// It may offer.
    Joined,
    Answer {
        id: u32,
        sdp: String,
    },
    /// It wants so many more sections, or to be offered the idle ones again.
    Sections {
        audios: usize,
        videos: usize,
    },
    /// Everybody knows that the bot's microphone is open.
    MicrophoneOpen,
}

type Socket = WebSocketStream<TcpStream>;

/// Joins and stays until the bot leaves. What goes wrong is told as an event.
pub async fn run(
    place: Place,
    spec: BotSpec,
    said: mpsc::UnboundedReceiver<Say>,
    tell: impl Fn(Heard),
    events: mpsc::UnboundedSender<BotEvent>,
) {
    if let Err(error) = converse(&place, &spec, said, tell).await {
        // Nobody waits for it any more where the receiver is gone.
        let _ = events.send(BotEvent::Failed { bot: spec.id, why: format!("{error:#}") });
    }
}

async fn converse(
    place: &Place,
    spec: &BotSpec,
    mut said: mpsc::UnboundedReceiver<Say>,
    tell: impl Fn(Heard),
) -> Result<()> {
    let mut socket =
        time::timeout(PATIENCE, connect(place, spec)).await.context("the server does not answer a join")??;
    let mut microphone = None;
    let mut pings = time::interval(PING_EVERY);
    loop {
        let ask = tokio::select! {
            say = said.recv() => match say {
                Some(Say::Offer { id, sdp }) => {
                    Ask::Offer(proto::SessionDescription { r#type: "offer".into(), sdp, id, ..Default::default() })
                }
                Some(Say::MuteAudio(muted)) => match microphone.clone() {
                    Some(sid) => Ask::Mute(proto::MuteTrackRequest { sid, muted }),
                    None => continue,
                },
                Some(Say::Leave) | None => {
                    let reason = proto::DisconnectReason::ClientInitiated as i32;
                    let leave = Ask::Leave(proto::LeaveRequest { reason, ..Default::default() });
                    // The server may have closed it; then it knows.
                    let _ = socket.send(frame(leave)).await;
                    let _ = socket.close(None).await;
                    return Ok(());
                }
            },
            _ = pings.tick() => Ask::PingReq(proto::Ping::default()),
            frame = socket.next() => {
                let frame = frame.context(CLOSED)?;
                let Frame::Binary(bytes) = frame.context("the signalling socket broke")? else { continue };
                let told = SignalResponse::decode(bytes).context("the server sent what is no message")?;
                match told.message {
                    Some(Told::Join(_)) => tell(Heard::Joined),
                    Some(Told::Answer(answer)) => tell(Heard::Answer { id: answer.id, sdp: answer.sdp }),
                    Some(Told::MediaSectionsRequirement(more)) => {
                        let (audios, videos) = (more.num_audios as usize, more.num_videos as usize);
                        tell(Heard::Sections { audios, videos });
                    }
                    Some(Told::TrackPublished(published)) => {
                        let sid = published.track.map(|track| track.sid);
                        microphone = if published.cid == spec.cid(Kind::Audio) { sid } else { microphone };
                    }
                    Some(Told::Update(update)) => {
                        let mut tracks = update.participants.iter().flat_map(|participant| &participant.tracks);
                        let open = tracks.any(|track| Some(&track.sid) == microphone.as_ref() && !track.muted);
                        if open {
                            tell(Heard::MicrophoneOpen);
                        }
                    }
                    Some(Told::Leave(leave)) => bail!("the server put the bot out ({:?})", leave.reason()),
                    Some(Told::RequestResponse(response)) if response.reason != 0 => {
                        bail!("the server refused a request: {:?} {}", response.reason(), response.message)
                    }
                    _ => {}
                }
                continue;
            }
        };
        socket.send(frame(ask)).await.context("the signalling socket broke")?;
    }
}

async fn connect(place: &Place, spec: &BotSpec) -> Result<Socket> {
    let settings = proto::ConnectionSettings { auto_subscribe: spec.receives, ..Default::default() };
    let request = proto::JoinRequest {
        connection_settings: Some(settings),
        add_track_requests: announcements(spec),
        ..Default::default()
    };
    let request = WrappedJoinRequest { compression: 0, join_request: request.encode_to_vec() };
    let param = URL_SAFE_NO_PAD.encode(request.encode_to_vec());
    let (authority, token) = (&place.authority, token(place, spec)?);
    let url = format!("ws://{authority}/rtc/v1?access_token={token}&join_request={param}");
    let stream = TcpStream::connect(authority).await.with_context(|| format!("nobody answers at {authority}"))?;
    stream.set_nodelay(true)?;
    match client_async(url, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let said = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            bail!("joining is refused with status {}: {said}", response.status().as_u16())
        }
        Err(error) => Err(error).context("the server does not speak WebSocket"),
    }
}

fn announcements(spec: &BotSpec) -> Vec<proto::AddTrackRequest> {
    let Some(media) = &spec.publishes else { return Vec::new() };
    let mut tracks = Vec::new();
    if media.audio_pps > 0.0 {
        tracks.push(proto::AddTrackRequest {
            cid: spec.cid(Kind::Audio),
            name: "microphone".into(),
            r#type: proto::TrackType::Audio as i32,
            source: proto::TrackSource::Microphone as i32,
            ..Default::default()
        });
    }
    if media.video_pps > 0.0 {
        let widths = media.layers().iter().enumerate();
        let layer = |(n, layer): (usize, &crate::media::Layer)| proto::VideoLayer {
            // LOW, MEDIUM, HIGH; one layer alone is the highest.
            quality: if media.layers().len() == 1 { 2 } else { n as i32 },
            width: layer.width.into(),
            height: u32::from(layer.width) / 16 * 9,
            rid: layer.rid.unwrap_or_default().into(),
            ..Default::default()
        };
        let layers: Vec<_> = widths.map(layer).collect();
        let top = layers.last().cloned().unwrap_or_default();
        tracks.push(proto::AddTrackRequest {
            cid: spec.cid(Kind::Video),
            name: "camera".into(),
            r#type: proto::TrackType::Video as i32,
            source: proto::TrackSource::Camera as i32,
            width: top.width,
            height: top.height,
            layers,
            ..Default::default()
        });
    }
    tracks
}

fn frame(ask: Ask) -> Frame {
    Frame::Binary(SignalRequest { message: Some(ask) }.encode_to_vec().into())
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: String,
    nbf: u64,
    exp: u64,
    video: Grants<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Grants<'a> {
    room_join: bool,
    room: &'a str,
}

fn token(place: &Place, spec: &BotSpec) -> Result<String> {
    let now = std::time::UNIX_EPOCH.elapsed().context("the clock is before 1970")?.as_secs();
    let claims = Claims {
        iss: &place.api_key,
        sub: spec.identity(),
        nbf: now.saturating_sub(10),
        exp: now + TOKEN_SECS,
        video: Grants { room_join: true, room: &spec.room },
    };
    encode(&Header::default(), &claims, &EncodingKey::from_secret(place.api_secret.as_bytes()))
        .context("no token could be made")
}
