//! Stories of a room: what its people notice, in virtual time.

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
    leave_request::Action, participant_info::State, signal_request::Message as Ask,
    signal_response::Message as Response,
};

use super::{
    AgentEvent, AgentOptions, Config, LinkId, Now, RoomError, ToPeer,
    room::{Output, Room},
};
use crate::{
    auth::{Claims, Grants},
    id::{ParticipantSid, RoomSid, TrackSid},
    sfu::{Command, DataChannel, EventKind},
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
        let link = self.link();
        let sid = self.room.join(self.now, link, claims, request)?;
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
    }

    fn event(&mut self, client: &Client, kind: EventKind) {
        self.room.handle_event(self.now, &client.sid, kind);
    }

    fn hang_up(&mut self, client: &Client) {
        self.room.handle_link_closed(self.now, client.link);
    }

    /// Publishes a track whose media is there at once; returns its id.
    fn publish(&mut self, client: &Client, request: AddTrackRequest) -> TrackSid {
        let mime_type = if request.r#type == 0 { "audio/opus" } else { "video/VP8" };
        self.ask(client, Ask::AddTrack(request));
        let seen = self.look();
        let published = seen.to(client).into_iter().find_map(|message| match message {
            Response::TrackPublished(published) => Some(published),
            _ => None,
        });
        let published = published.expect("the track is published");
        let track = TrackSid::from(published.track.as_ref().unwrap().sid.as_str());
        self.event(client, EventKind::TrackLive { track: track.clone(), mid: "0".into(), mime_type: mime_type.into() });
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
        while let Some(at) = self.room.poll_timeout().filter(|at| *at <= end) {
            if self.room.is_closed() {
                break;
            }
            self.now.at = self.now.at.max(at);
            self.room.handle_timeout(self.now);
        }
        self.now.at = end;
    }

    fn look(&mut self) -> Seen {
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

#[test]
fn the_first_message_is_the_join_response_and_the_answer_comes_after_it() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let offer = proto::SessionDescription { r#type: "offer".into(), sdp: "v=0".into(), id: 7, ..Default::default() };
    let request = JoinRequest {
        client_info: Some(proto::ClientInfo { client_protocol: 2, capabilities: vec![2], ..Default::default() }),
        publisher_offer: Some(offer),
        ..Default::default()
    };
    let bob = story.join_with(claims("bob"), request).unwrap();
    let answer = EventKind::Answer { offer_id: 7, sdp: "v=0 answer".into(), tracks: vec![] };
    story.event(&bob, answer);
    let seen = story.look();
    let messages = seen.to(&bob);
    let Response::Join(join) = messages[0] else { panic!("{messages:?}") };
    assert!(join.participant.as_ref().unwrap().sid.starts_with("PA_"));
    assert!(join.room.as_ref().unwrap().sid.starts_with("RM_"));
    assert_eq!(join.other_participants.len(), 1);
    assert_eq!(join.server_info.as_ref().unwrap().version, "1.13.5");
    assert_eq!((join.ping_interval, join.ping_timeout, join.subscriber_primary), (5, 15, false));
    let answer = messages.iter().find_map(|m| if let Response::Answer(a) = m { Some(a) } else { None }).unwrap();
    assert_eq!((answer.id, answer.r#type.as_str()), (7, "answer"));
    assert_eq!(seen.tokens(&bob), 1);
    let commands: Vec<_> = seen.media().collect();
    assert!(matches!(commands[0], Command::Join { transport: true, .. }));
    assert!(matches!(commands[1], Command::Offer { offer_id: 7, .. }));
    let told = seen.updates(&ada);
    assert_eq!((told[0].identity.as_str(), told[0].client_protocol, &told[0].capabilities), ("bob", 2, &vec![2]));
}

#[test]
fn candidates_before_the_offer_are_held_until_it_comes() {
    let mut story = Story::new();
    let ada = story.join("ada");
    let trickle = |line: &str| {
        let candidate_init = format!(r#"{{"candidate":"{line}","sdpMid":"0","sdpMLineIndex":0}}"#);
        Ask::Trickle(proto::TrickleRequest { candidate_init, ..Default::default() })
    };
    story.look();
    story.ask(&ada, trickle("candidate:1"));
    story.ask(&ada, trickle(""));
    story.ask(&ada, Ask::Trickle(proto::TrickleRequest { candidate_init: "{".into(), ..Default::default() }));
    assert_eq!(story.look().media().count(), 0);
    story.ask(&ada, Ask::Offer(proto::SessionDescription::default()));
    story.ask(&ada, trickle("candidate:2"));
    let seen = story.look();
    let kinds: Vec<_> = seen
        .media()
        .map(|command| match command {
            Command::Offer { .. } => "offer".to_owned(),
            Command::Trickle { candidate, .. } => candidate.clone(),
            _ => "?".to_owned(),
        })
        .collect();
    assert_eq!(kinds, ["offer", "candidate:1", "candidate:2"]);
}

#[test]
fn a_participant_is_active_once_media_flows_and_is_told_that_its_connection_is_good() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let bob = story.join("bob");
    story.look();
    story.event(&bob, EventKind::Connected);
    let seen = story.look();
    assert_eq!(seen.updates(&ada)[0].state(), State::Active);
    assert_eq!(seen.updates(&bob)[0].state(), State::Active);
    let quality = seen.to(&ada).into_iter().find_map(|m| match m {
        Response::ConnectionQuality(update) => Some(update.updates[0].quality()),
        _ => None,
    });
    assert_eq!(quality, Some(proto::ConnectionQuality::Excellent));
    assert_eq!(story.metrics.join_duration.with_label_values(&["livekit"]).get_sample_count(), 2);
}

#[test]
fn a_track_is_announced_when_its_media_is_there_and_only_then_subscribed() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    story.ask(&ada, Ask::AddTrack(camera("cid-1")));
    let seen = story.look();
    let Some(Response::TrackPublished(published)) = seen.first(&ada) else { panic!() };
    let track = published.track.clone().unwrap();
    assert_eq!((published.cid.as_str(), track.stream.as_str()), ("cid-1", "camera"));
    assert!(track.sid.starts_with("TR_"));
    assert!(seen.to(&bob).is_empty(), "pending tracks are nobody's business");
    let sid = TrackSid::from(track.sid.as_str());
    story.event(&ada, EventKind::TrackLive { track: sid.clone(), mid: "4".into(), mime_type: "video/VP8".into() });
    let seen = story.look();
    assert_eq!(seen.updates(&bob)[0].tracks[0].mid, "4");
    assert_eq!(seen.subscriptions(), [(bob.sid.clone(), sid.clone(), true)]);
    let order = seen.0.iter().position(|o| matches!(o, Output::Signal { link, .. } if *link == bob.link));
    let media = seen.0.iter().position(|o| matches!(o, Output::Media(Command::Subscribe { .. })));
    assert!(order < media, "the announcement goes first");
    // Somebody who comes later finds it in the join response, and gets it.
    let eve = story.join("eve");
    let seen = story.look();
    let Some(Response::Join(join)) = seen.first(&eve) else { panic!() };
    assert_eq!(join.other_participants[0].tracks[0].sid, track.sid);
    assert_eq!(seen.subscriptions(), [(eve.sid.clone(), sid.clone(), true)]);
    // The map of an answer names only tracks that the client has heard of.
    let tracks = vec![("5".to_owned(), sid), ("6".to_owned(), TrackSid::random())];
    story.event(&eve, EventKind::Answer { offer_id: 1, sdp: String::new(), tracks });
    let seen = story.look();
    let Some(Response::Answer(answer)) = seen.first(&eve) else { panic!() };
    assert_eq!(answer.mid_to_track_id, HashMap::from([("5".to_owned(), track.sid)]));
}

#[test]
fn a_track_that_the_client_takes_back_is_gone_for_all() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let track = story.publish(&ada, camera("cid"));
    story.look();
    story.event(&ada, EventKind::TrackEnded { track });
    let seen = story.look();
    assert!(seen.updates(&bob)[0].tracks.is_empty());
    assert_eq!(story.metrics.tracks.with_label_values(&["video"]).get(), 0);
}

#[test]
fn publishing_needs_the_right_source_and_room_for_it() {
    let mut story = Story::new();
    let mut only_voice = claims("ada");
    only_voice.grants.can_publish_sources = vec!["microphone".into()];
    let ada = story.join_with(only_voice, JoinRequest::default()).unwrap();
    let refusal = |story: &mut Story, request| {
        story.look();
        story.ask(&ada, Ask::AddTrack(request));
        match story.look().first(&ada) {
            Some(Response::RequestResponse(response)) => Some(response.reason()),
            _ => None,
        }
    };
    use proto::request_response::Reason;
    assert_eq!(refusal(&mut story, camera("c")), Some(Reason::NotAllowed));
    assert_eq!(
        refusal(&mut story, AddTrackRequest { sid: "TR_x".into(), ..microphone("c") }),
        Some(Reason::UnsupportedType)
    );
    assert_eq!(refusal(&mut story, microphone("")), Some(Reason::LimitExceeded));
    for i in 0..20 {
        assert_eq!(refusal(&mut story, microphone(&format!("c{i}"))), None);
    }
    assert_eq!(refusal(&mut story, microphone("c20")), Some(Reason::LimitExceeded));
    assert_eq!(refusal(&mut story, microphone("c3")), None, "a repeated request gets its answer again");
}

#[test]
fn mute_is_told_at_once_to_everyone_and_the_media_worker() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let track = story.publish(&ada, microphone("cid"));
    story.look();
    let mute = |muted| Ask::Mute(proto::MuteTrackRequest { sid: track.as_str().into(), muted });
    story.ask(&ada, mute(true));
    let seen = story.look();
    assert!(seen.updates(&bob)[0].tracks[0].muted && seen.updates(&ada)[0].tracks[0].muted);
    assert!(seen.media().any(|c| matches!(c, Command::Mute { muted: true, .. })));
    story.ask(&ada, mute(true));
    assert!(story.look().0.is_empty(), "nothing changed, nothing is said");
}

