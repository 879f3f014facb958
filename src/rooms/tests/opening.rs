//! Rooms that are made with more than a name, and the agents that workers send into them.

use tokio::sync::mpsc;

use super::*;
use crate::{
    auth::{RoomAgent, RoomConfig},
    rooms::{Listeners, RoomNews, RoomSetup, Rooms},
    worker::WorkerHandle,
};

impl Story {
    fn outside_agent(&mut self, identity: &str) -> Client {
        let claims = Claims { kind: "agent".into(), ..claims(identity) };
        let client = self.join_with(claims, JoinRequest::default()).expect("may join");
        self.event(&client, EventKind::Connected);
        client
    }
}

fn with(config: RoomConfig) -> Claims {
    Claims { room_config: Some(config), ..claims("ada") }
}

#[test]
fn agents_from_outside_do_not_keep_a_room_open_and_take_no_persons_place() {
    let mut story = Story::with(Config { empty_timeout_secs: 30, departure_timeout_secs: 5, ..Config::default() });
    let _agent = story.outside_agent("agent");
    story.wait(Duration::from_secs(29));
    let ada = story.enter("ada");
    story.wait(Duration::from_secs(60));
    assert!(!story.room.is_closed(), "somebody is there");
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    story.wait(Duration::from_secs(4));
    assert!(!story.room.is_closed());
    story.wait(Duration::from_secs(1));
    assert!(story.room.is_closed(), "only the agent was left");

    let mut story = Story::new();
    let (_first, _second) = (story.outside_agent("one"), story.outside_agent("two"));
    story.room.set_options(crate::rooms::RoomOptions { max_participants: Some(1), ..Default::default() }).unwrap();
    story.enter("ada");
    assert_eq!(story.join_with(claims("bob"), JoinRequest::default()).err(), Some(RoomError::RoomFull));
    story.outside_agent("three");

    // The server's own bound is for all.
    let mut story = Story::with(Config { max_participants_per_room: 2, ..Config::default() });
    let (_agent, _ada) = (story.outside_agent("agent"), story.enter("ada"));
    let more = Claims { kind: "agent".into(), ..claims("more") };
    assert_eq!(story.join_with(more, JoinRequest::default()).err(), Some(RoomError::RoomFull));
}

#[test]
fn nobody_who_helps_is_taken_for_a_person() {
    let mut story = Story::new();
    story.agent();
    story.look();
    story.outside_agent("helper");
    let mut hidden = claims("observer");
    hidden.grants.hidden = true;
    story.join_with(hidden, JoinRequest::default()).unwrap();
    story.enter("ada");
    let person = |sid: &str| story.room.person(&sid.into());
    let human: Vec<_> = story.room.list().iter().filter_map(|info| person(&info.sid)).map(|p| p.human).collect();
    assert_eq!(human, [false, false, false, true]);
}

#[tokio::test]
async fn a_token_makes_the_room_as_it_says_and_changes_none_that_is_open() {
    let (worker, mut told) = WorkerHandle::detached();
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    let (news, mut heard) = mpsc::channel(64);
    let listeners = Listeners { hooks: None, news: Some(news) };
    let workers = vec![(worker, mpsc::channel(1).1)];
    let rooms = Rooms::with_listeners(Config::default(), workers, listeners, Arc::new(Metrics::new()));
    let join = |claims| rooms.join(claims, JoinRequest::default(), Connections::One);

    let agent = RoomAgent { agent_name: "echo".into(), metadata: "m".into(), ..RoomAgent::default() };
    let config = RoomConfig {
        empty_timeout: 7,
        departure_timeout: 8,
        max_participants: 3,
        metadata: "about the room".into(),
        agents: vec![agent.clone()],
        ..RoomConfig::default()
    };
    let _ada = join(with(config.clone())).await.unwrap();
    let Some(RoomNews::Opened { room, agents, reserved: false }) = heard.recv().await else { panic!() };
    assert_eq!((room.empty_timeout, room.departure_timeout, room.max_participants), (7, 8, 3));
    assert_eq!((room.metadata.as_str(), agents), ("about the room", vec![agent]));
    // An open room stays as it is, and a token that could not make one may still enter it.
    let too_many = RoomConfig { agents: vec![RoomAgent::default(); 17], metadata: "other".into(), ..config };
    let _again = join(with(too_many.clone())).await.unwrap();
    let info = rooms.get(&"room".into()).unwrap().info().await.unwrap();
    assert_eq!(info.metadata, "about the room");
    rooms.get(&"room".into()).unwrap().close().await;

    for claims in [with(too_many), Claims { room_preset: "big".into(), ..claims("ada") }] {
        assert!(rooms.check(&claims).is_err());
        let refused = join(claims).await.err().expect("is refused");
        assert!(matches!(refused, RoomError::BadConfig(_) | RoomError::UnknownPreset), "{refused}");
    }
    let setup = RoomSetup { reserved: true, ..RoomSetup::default() };
    let (_, made) = rooms.open_with(&"other".into(), setup.clone()).unwrap();
    let (_, again) = rooms.open_with(&"other".into(), setup).unwrap();
    assert!(made && !again);
}
