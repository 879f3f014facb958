//! Joining, leaving and offering again, as LiveKit's clients do it with one peer connection.

mod sfu_harness;

use sfu_harness::{Sim, vp8};
use viva::{
    id::TrackSid,
    sfu::{Command, Connections, EventKind, MediaKind},
};

const AUDIO: MediaKind = MediaKind::Audio;
const VIDEO: MediaKind = MediaKind::Video;

fn talk(sim: &mut Sim, client: usize, mic: &TrackSid, packets: u32) {
    for n in 0..packets {
        sim.send_audio(client, mic, n * 960, &[n as u8], -20);
        sim.run_ms(20);
    }
}

#[test]
fn the_first_answer_accepts_what_later_offers_need_and_uses_no_section_that_it_has_no_track_for() {
    let mut sim = Sim::new(21);
    let anna = sim.join();
    let answer = sim.clients[anna].answers[0].clone();
    assert!(answer.contains("a=ice-lite") && answer.contains("a=setup:passive"), "{answer}");
    assert!(answer.contains("192.0.2.1 7882 typ host"), "{answer}");
    assert_eq!(answer.matches("a=inactive").count(), 6);
    assert!(!answer.contains("a=msid:") && !answer.contains("a=ssrc:"), "{answer}");
    for extension in ["sdes:rtp-stream-id", "sdes:repaired-rtp-stream-id", "sdes:mid", "transport-wide-cc"] {
        assert!(answer.matches(extension).count() >= 3, "{extension} on every video section:\n{answer}");
    }
    assert!(answer.contains("ssrc-audio-level"), "{answer}");
    assert!(answer.contains("transport-cc") && answer.contains("nack pli"), "{answer}");
}

#[test]
fn trap_13_an_answer_names_publisher_and_track_where_clients_look_for_them() {
    let mut sim = Sim::new(22);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, AUDIO, "mic");
    sim.run_ms(400);
    let answer = sim.clients[ben].answers.last().unwrap();
    assert!(answer.contains("a=msid:PA_0|TR_mic TR_mic\r\n"), "{answer}");
    assert!(answer.lines().any(|line| line.starts_with("a=ssrc:") && line.ends_with("msid:PA_0|TR_mic TR_mic")));
    assert_eq!(sim.clients[ben].tracks.values().collect::<Vec<_>>(), [&mic]);
}

#[test]
fn sections_that_lack_are_asked_for_in_one_request() {
    let mut sim = Sim::new(23);
    let (anna, ben) = (sim.join_with(true, 1), sim.join_with(true, 1));
    sim.connect();
    for n in 0..3 {
        sim.publish(anna, AUDIO, &format!("mic{n}"));
        sim.publish(anna, VIDEO, &format!("camera{n}"));
    }
    sim.run_ms(1_000);
    assert_eq!(sim.clients[ben].tracks.len(), 6);
    let requests = sim.events.iter().filter(|event| {
        event.participant == sim.clients[ben].sid && matches!(event.kind, EventKind::MediaSectionsRequired { .. })
    });
    assert!(requests.count() <= 3);
    assert_eq!((sim.clients[ben].downlinks(AUDIO), sim.clients[ben].downlinks(VIDEO)), (3, 3));
}

#[test]
fn who_leaves_frees_sections_that_the_next_one_uses() {
    let mut sim = Sim::new(24);
    let ben = sim.join_with(true, 1);
    sim.connect();
    for round in 0..5 {
        let guest = sim.join_with(true, 1);
        sim.connect();
        let mic = sim.publish(guest, AUDIO, &format!("mic{round}"));
        sim.run_ms(800);
        talk(&mut sim, guest, &mic, 20);
        sim.run_ms(50);
        let heard = sim.received(ben, &mic);
        assert_eq!(heard.len(), 20, "round {round}");
        assert!(heard[0].seq < 65_536);
        sim.leave(guest);
        sim.clients.pop();
        sim.run_ms(800);
        assert!(sim.clients[ben].tracks.is_empty(), "round {round}: the client learnt that the section is free");
    }
    assert_eq!(sim.clients[ben].downlinks(AUDIO), 1, "one section served five guests");
}

#[test]
fn a_track_that_its_client_stops_ends_for_all() {
    let mut sim = Sim::new(25);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, AUDIO, "mic");
    sim.run_ms(400);
    sim.stop(anna, &mic);
    sim.run_ms(400);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::TrackEnded { track } if *track == mic)), 1);
    assert!(sim.clients[ben].tracks.is_empty());
}