#[test]
fn versions_only_grow() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let track = story.publish(&ada, microphone("cid"));
    for muted in [true, false, true] {
        story.ask(&ada, Ask::Mute(proto::MuteTrackRequest { sid: track.as_str().into(), muted }));
    }
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    let seen = story.look();
    let versions: Vec<_> = seen.updates(&bob).iter().map(|info| info.version).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

#[test]
fn a_second_join_with_the_same_identity_ends_the_first() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let again = story.join("ada");
    let seen = story.look();
    assert_eq!(seen.leave(&ada), Some((proto::DisconnectReason::DuplicateIdentity, Action::Disconnect)));
    assert!(seen.hangs_up(&ada));
    let states: Vec<_> = seen.updates(&bob).iter().map(|info| (info.sid.clone(), info.state())).collect();
    assert_eq!(states[0], (ada.sid.as_str().to_owned(), State::Disconnected));
    assert_eq!(states[1], (again.sid.as_str().to_owned(), State::Joined));
    assert_eq!(story.metrics.participants.with_label_values(&["standard"]).get(), 2);
}

#[test]
fn nobody_learns_of_a_hidden_participant() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let mut hidden = claims("ghost");
    hidden.grants.hidden = true;
    let ghost = story.join_with(hidden, JoinRequest::default()).unwrap();
    story.event(&ghost, EventKind::Connected);
    let track = story.publish(&ghost, microphone("cid"));
    story.event(&ghost, EventKind::Speaker { level: 0.5, active: true });
    let bob = story.join("bob");
    let seen = story.look();
    assert!(seen.updates(&ada).iter().all(|info| info.identity != "ghost"));
    let Some(Response::Join(join)) = seen.first(&bob) else { panic!() };
    assert!(join.other_participants.iter().all(|info| info.identity != "ghost"));
    assert_eq!(join.room.as_ref().unwrap().num_participants, 2);
    assert!(seen.subscriptions().iter().all(|(_, sid, _)| *sid != track));
    let again = story.resume(&ada, "ada");
    story.ask(&ghost, Ask::Leave(proto::LeaveRequest::default()));
    let seen = story.look();
    assert!(seen.updates(&again).iter().all(|info| info.identity != "ghost"));
}

