//! Which media worker gets a room.

use tokio::sync::mpsc;

use super::*;
use crate::{rooms::Rooms, worker::WorkerHandle};

fn rooms(workers: Vec<WorkerHandle>) -> Rooms {
    let workers = workers.into_iter().map(|worker| (worker, mpsc::channel(1).1)).collect();
    Rooms::new(Config::default(), workers, Arc::new(Metrics::new()))
}

#[tokio::test]
async fn a_worker_that_has_stopped_gets_no_rooms() {
    let (dead, told) = WorkerHandle::detached();
    drop(told);
    let (alive, mut told) = WorkerHandle::detached();
    let rooms = rooms(vec![dead, alive]);
    let mut agents = Vec::new();
    for n in 0..5 {
        let room = rooms.open(&format!("room-{n}").as_str().into()).unwrap();
        let options = AgentOptions { identity: "viva".into(), name: "Viva".into(), attributes: HashMap::new() };
        agents.push(room.join_agent(options).await.unwrap());
        assert!(matches!(told.recv().await, Some(Command::Join { room: of, .. }) if of == *room.sid()));
        while told.try_recv().is_ok() {}
    }
    assert!(rooms.is_healthy());
}

#[tokio::test]
async fn without_any_worker_nothing_opens_and_that_is_said() {
    let (dead, told) = WorkerHandle::detached();
    let rooms = rooms(vec![dead]);
    assert!(rooms.is_healthy());
    drop(told);
    assert!(!rooms.is_healthy());
    assert_eq!(rooms.open(&"room".into()).err(), Some(RoomError::NoWorker));
    assert_eq!(rooms.check(&claims("ada")), Err(RoomError::NoWorker));
    assert_eq!(
        rooms.join(claims("ada"), JoinRequest::default(), Connections::One).await.err(),
        Some(RoomError::NoWorker)
    );
    assert_eq!(rooms.count(), 0);
}

#[tokio::test]
async fn a_room_that_fails_sends_its_people_into_a_new_one_and_the_others_go_on() {
    let (worker, mut told) = WorkerHandle::detached();
    let metrics = Arc::new(Metrics::new());
    let rooms = Rooms::new(Config::default(), vec![(worker, mpsc::channel(1).1)], metrics.clone());
    let join = async |room: &str| {
        let claims = Claims::new(&"ada".into(), Grants::participant(&room.into()));
        rooms.join(claims, JoinRequest::default(), Connections::One).await.expect("may join")
    };
    let (mut broken, mut other) = (join("broken").await, join("other").await);
    let (room, bystander) = (rooms.get(&"broken".into()).unwrap(), rooms.get(&"other".into()).unwrap());
    let failed: Result<(), RoomError> = room.with(|_, _| panic!("on purpose")).await;
    assert_eq!(failed, Err(RoomError::Closed));
    let mut left = None;
    while let Some(message) = broken.outbound.recv().await {
        if let ToPeer::Message(message) = message
            && let Response::Leave(leave) = *message
        {
            left = Some((leave.reason(), leave.action()));
        }
    }
    assert_eq!(left, Some((proto::DisconnectReason::StateMismatch, Action::Reconnect)), "the client joins anew");
    while !matches!(told.recv().await, Some(Command::Close { room: of }) if of == *room.sid()) {}
    while rooms.count() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!((metrics.rooms.get(), metrics.participants.with_label_values(&["standard"]).get()), (1, 1));
    let _again = join("broken").await;
    assert_ne!(rooms.get(&"broken".into()).unwrap().sid(), room.sid());
    assert!(bystander.info().await.is_ok());
    other.outbound.close();
    let mut told = std::iter::from_fn(|| other.outbound.try_recv().ok());
    let leaves =
        |message: ToPeer| matches!(message, ToPeer::Message(message) if matches!(*message, Response::Leave(_)));
    assert!(!told.any(leaves), "nobody else is sent away");
}