#[test]
fn an_offer_may_come_before_the_announcement() {
    let mut sim = Sim::new(26);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = TrackSid::from("TR_mic");
    sim.add_uplink(anna, AUDIO, &mic, "cid", &[]);
    sim.offer(anna);
    sim.run_ms(50);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::TrackLive { .. })), 0);
    sim.announce(anna, AUDIO, &mic, "cid");
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::TrackLive { .. })), 1);
    sim.run_ms(400);
    talk(&mut sim, anna, &mic, 10);
    sim.run_ms(50);
    assert_eq!(sim.received(ben, &mic).len(), 10);
}

#[test]
fn a_track_announced_muted_is_live_and_silent_until_unmuted() {
    let mut sim = Sim::new(27);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = TrackSid::from("TR_mic");
    sim.announce(anna, AUDIO, &mic, "cid");
    sim.mute(anna, &mic, true);
    sim.add_uplink(anna, AUDIO, &mic, "cid", &[]);
    sim.offer(anna);
    sim.run_ms(400);
    talk(&mut sim, anna, &mic, 10);
    assert_eq!(sim.received(ben, &mic).len(), 0);
    sim.mute(anna, &mic, false);
    talk(&mut sim, anna, &mic, 10);
    sim.run_ms(50);
    assert_eq!(sim.received(ben, &mic).len(), 10);
}

#[test]
fn media_goes_on_over_an_ice_restart() {
    let mut sim = Sim::new(28);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let camera = sim.publish(anna, VIDEO, "camera");
    sim.run_ms(400);
    let send = |sim: &mut Sim, from: u32| {
        for n in from..from + 50 {
            sim.send(anna, &camera, n * 1_800, true, &vp8(n % 10 == 0, true, n as u16, &[n as u8]));
            sim.run_ms(20);
        }
    };
    send(&mut sim, 0);
    sim.clients[anna].restart_ice();
    sim.offer(anna);
    sim.run_ms(200);
    send(&mut sim, 50);
    sim.run_ms(100);
    let seen = sim.received(ben, &camera);
    assert!(seen.len() >= 98, "{}", seen.len());
    assert!(seen.windows(2).all(|pair| pair[1].ssrc == pair[0].ssrc), "the receivers notice nothing");
}

#[test]
fn who_was_lost_comes_back_with_an_ice_restart() {
    let mut sim = Sim::new(32);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, AUDIO, "mic");
    sim.run_ms(400);
    sim.loss = 1.0;
    sim.run_ms(30_000);
    let of = |sim: &Sim, who: usize, is: fn(&EventKind) -> bool| {
        sim.events.iter().filter(|event| event.participant == sim.clients[who].sid && is(&event.kind)).count()
    };
    assert_eq!(of(&sim, anna, |kind| matches!(kind, EventKind::Disconnected)), 1);
    sim.loss = 0.0;
    for client in [anna, ben] {
        sim.clients[client].restart_ice();
        sim.offer(client);
    }
    sim.run_ms(3_000);
    assert_eq!(of(&sim, anna, |kind| matches!(kind, EventKind::Connected)), 2);
    let before = sim.received(ben, &mic).len();
    talk(&mut sim, anna, &mic, 50);
    sim.run_ms(100);
    assert_eq!(sim.received(ben, &mic).len(), before + 50);
}

#[test]
fn who_does_not_take_everything_gets_what_was_subscribed() {
    let mut sim = Sim::new(29);
    let (anna, ben) = (sim.join(), sim.join_with(false, 3));
    sim.connect();
    let (mic, camera) = (sim.publish(anna, AUDIO, "mic"), sim.publish(anna, VIDEO, "camera"));
    sim.run_ms(400);
    assert!(sim.clients[ben].tracks.is_empty());
    let subscribe = |sim: &mut Sim, track: &TrackSid, subscribed| {
        let (room, subscriber) = (sim.room.clone(), sim.clients[ben].sid.clone());
        sim.command(Command::Subscribe { room, subscriber, track: track.clone(), subscribed });
        sim.run_ms(400);
    };
    subscribe(&mut sim, &mic, true);
    assert_eq!(sim.clients[ben].tracks.values().collect::<Vec<_>>(), [&mic]);
    talk(&mut sim, anna, &mic, 10);
    subscribe(&mut sim, &mic, false);
    subscribe(&mut sim, &camera, true);
    talk(&mut sim, anna, &mic, 10);
    assert_eq!(sim.clients[ben].tracks.values().collect::<Vec<_>>(), [&camera]);
    assert_eq!(sim.clients[ben].received.len(), 10);
}

#[test]
fn a_track_that_the_server_takes_down_is_gone_for_all() {
    let mut sim = Sim::new(30);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, AUDIO, "mic");
    sim.run_ms(400);
    let participant = sim.clients[anna].sid.clone();
    sim.command(Command::Unpublish { room: sim.room.clone(), participant, track: mic.clone() });
    sim.run_ms(400);
    talk(&mut sim, anna, &mic, 10);
    assert!(sim.clients[ben].tracks.is_empty() && sim.clients[ben].received.is_empty());
}