#[test]
fn a_lost_socket_is_resumed_and_finds_everything() {
    let mut story = Story::new();
    let (ada, bob, eve) = (story.enter("ada"), story.enter("bob"), story.enter("eve"));
    story.publish(&bob, microphone("cid"));
    story.look();
    story.hang_up(&ada);
    story.ask(&eve, Ask::Leave(proto::LeaveRequest::default()));
    let seen = story.look();
    assert!(seen.updates(&bob).iter().all(|info| info.identity == "eve"), "nobody hears of a lost socket");
    let back = story.resume(&ada, "ada");
    let seen = story.look();
    let messages = seen.to(&back);
    assert!(matches!(messages[0], Response::Reconnect(_)), "{messages:?}");
    let Response::Update(update) = messages[1] else { panic!("{messages:?}") };
    let people: Vec<_> = update.participants.iter().map(|p| (p.identity.as_str(), p.state(), p.tracks.len())).collect();
    assert_eq!(people, [("eve", State::Disconnected, 0), ("ada", State::Active, 0), ("bob", State::Active, 1)]);
    assert!(matches!(messages[2], Response::RoomUpdate(_)));
    assert_eq!(seen.tokens(&back), 1);
    // What it still believes of its own tracks is wrong: it must start anew.
    let published = proto::TrackPublishedResponse {
        cid: "x".into(),
        track: Some(proto::TrackInfo { sid: "TR_unknown".into(), ..Default::default() }),
    };
    story.ask(&back, Ask::SyncState(proto::SyncState { publish_tracks: vec![published], ..Default::default() }));
    let seen = story.look();
    assert_eq!(seen.leave(&back), Some((proto::DisconnectReason::StateMismatch, Action::Reconnect)));
}

