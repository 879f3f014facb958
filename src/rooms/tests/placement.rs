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
