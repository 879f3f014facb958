//! Stories of a room: what its people notice, in virtual time.

mod admin;
mod agents;
mod data;
mod data_tracks;
mod direct;
mod dynacast;
mod forwarding;
mod hooks;
mod limits;
mod media;
mod membership;
mod moving;
mod opening;
mod placement;
mod spread;
mod wire_traps;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message as _;
use proto::{
    AddTrackRequest, DataPacket, JoinRequest, ParticipantInfo, SignalRequest, data_packet::Value,
    leave_request::Action, participant_info::State, request_response::Reason, signal_request::Message as Ask,
    signal_response::Message as Response,
};

use super::{
    AgentEvent, AgentOptions, Config, LinkId, Now, RoomError, ToPeer,
    room::{Output, Room},
};
use crate::{
    auth::{Claims, Grants},
    id::{Identity, ParticipantSid, RoomSid, TrackSid},
    sfu::{Command, Connections, DataChannel, EventKind, View},
    telemetry::Metrics,
};

struct Story {
    room: Room,
    now: Now,
    links: u64,
    metrics: Arc<Metrics>,
}

/// Somebody with a socket.
#[derive(Clone)]
struct Client {
    sid: ParticipantSid,
    link: LinkId,
}

/// All that came out of the room since the last look.
struct Seen(Vec<Output>);

fn claims(identity: &str) -> Claims {
    Claims::new(&identity.into(), Grants::participant(&"room".into())).with_name(format!("{identity}'s name"))
}

fn microphone(cid: &str) -> AddTrackRequest {
    AddTrackRequest {
        cid: cid.into(),
        r#type: proto::TrackType::Audio as i32,
        source: proto::TrackSource::Microphone as i32,
        ..Default::default()
    }
}

fn camera(cid: &str) -> AddTrackRequest {
    AddTrackRequest {
        cid: cid.into(),
        r#type: proto::TrackType::Video as i32,
        source: proto::TrackSource::Camera as i32,
        width: 640,
        height: 360,
        ..Default::default()
    }
}

fn user_packet(text: &str, sequence: u32) -> DataPacket {
    let user = proto::UserPacket { payload: text.into(), ..Default::default() };
    DataPacket { sequence, value: Some(Value::User(user)), ..Default::default() }
}

impl Story {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let metrics = Arc::new(Metrics::new());
        let now = Now { at: Instant::now(), unix_ms: 1_800_000_000_000 };
        let room = Room::new("room".into(), RoomSid::random(), config, metrics.clone(), now);
        Self { room, now, links: 0, metrics }
    }

    fn link(&mut self) -> LinkId {
        self.links += 1;
        LinkId(self.links)
    }

    fn join_with(&mut self, claims: Claims, request: JoinRequest) -> Result<Client, RoomError> {
        self.join_by(Connections::One, claims, request)
    }

    fn join_by(&mut self, by: Connections, claims: Claims, request: JoinRequest) -> Result<Client, RoomError> {
        let link = self.link();
        let sid = self.room.join(self.now, link, claims, request, by)?;
        Ok(Client { sid, link })
    }

    fn join(&mut self, identity: &str) -> Client {
        self.join_with(claims(identity), JoinRequest::default()).expect("may join")
    }

    /// Joins and connects, and forgets what was said on the way.
    fn enter(&mut self, identity: &str) -> Client {
        let client = self.join(identity);
        self.event(&client, EventKind::Connected);
        self.event(&client, EventKind::DataChannelOpen { channel: DataChannel::Reliable });
        self.look();
        client
    }

    fn resume(&mut self, client: &Client, identity: &str) -> Client {
        let link = self.link();
        let request =
            JoinRequest { reconnect: true, participant_sid: client.sid.as_str().into(), ..Default::default() };
        self.room.resume(self.now, link, claims(identity), request);
        Client { sid: client.sid.clone(), link }
    }

    fn ask(&mut self, client: &Client, ask: Ask) {
        self.room.handle_request(self.now, client.link, SignalRequest { message: Some(ask) });
        self.room.settle(self.now);
    }

    fn event(&mut self, client: &Client, kind: EventKind) {
        self.room.handle_event(self.now, &client.sid, kind);
    }

    fn hang_up(&mut self, client: &Client) {
        self.room.handle_link_closed(self.now, client.link);
    }

    /// Publishes a track whose media is there at once; returns its id.
    fn publish(&mut self, client: &Client, request: AddTrackRequest) -> TrackSid {
        self.ask(client, Ask::AddTrack(request));
        let seen = self.look();
        let published = seen.to(client).into_iter().find_map(|message| match message {
            Response::TrackPublished(published) => Some(published),
            _ => None,
        });
        let published = published.expect("the track is published");
        let track = TrackSid::from(published.track.as_ref().unwrap().sid.as_str());
        self.event(client, EventKind::TrackLive { track: track.clone(), mid: "0".into() });
        track
    }

    fn send(&mut self, client: &Client, channel: DataChannel, packet: &DataPacket) {
        self.event(client, EventKind::Data { channel, payload: Bytes::from(packet.encode_to_vec()) });
    }

    fn agent(&mut self) -> (ParticipantSid, TrackSid) {
        let options = AgentOptions { identity: "viva".into(), name: "Viva".into(), attributes: HashMap::new() };
        self.room.join_agent(self.now, options).expect("may join")
    }

    /// Lets time pass, waking the room whenever it wants.
    fn wait(&mut self, duration: Duration) {
        let end = self.now.at + duration;
        self.room.settle(self.now);
        while let Some(at) = self.room.poll_timeout().filter(|at| *at <= end) {
            if self.room.is_closed() {
                break;
            }
            self.now.at = self.now.at.max(at);
            self.room.handle_timeout(self.now);
            self.room.settle(self.now);
        }
        self.now.at = end;
    }

    fn look(&mut self) -> Seen {
        self.room.settle(self.now);
        Seen(std::iter::from_fn(|| self.room.poll_output()).collect())
    }
}