#[test]
fn a_second_socket_of_the_same_participant_replaces_the_first() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let back = story.resume(&ada, "ada");
    let seen = story.look();
    assert!(seen.hangs_up(&ada));
    story.hang_up(&ada);
    story.ask(&back, Ask::Ping(1));
    assert!(matches!(story.look().first(&back), Some(Response::Pong(1_800_000_000_000))));
}

#[test]
fn whoever_is_not_known_any_more_must_start_anew() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    for (sid, identity) in [("PA_unknown", "ada"), (ada.sid.as_str(), "mallory")] {
        let stranger = Client { sid: sid.into(), link: ada.link };
        let back = story.resume(&stranger, identity);
        let seen = story.look();
        assert_eq!(seen.to(&back).len(), 1, "the leave is the first message and the last");
        assert_eq!(seen.leave(&back), Some((proto::DisconnectReason::StateMismatch, Action::Reconnect)));
        assert!(seen.hangs_up(&back));
    }
    assert!(story.room.get(&ada.sid).is_some());
}

#[test]
fn who_never_connects_is_removed() {
    let mut story = Story::new();
    let (ada, bob) = (story.join("ada"), story.join("bob"));
    story.look();
    story.hang_up(&ada);
    assert!(story.room.get(&ada.sid).is_none(), "without media there is nothing to come back to");
    story.wait(Duration::from_secs(59));
    assert!(story.room.get(&bob.sid).is_some());
    story.wait(Duration::from_secs(2));
    let seen = story.look();
    assert_eq!(seen.leave(&bob), Some((proto::DisconnectReason::ConnectionTimeout, Action::Disconnect)));
    assert_eq!(story.metrics.participant_joins.with_label_values(&["livekit", "failed"]).get(), 2);
}

#[test]
fn media_that_is_lost_is_waited_for_then_the_participant_goes() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    story.event(&ada, EventKind::Disconnected);
    story.wait(Duration::from_secs(6));
    let seen = story.look();
    assert_eq!(seen.leave(&ada).map(|l| l.1), Some(Action::Resume), "its client may not have noticed");
    // It comes back in time.
    let ada = story.resume(&ada, "ada");
    story.event(&ada, EventKind::Connected);
    story.wait(Duration::from_secs(60));
    assert!(story.room.get(&ada.sid).is_some());
    // Without media and without a socket it does not.
    story.hang_up(&ada);
    story.wait(Duration::from_secs(600));
    assert!(story.room.get(&ada.sid).is_some(), "media flows: only the socket is missing");
    story.event(&ada, EventKind::Disconnected);
    story.look();
    story.wait(Duration::from_secs(19));
    assert!(story.room.get(&ada.sid).is_some());
    story.wait(Duration::from_secs(2));
    assert_eq!(story.look().updates(&bob)[0].state(), State::Disconnected);
}