#[test]
fn a_room_goes_with_its_last_member_and_comes_back_fresh() {
    let mut sim = Sim::new(31);
    let anna = sim.join();
    sim.connect();
    assert_eq!((sim.sfu.stats().rooms, sim.sfu.stats().transports), (1, 1));
    sim.leave(anna);
    assert_eq!((sim.sfu.stats().rooms, sim.sfu.stats().transports), (0, 0));
    sim.clients.clear();
    sim.join();
    sim.connect();
    assert_eq!(sim.sfu.stats().rooms, 1);
}

#[test]
fn who_offers_but_once_gets_what_comes_later_on_the_sections_that_stay_open() {
    let mut sim = Sim::new(27);
    let ben = sim.join_by(Connections::Fixed, true, 1);
    let anna = sim.join();
    sim.connect();
    let answer = sim.clients[ben].answers[0].clone();
    assert_eq!((answer.matches("a=sendonly").count(), answer.matches("a=inactive").count()), (2, 0), "{answer}");
    assert!(answer.contains("a=msid:PA_0 PA_0-"), "{answer}");
    let mut heard = 0;
    for round in 0..3 {
        let mic = sim.publish(anna, AUDIO, &format!("mic{round}"));
        sim.run_ms(400);
        talk(&mut sim, anna, &mic, 10);
        sim.run_ms(50);
        let received = &sim.clients[ben].received;
        assert_eq!(received.len(), heard + 10, "round {round}");
        heard = received.len();
        sim.stop(anna, &mic);
        sim.run_ms(400);
    }
    // One stream without a gap, though three tracks made it, and their times go on.
    let received = &sim.clients[ben].received;
    assert!(received.windows(2).all(|pair| pair[1].ssrc == pair[0].ssrc && pair[1].seq == pair[0].seq + 1));
    assert!(received.windows(2).all(|pair| pair[1].time.wrapping_sub(pair[0].time) < 1 << 20));
    assert_eq!(sim.clients[ben].answers.len(), 1, "it was never asked to offer again");
}

#[test]
fn a_second_track_waits_for_the_section_and_takes_it_when_it_is_free() {
    let mut sim = Sim::new(28);
    let (anna, carl) = (sim.join(), sim.join());
    sim.connect();
    let first = sim.publish(anna, VIDEO, "first");
    let second = sim.publish(carl, VIDEO, "second");
    let ben = sim.join_by(Connections::Fixed, true, 1);
    sim.connect();
    let picture = |sim: &mut Sim, client, track: &TrackSid, n: u32| {
        sim.send(client, track, n * 3_000, true, &vp8(true, true, n as u16, &[n as u8; 20]));
        sim.run_ms(40);
    };
    for n in 0..5 {
        picture(&mut sim, anna, &first, n);
        picture(&mut sim, carl, &second, 100 + n);
    }
    let bodies = |sim: &Sim| sim.clients[ben].received.iter().map(|packet| packet.payload[10]).collect::<Vec<_>>();
    assert_eq!(bodies(&sim), [0, 1, 2, 3, 4]);
    sim.leave(anna);
    for n in 5..8 {
        picture(&mut sim, carl, &second, 100 + n);
    }
    assert_eq!(bodies(&sim)[5..], [105, 106, 107]);
    // An ICE restart with the same sections changes nothing of what they carry.
    sim.clients[ben].restart_ice();
    sim.offer(ben);
    sim.run_ms(500);
    picture(&mut sim, carl, &second, 108);
    assert_eq!(bodies(&sim).last(), Some(&108));
    let received = &sim.clients[ben].received;
    assert!(received.windows(2).all(|pair| pair[1].ssrc == pair[0].ssrc && pair[1].seq == pair[0].seq + 1));
}

#[test]
fn who_knows_no_codec_of_a_track_is_told_and_gets_the_others() {
    let mut sim = Sim::new(37);
    let anna = sim.join();
    sim.codecs = vec![str0m::format::Codec::H264];
    let ben = sim.join();
    sim.connect();
    let (mic, cam) = (sim.publish(anna, AUDIO, "mic"), sim.publish(anna, VIDEO, "cam"));
    sim.run_ms(600);
    talk(&mut sim, anna, &mic, 10);
    // What the publisher sends is known by its first packet.
    sim.send(anna, &cam, 0, true, &sfu_harness::vp8(true, true, 0, &[0]));
    sim.run_ms(50);
    let sid = &sim.clients[ben].sid;
    let told = sim.events.iter().filter(|event| event.participant == *sid);
    let told: Vec<_> = told
        .filter_map(
            |event| if let EventKind::TrackUnsupported { track } = &event.kind { Some(track.clone()) } else { None },
        )
        .collect();
    assert_eq!(told, [cam]);
    assert!(sim.received(ben, &mic).len() > 5);
}