impl Seen {
    fn to(&self, client: &Client) -> Vec<&Response> {
        self.0
            .iter()
            .filter_map(|output| match output {
                Output::Signal { link, message: ToPeer::Message(message) } if *link == client.link => Some(&**message),
                _ => None,
            })
            .collect()
    }

    fn first(&self, client: &Client) -> Option<&Response> {
        self.to(client).first().copied()
    }

    fn updates(&self, client: &Client) -> Vec<&ParticipantInfo> {
        let updates = self.to(client).into_iter().filter_map(|message| match message {
            Response::Update(update) => Some(&update.participants),
            _ => None,
        });
        updates.flatten().collect()
    }

    fn leave(&self, client: &Client) -> Option<(proto::DisconnectReason, Action)> {
        self.to(client).into_iter().find_map(|message| match message {
            Response::Leave(leave) => Some((leave.reason(), leave.action())),
            _ => None,
        })
    }

    fn responses(&self, client: &Client) -> Vec<&proto::RequestResponse> {
        let messages = self.to(client).into_iter();
        messages.filter_map(|message| if let Response::RequestResponse(r) = message { Some(r) } else { None }).collect()
    }

    fn hangs_up(&self, client: &Client) -> bool {
        self.0.iter().any(|output| matches!(output, Output::CloseLink(link) if *link == client.link))
    }

    fn tokens(&self, client: &Client) -> usize {
        let token = |o: &&Output| matches!(o, Output::Signal { link, message: ToPeer::RefreshToken(_) } if *link == client.link);
        self.0.iter().filter(token).count()
    }

    fn media(&self) -> impl Iterator<Item = &Command> {
        self.0.iter().filter_map(|output| match output {
            Output::Media(command) => Some(command),
            _ => None,
        })
    }

    /// Subscriptions changed: who, what, whether.
    fn subscriptions(&self) -> Vec<(ParticipantSid, TrackSid, bool)> {
        self.media()
            .filter_map(|command| match command {
                Command::Subscribe { subscriber, track, subscribed, .. } => {
                    Some((subscriber.clone(), track.clone(), *subscribed))
                }
                _ => None,
            })
            .collect()
    }

    fn data(&self) -> Vec<(Vec<ParticipantSid>, DataPacket)> {
        self.media()
            .filter_map(|command| match command {
                Command::SendData { to, payload, .. } => {
                    Some((to.clone(), DataPacket::decode(payload.clone()).unwrap()))
                }
                _ => None,
            })
            .collect()
    }

    fn taps(&self) -> (usize, usize) {
        let opened = self.media().filter(|c| matches!(c, Command::OpenTap { .. })).count();
        let closed = self.media().filter(|c| matches!(c, Command::CloseTap { .. })).count();
        (opened, closed)
    }

    fn agent_events(&self) -> Vec<&'static str> {
        self.0
            .iter()
            .filter_map(|output| match output {
                Output::Agent { event, .. } => Some(match event {
                    AgentEvent::Joined(_) => "joined",
                    AgentEvent::Active { .. } => "active",
                    AgentEvent::AttributesChanged(_) => "attributes",
                    AgentEvent::Left { .. } => "left",
                    AgentEvent::TapOpened { .. } => "tap opened",
                    AgentEvent::TapClosed { .. } => "tap closed",
                    AgentEvent::Muted { .. } => "muted",
                    AgentEvent::Data { .. } => "data",
                    AgentEvent::Injected { .. } => "injected",
                    AgentEvent::RoomClosed => "closed",
                }),
                _ => None,
            })
            .collect()
    }
}