#[test]
fn a_room_closes_when_nobody_comes_and_when_all_have_left() {
    let mut story = Story::new();
    story.wait(Duration::from_secs(299));
    assert!(!story.room.is_closed());
    let ada = story.enter("ada");
    story.wait(Duration::from_secs(3600));
    assert!(!story.room.is_closed());
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    story.wait(Duration::from_secs(19));
    assert!(!story.room.is_closed());
    story.wait(Duration::from_secs(1));
    assert!(story.room.is_closed());
    assert_eq!(story.metrics.rooms.get(), 0);
    assert_eq!(
        story.join_with(claims("bob"), JoinRequest::default()).err(),
        Some(RoomError::Closed),
        "a closed room stays closed"
    );
}

#[test]
fn a_full_room_refuses_but_lets_a_member_replace_itself() {
    let mut story = Story::with(Config { max_participants_per_room: 2, ..Config::default() });
    story.enter("ada");
    story.enter("bob");
    assert_eq!(story.join_with(claims("eve"), JoinRequest::default()).err(), Some(RoomError::RoomFull));
    assert!(story.join_with(claims("ada"), JoinRequest::default()).is_ok());
}

#[test]
fn a_shutdown_tells_everyone_to_start_anew() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.agent();
    story.look();
    story.room.close(story.now, proto::DisconnectReason::ServerShutdown, Action::Reconnect);
    let seen = story.look();
    assert_eq!(seen.leave(&ada), Some((proto::DisconnectReason::ServerShutdown, Action::Reconnect)));
    assert!(seen.hangs_up(&ada));
    assert!(seen.agent_events().contains(&"closed"));
}

#[test]
fn tokens_are_refreshed_after_joining_and_every_five_minutes_with_what_changed() {
    let mut story = Story::new();
    let ada = story.join("ada");
    story.event(&ada, EventKind::Connected);
    assert_eq!(story.look().tokens(&ada), 1);
    let update = proto::UpdateParticipantMetadata { name: "Ada L.".into(), ..Default::default() };
    story.ask(&ada, Ask::UpdateMetadata(update));
    story.look();
    story.wait(Duration::from_secs(601));
    let seen = story.look();
    assert_eq!(seen.tokens(&ada), 2);
    let renamed = seen
        .0
        .iter()
        .any(|o| matches!(o, Output::Signal { message: ToPeer::RefreshToken(claims), .. } if claims.name == "Ada L."));
    assert!(renamed);
}

#[test]
fn metadata_changes_are_granted_told_to_all_and_never_touch_what_the_server_sets() {
    use proto::request_response::Reason;
    let mut story = Story::new();
    let mut own = claims("ada").with_attribute("viva.role", "interviewer");
    own.grants.can_update_own_metadata = Some(true);
    let info = proto::ClientInfo { protocol: 17, ..Default::default() };
    let ada = story.join_with(own, JoinRequest { client_info: Some(info), ..Default::default() }).unwrap();
    let bob = story.enter("bob");
    let change = |story: &mut Story, key: &str, value: &str| {
        story.look();
        let attributes = HashMap::from([(key.to_owned(), value.to_owned())]);
        let update = proto::UpdateParticipantMetadata { attributes, request_id: 9, ..Default::default() };
        story.ask(&ada, Ask::UpdateMetadata(update));
        let seen = story.look();
        let reason = seen.to(&ada).into_iter().find_map(|m| match m {
            Response::RequestResponse(r) if r.request_id == 9 => Some(r.reason()),
            _ => None,
        });
        let told = seen.updates(&bob).first().map(|info| info.attributes.get(key).cloned().unwrap_or_default());
        assert_eq!(told.is_some(), !seen.updates(&ada).is_empty(), "the sender hears of it like all others");
        (reason, told)
    };
    assert_eq!(change(&mut story, "hand", "up"), (Some(Reason::Ok), Some("up".into())));
    assert_eq!(change(&mut story, "hand", ""), (Some(Reason::Ok), Some(String::new())));
    assert_eq!(change(&mut story, "viva.role", "interviewee"), (Some(Reason::NotAllowed), None));
    assert_eq!(change(&mut story, "viva.role", "interviewer").0, Some(Reason::Ok), "no change is no offence");
    assert_eq!(change(&mut story, "big", &"x".repeat(70_000)), (Some(Reason::LimitExceeded), None));
}

