//! Somebody moves to another room of the worker.

mod sfu_harness;

use std::time::Duration;

use sfu_harness::{Sim, vp8};
use viva::{
    id::{RoomSid, TrackSid},
    sfu::{Command, Connections, EventKind, MediaKind},
};

fn talk(sim: &mut Sim, client: usize, mic: &TrackSid, from: u32) {
    for n in from..from + 10 {
        sim.send_audio(client, mic, n * 960, &[n as u8; 40], -30);
        sim.run_ms(20);
    }
    sim.run_ms(100);
}

fn subscribe(sim: &mut Sim, client: usize, track: &TrackSid) {
    let (room, subscriber) = (sim.room.clone(), sim.clients[client].sid.clone());
    sim.command(Command::Subscribe { room, subscriber, track: track.clone(), subscribed: true });
}

#[test]
fn who_moves_takes_connection_and_tracks_along_and_leaves_what_it_received() {
    let mut sim = Sim::new(51);
    let (old, new) = (RoomSid::from("RM_test"), RoomSid::from("RM_other"));
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let (mic, cam) = (sim.publish(anna, MediaKind::Audio, "mic"), sim.publish(anna, MediaKind::Video, "cam"));
    let bens = sim.publish(ben, MediaKind::Audio, "bens");
    sim.run_ms(400);
    talk(&mut sim, anna, &mic, 0);
    talk(&mut sim, ben, &bens, 0);
    assert_eq!((sim.received(ben, &mic).len(), sim.received(anna, &bens).len()), (10, 10));
    sim.room = new.clone();
    let carl = sim.join();
    sim.connect();
    let carls = sim.publish(carl, MediaKind::Audio, "carls");
    sim.run_ms(400);

    let participant = sim.clients[anna].sid.clone();
    sim.command(Command::Move { room: old.clone(), participant: participant.clone(), to: new.clone() });
    for (client, track) in [(anna, &carls), (carl, &mic), (carl, &cam)] {
        subscribe(&mut sim, client, track);
    }
    sim.run_ms(600);
    talk(&mut sim, anna, &mic, 10);
    talk(&mut sim, carl, &carls, 0);
    sim.send(anna, &cam, 3_000, true, &vp8(true, true, 1, b"key"));
    sim.room = old.clone();
    talk(&mut sim, ben, &bens, 10);
    assert_eq!((sim.received(carl, &mic).len(), sim.received(carl, &cam).len()), (10, 1));
    assert_eq!(sim.received(anna, &carls).len(), 10);
    assert_eq!((sim.received(ben, &mic).len(), sim.received(anna, &bens).len()), (10, 10), "nothing crosses any more");

    // Long enough for a lost address to show: connectivity is checked all the time.
    sim.run_for(Duration::from_secs(40));
    let of_anna = sim.events.iter().filter(|event| event.participant == participant);
    let moved: Vec<_> = of_anna.clone().filter(|event| matches!(event.kind, EventKind::Moved)).collect();
    assert_eq!(moved.len(), 1);
    assert_eq!(moved[0].room, old);
    let lost = |kind: &EventKind| matches!(kind, EventKind::Closed { .. } | EventKind::Disconnected);
    assert_eq!(sim.count(lost), 0);
    let last = of_anna.rposition_of(|event| event.room == old);
    let first = sim.events.iter().filter(|event| event.participant == participant).position(|event| event.room == new);
    assert!(first.is_none_or(|first| last < first), "nothing of the old room comes after what is of the new one");

    // What she published goes with her from the new room.
    sim.room = new;
    sim.leave(anna);
    sim.room = old;
    assert_eq!((sim.sfu.stats().rooms, sim.sfu.stats().transports), (2, 2));
    sim.leave(ben);
    assert_eq!(sim.sfu.stats().rooms, 1);
}

#[test]
fn the_last_one_to_move_takes_the_room_away_and_who_is_not_there_moves_nobody() {
    let mut sim = Sim::new(52);
    let (old, new) = (RoomSid::from("RM_test"), RoomSid::from("RM_other"));
    let anna = sim.join();
    sim.connect();
    let participant = sim.clients[anna].sid.clone();
    sim.command(Command::Move { room: old.clone(), participant: "PA_nobody".into(), to: new.clone() });
    sim.command(Command::Move { room: "RM_nowhere".into(), participant: participant.clone(), to: new.clone() });
    assert_eq!(sim.sfu.stats().rooms, 1);
    sim.command(Command::Move { room: old.clone(), participant: participant.clone(), to: new.clone() });
    assert_eq!((sim.sfu.stats().rooms, sim.sfu.stats().transports), (1, 1));
    // And back again, with a track that she published on the way.
    sim.room = new.clone();
    let mic = sim.publish(anna, MediaKind::Audio, "mic");
    sim.run_ms(300);
    sim.command(Command::Move { room: new, participant, to: old.clone() });
    sim.room = old;
    let ben = sim.join();
    sim.connect();
    sim.run_ms(300);
    talk(&mut sim, anna, &mic, 0);
    assert_eq!(sim.received(ben, &mic).len(), 10);
}

/// The place of the last that fits.
trait Last: Iterator + Sized {
    fn rposition_of(self, fits: impl Fn(&Self::Item) -> bool) -> usize {
        self.enumerate().filter(|(_, item)| fits(item)).map(|(at, _)| at).last().unwrap_or(0)
    }
}

impl<I: Iterator> Last for I {}

#[test]
fn a_player_that_moves_goes_on_in_the_same_stream_without_using_a_number_twice() {
    let mut sim = Sim::new(53);
    let (old, new) = (RoomSid::from("RM_test"), RoomSid::from("RM_other"));
    let anna = sim.join();
    let player = sim.join_by(Connections::Fixed, true, 1);
    sim.connect();
    let mic = sim.publish(anna, MediaKind::Audio, "mic");
    sim.run_ms(400);
    talk(&mut sim, anna, &mic, 0);
    sim.room = new.clone();
    let carl = sim.join();
    sim.connect();
    let carls = sim.publish(carl, MediaKind::Audio, "carls");
    sim.run_ms(400);

    let participant = sim.clients[player].sid.clone();
    sim.command(Command::Move { room: old, participant, to: new });
    subscribe(&mut sim, player, &carls);
    sim.run_ms(600);
    talk(&mut sim, carl, &carls, 0);
    let seen = &sim.clients[player].received;
    assert_eq!(seen.len(), 20);
    assert!(seen.windows(2).all(|pair| pair[0].ssrc == pair[1].ssrc && pair[1].seq == pair[0].seq + 1));
}