#[test]
fn subscriptions_follow_wishes_permissions_and_settings() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let track = story.publish(&ada, camera("cid"));
    let settings = proto::ConnectionSettings { auto_subscribe: false, ..Default::default() };
    let request = JoinRequest { connection_settings: Some(settings), ..Default::default() };
    let eve = story.join_with(claims("eve"), request).unwrap();
    assert_eq!(
        story.look().subscriptions(),
        [(bob.sid.clone(), track.clone(), true)],
        "eve takes only what she asks for"
    );
    let wish = |subscribe| {
        let track_sids = vec![track.as_str().to_owned()];
        Ask::Subscription(proto::UpdateSubscription { track_sids, subscribe, ..Default::default() })
    };
    story.ask(&eve, wish(true));
    assert_eq!(story.look().subscriptions(), [(eve.sid.clone(), track.clone(), true)]);
    story.ask(&bob, wish(false));
    assert_eq!(story.look().subscriptions(), [(bob.sid.clone(), track.clone(), false)]);
    story.ask(&bob, wish(true));
    story.look();
    let settings =
        proto::UpdateTrackSettings { track_sids: vec![track.as_str().into()], disabled: true, ..Default::default() };
    story.ask(&bob, Ask::TrackSetting(settings));
    assert!(story.look().media().any(|c| matches!(c, Command::Pause { paused: true, .. })));
    // Ada lets only bob see her.
    let permission = proto::TrackPermission {
        participant_identity: "bob".into(),
        track_sids: vec![track.as_str().into()],
        ..Default::default()
    };
    let only_bob = proto::SubscriptionPermission { all_participants: false, track_permissions: vec![permission] };
    story.ask(&ada, Ask::SubscriptionPermission(only_bob));
    let seen = story.look();
    assert_eq!(seen.subscriptions(), [(eve.sid.clone(), track.clone(), false)]);
    let Some(Response::SubscriptionPermissionUpdate(update)) = seen.first(&eve) else { panic!() };
    assert!(!update.allowed);
    story.ask(&eve, wish(true));
    assert!(story.look().subscriptions().is_empty(), "to ask again does not help");
    let all = proto::SubscriptionPermission { all_participants: true, ..Default::default() };
    story.ask(&ada, Ask::SubscriptionPermission(all));
    assert_eq!(story.look().subscriptions(), [(eve.sid.clone(), track, true)]);
}

#[test]
fn a_token_without_can_subscribe_gets_nothing() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let mut deaf = claims("bob");
    deaf.grants.can_subscribe = Some(false);
    story.join_with(deaf, JoinRequest::default()).unwrap();
    story.look();
    story.publish(&ada, microphone("cid"));
    assert!(story.look().subscriptions().is_empty());
}

#[test]
fn data_is_stamped_routed_and_taken_once() {
    let mut story = Story::new();
    let (ada, bob, eve) = (story.enter("ada"), story.enter("bob"), story.enter("eve"));
    let mut lie = user_packet("hello", 1);
    lie.participant_identity = "eve".into();
    lie.participant_sid = eve.sid.as_str().into();
    story.send(&ada, DataChannel::Reliable, &lie);
    let seen = story.look();
    let (to, packet) = &seen.data()[0];
    assert_eq!(to, &[bob.sid.clone(), eve.sid.clone()]);
    assert_eq!((packet.participant_identity.as_str(), packet.participant_sid.as_str()), ("ada", ada.sid.as_str()));
    assert_eq!(packet.sequence, 1, "receivers tell doubles by it");
    story.send(&ada, DataChannel::Reliable, &user_packet("hello again", 1));
    assert!(story.look().data().is_empty());
    let mut secret = user_packet("psst", 2);
    secret.destination_identities = vec!["eve".into()];
    story.send(&ada, DataChannel::Reliable, &secret);
    assert_eq!(story.look().data()[0].0, [eve.sid.clone()]);
    story.send(&ada, DataChannel::Lossy, &user_packet("lossy", 0));
    story.send(&ada, DataChannel::Lossy, &user_packet("lossy", 0));
    assert_eq!(story.look().data().len(), 2);
    story.event(&ada, EventKind::Data { channel: DataChannel::Lossy, payload: Bytes::from_static(b"\xff\xff") });
    let speakers = Value::Transcription(proto::Transcription::default());
    story.send(&ada, DataChannel::Lossy, &DataPacket { value: Some(speakers), ..Default::default() });
    assert!(story.look().data().is_empty(), "nonsense, and what only agents may send, goes nowhere");
    let mut mute = claims("mute");
    mute.grants.can_publish_data = Some(false);
    let mute = story.join_with(mute, JoinRequest::default()).unwrap();
    story.look();
    story.send(&mute, DataChannel::Reliable, &user_packet("x", 1));
    assert!(story.look().data().is_empty());
}

#[test]
fn a_user_packet_sent_twice_with_one_nonce_arrives_once() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.enter("bob");
    let user = proto::UserPacket { nonce: vec![1, 2, 3], ..Default::default() };
    let packet = DataPacket { value: Some(Value::User(user)), ..Default::default() };
    story.send(&ada, DataChannel::Lossy, &packet);
    story.send(&ada, DataChannel::Lossy, &packet);
    assert_eq!(story.look().data().len(), 1);
}

#[test]
fn reliable_data_reaches_those_who_are_about_to_connect_and_those_who_resume() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.send(&ada, DataChannel::Reliable, &user_packet("before", 1));
    story.now.at += Duration::from_millis(10);
    let bob = story.join("bob");
    story.send(&ada, DataChannel::Reliable, &user_packet("while joining", 2));
    assert_eq!(story.look().data().len(), 0);
    story.event(&bob, EventKind::DataChannelOpen { channel: DataChannel::Reliable });
    let seen = story.look();
    let sequences: Vec<_> = seen.data().iter().map(|(_, packet)| packet.sequence).collect();
    assert_eq!(sequences, [2]);
    story.event(&bob, EventKind::Connected);
    story.send(&ada, DataChannel::Reliable, &user_packet("lost on the way", 3));
    story.hang_up(&bob);
    let bob = story.resume(&bob, "bob");
    story.look();
    let state = proto::DataChannelReceiveState { publisher_sid: ada.sid.as_str().into(), last_seq: 2 };
    story.ask(&bob, Ask::SyncState(proto::SyncState { datachannel_receive_states: vec![state], ..Default::default() }));
    let seen = story.look();
    let sequences: Vec<_> = seen.data().iter().map(|(_, packet)| packet.sequence).collect();
    assert_eq!(sequences, [3]);
}

#[test]
fn the_agent_is_a_participant_that_speaks_for_itself_and_for_others() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let (agent, voice) = story.agent();
    let seen = story.look();
    let info = seen.updates(&ada)[0];
    assert_eq!((info.kind(), info.state()), (proto::participant_info::Kind::Agent, State::Active));
    assert_eq!(info.tracks[0].source(), proto::TrackSource::Microphone);
    assert_eq!(seen.subscriptions(), [(ada.sid.clone(), voice, true)]);
    assert_eq!(seen.agent_events(), ["joined", "active"]);
    for (on_behalf, wanted) in [("", "viva"), ("ada", "ada")] {
        let header = Value::StreamHeader(proto::data_stream::Header::default());
        let packet = DataPacket { participant_identity: on_behalf.into(), value: Some(header), ..Default::default() };
        story.room.data_from_agent(story.now, &agent, packet);
        let seen = story.look();
        let (to, packet) = &seen.data()[0];
        assert_eq!(to, &[ada.sid.clone()]);
        assert_eq!(packet.participant_identity, wanted);
        assert_eq!(packet.participant_sid, agent.as_str());
        assert!(packet.sequence > 0);
    }
    story.send(&ada, DataChannel::Reliable, &user_packet("hello", 1));
    assert_eq!(story.look().agent_events(), ["data"]);
    let attributes = |state: &str| HashMap::from([("lk.agent.state".to_owned(), state.to_owned())]);
    story.room.agent_attributes(&agent, attributes("speaking"));
    let seen = story.look();
    assert_eq!(seen.updates(&ada)[0].attributes["lk.agent.state"], "speaking");
    let Some(Response::SpeakersChanged(speakers)) = seen.to(&ada).pop() else { panic!() };
    assert!(speakers.speakers[0].active);
    assert_eq!(
        story.join_with(claims("viva"), JoinRequest::default()).err(),
        Some(RoomError::IdentityTaken),
        "nobody takes the interviewer's place"
    );
}

#[test]
fn a_tap_is_open_only_while_it_is_allowed() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let bob = story.enter("bob");
    story.publish(&ada, microphone("mic"));
    story.publish(&ada, camera("cam"));
    let screen = AddTrackRequest { source: proto::TrackSource::ScreenShareAudio as i32, ..microphone("screen") };
    story.publish(&ada, screen);
    story.publish(&bob, microphone("mic"));
    story.agent();
    assert_eq!(story.look().taps(), (0, 0), "not without consent");
    story.room.allow_tap(&"ada".into(), true);
    let seen = story.look();
    assert_eq!(seen.taps(), (1, 0), "the microphone, and nothing else of hers");
    assert_eq!(seen.agent_events(), ["tap opened"]);
    story.room.allow_tap(&"ada".into(), true);
    assert_eq!(story.look().taps(), (0, 0));
    story.room.allow_tap(&"ada".into(), false);
    let seen = story.look();
    assert_eq!(seen.taps(), (0, 1));
    assert_eq!(seen.agent_events(), ["tap closed"]);
}

#[test]
fn consent_that_came_first_opens_the_tap_as_soon_as_there_is_a_microphone() {
    let mut story = Story::new();
    story.room.allow_tap(&"ada".into(), true);
    let (agent, _) = story.agent();
    let ada = story.enter("ada");
    story.look();
    let track = story.publish(&ada, microphone("mic"));
    assert_eq!(story.look().taps(), (1, 0));
    story.event(&ada, EventKind::TrackEnded { track });
    assert_eq!(story.look().taps(), (0, 1));
    story.publish(&ada, microphone("mic 2"));
    assert_eq!(story.look().taps(), (1, 0));
    story.room.agent_leave(story.now, &agent);
    assert_eq!(story.look().taps(), (0, 1), "without a listener nothing is tapped");
    story.agent();
    assert_eq!(story.look().taps(), (1, 0));
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    let seen = story.look();
    assert_eq!(seen.taps(), (0, 1));
    assert_eq!(seen.agent_events(), ["tap closed", "left"]);
}

#[test]
fn speakers_are_told_as_they_change() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    story.event(&ada, EventKind::Speaker { level: 0.5, active: true });
    story.event(&ada, EventKind::Speaker { level: 0.0, active: false });
    let seen = story.look();
    for client in [&ada, &bob] {
        let told: Vec<_> = seen
            .to(client)
            .into_iter()
            .map(|m| match m {
                Response::SpeakersChanged(s) => (s.speakers[0].sid.clone(), s.speakers[0].active),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [(ada.sid.as_str().to_owned(), true), (ada.sid.as_str().to_owned(), false)]);
    }
}

#[test]
fn the_scenarios_of_clients_tests_do_what_they_say() {
    use proto::simulate_scenario::Scenario;
    let simulate = |s| Ask::Simulate(proto::SimulateScenario { scenario: Some(s) });
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.ask(&ada, simulate(Scenario::LeaveRequestFullReconnect(true)));
    assert_eq!(story.look().leave(&ada).map(|l| l.1), Some(Action::Reconnect));
    let ada = story.enter("ada");
    story.ask(&ada, simulate(Scenario::ServerLeave(true)));
    assert_eq!(story.look().leave(&ada).map(|l| l.1), Some(Action::Disconnect));
    let ada = story.enter("ada");
    story.ask(&ada, simulate(Scenario::NodeFailure(true)));
    let seen = story.look();
    assert!(seen.leave(&ada).is_none() && seen.hangs_up(&ada));
    let ada = story.enter("ada");
    story.ask(&ada, simulate(Scenario::DisconnectSignalOnResumeNoMessages(true)));
    let once = story.resume(&ada, "ada");
    let seen = story.look();
    assert!(seen.to(&once).is_empty() && seen.hangs_up(&once));
    let twice = story.resume(&once, "ada");
    assert!(matches!(story.look().first(&twice), Some(Response::Reconnect(_))));
    story.ask(&twice, simulate(Scenario::SpeakerUpdate(3)));
    story.wait(Duration::from_secs(4));
    assert_eq!(story.look().to(&twice).len(), 2);
}

#[test]
fn an_offer_that_cannot_be_answered_ends_the_attempt() {
    let mut story = Story::new();
    let ada = story.join("ada");
    story.look();
    story.event(&ada, EventKind::OfferRejected { offer_id: 1, reason: "no codecs".into() });
    let seen = story.look();
    assert_eq!(seen.leave(&ada), Some((proto::DisconnectReason::JoinFailure, Action::Disconnect)));
}
