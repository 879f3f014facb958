//! Data channels and speakers.

mod sfu_harness;

use std::time::Duration;

use sfu_harness::Sim;
use viva::id::DataTrackSid;
use viva::sfu::{
    Command,
    DataChannel::{Lossy, Reliable},
    EventKind, MediaKind,
};

#[test]
fn data_is_handed_to_the_control_plane_and_routed_back_on_the_channel_of_its_kind() {
    let mut sim = Sim::new(41);
    let (anna, ben, carl) = (sim.join(), sim.join(), sim.join());
    sim.connect();
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::DataChannelOpen { .. })), 6);
    assert!(sim.send_data(anna, Reliable, b"hello"));
    assert!(sim.send_data(anna, Lossy, b"pose"));
    sim.run_ms(100);
    let heard: Vec<_> = sim
        .events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Data { channel, payload } if event.participant == sim.clients[anna].sid => {
                Some((*channel, payload.to_vec()))
            }
            _ => None,
        })
        .collect();
    assert!(heard.contains(&(Reliable, b"hello".to_vec())) && heard.contains(&(Lossy, b"pose".to_vec())));
    sim.route_data(&[ben, carl], Reliable, b"for two");
    sim.route_data(&[carl], Lossy, b"for one");
    sim.run_ms(100);
    assert_eq!(sim.clients[ben].data, [(Reliable, b"for two".to_vec())]);
    assert_eq!(sim.clients[carl].data, [(Reliable, b"for two".to_vec()), (Lossy, b"for one".to_vec())]);
    assert!(sim.clients[anna].data.is_empty());
}

#[test]
fn reliable_data_waits_for_the_channel_and_comes_in_order_over_a_lossy_network() {
    let mut sim = Sim::new(42);
    let ben = sim.join();
    // Before ICE, DTLS and SCTP are up.
    for n in 0..50u8 {
        sim.route_data(&[ben], Reliable, &[n; 1_000]);
    }
    sim.connect();
    sim.loss = 0.05;
    for n in 50..150u8 {
        sim.route_data(&[ben], Reliable, &[n; 1_000]);
        sim.run_ms(10);
    }
    sim.loss = 0.0;
    sim.run_for(Duration::from_secs(10));
    let numbers: Vec<u8> = sim.clients[ben].data.iter().map(|(_, payload)| payload[0]).collect();
    assert_eq!(numbers, (0..150).collect::<Vec<_>>());
}

#[test]
fn a_receiver_that_stands_still_is_closed_and_others_notice_nothing() {
    let mut sim = Sim::new(43);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    // Nothing reaches anybody while 6 MB are queued for one of them.
    sim.loss = 1.0;
    for _ in 0..120 {
        sim.route_data(&[ben], Reliable, &[0; 50_000]);
        sim.route_data(&[ben], Lossy, &[0; 1_000]);
    }
    let closed: Vec<_> = sim
        .events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Closed { .. }))
        .map(|event| event.participant.clone())
        .collect();
    assert_eq!(closed, [sim.clients[ben].sid.clone()]);
    assert!(sim.sfu.stats().dropped_queue_full > 0);
    sim.loss = 0.0;
    sim.route_data(&[anna], Reliable, b"still here");
    sim.run_for(Duration::from_secs(5));
    assert_eq!(sim.clients[anna].data, [(Reliable, b"still here".to_vec())]);
}

#[test]
fn a_packet_larger_than_its_receiver_takes_holds_up_nothing_behind_it() {
    let mut sim = Sim::new(45);
    let anna = sim.join();
    sim.message_bytes_max = 16_384;
    let ben = sim.join();
    sim.connect();
    sim.route_data(&[anna, ben], Reliable, &[1; 20_000]);
    sim.route_data(&[anna, ben], Reliable, &[2; 16_384]);
    sim.run_ms(500);
    let got = |sim: &Sim, client: usize| -> Vec<usize> {
        sim.clients[client].data.iter().map(|(_, payload)| payload.len()).collect()
    };
    assert_eq!((got(&sim, anna), got(&sim, ben)), (vec![20_000, 16_384], vec![16_384]));
    assert_eq!(sim.sfu.stats().dropped_queue_full, 1);
    sim.route_data(&[ben], Lossy, &[3; 20_000]);
    assert_eq!(sim.sfu.stats().dropped_queue_full, 2);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::Closed { .. })), 0);
}

/// A packet of a data track: a whole frame without extensions.
fn track_packet(handle: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x18, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0];
    packet[2..4].copy_from_slice(&handle.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn publish_data(sim: &mut Sim, client: usize, track: &str, handle: u16) {
    let (room, participant) = (sim.room.clone(), sim.clients[client].sid.clone());
    sim.command(Command::PublishData { room, participant, track: track.into(), handle });
}

fn subscribe_data(sim: &mut Sim, client: usize, track: &str, handle: Option<u16>) {
    let (room, subscriber) = (sim.room.clone(), sim.clients[client].sid.clone());
    sim.command(Command::SubscribeData { room, subscriber, track: DataTrackSid::from(track), handle });
}

#[test]
fn a_data_track_reaches_who_takes_it_by_the_number_that_each_knows() {
    let mut sim = Sim::new(46);
    let (anna, ben, carl) = (sim.join(), sim.join(), sim.join());
    sim.connect();
    publish_data(&mut sim, anna, "DTR_pose", 7);
    publish_data(&mut sim, carl, "DTR_other", 7);
    subscribe_data(&mut sim, ben, "DTR_pose", Some(1));
    subscribe_data(&mut sim, carl, "DTR_pose", Some(900));
    assert!(sim.send_track_data(anna, &track_packet(7, b"here")));
    assert!(sim.send_track_data(anna, &track_packet(8, b"of no track")));
    assert!(sim.send_track_data(anna, b"no packet"));
    sim.run_ms(100);
    assert_eq!(sim.clients[ben].track_data, [track_packet(1, b"here")]);
    assert_eq!(sim.clients[carl].track_data, [track_packet(900, b"here")]);
    assert!(sim.clients[anna].track_data.is_empty());
    assert_eq!((sim.sfu.stats().data_tracks_in, sim.sfu.stats().data_tracks_out), (3, 2));
    assert_eq!(sim.sfu.stats().dropped_malformed, 1);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::Data { .. })), 0, "the control plane sees none of it");
    // One takes it no more; then the publisher leaves, and whoever has its number next is nobody's publisher.
    subscribe_data(&mut sim, ben, "DTR_pose", None);
    sim.send_track_data(anna, &track_packet(7, b"there"));
    sim.run_ms(100);
    assert_eq!((sim.clients[ben].track_data.len(), sim.clients[carl].track_data.len()), (1, 2));
    sim.leave(anna);
    publish_data(&mut sim, ben, "DTR_late", 7);
    sim.send_track_data(ben, &track_packet(7, b"unheard"));
    sim.run_ms(100);
    assert_eq!(sim.clients[carl].track_data.len(), 2);
}

#[test]
fn a_flood_of_data_tracks_is_dropped_and_counted_and_reliable_data_passes() {
    let mut sim = Sim::new(47);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    publish_data(&mut sim, anna, "DTR_flood", 1);
    subscribe_data(&mut sim, ben, "DTR_flood", Some(1));
    let packet = track_packet(1, &[0; 16_000]);
    let mut sent = 0;
    for _ in 0..1_500 {
        sent += u64::from(sim.send_track_data(anna, &packet));
        sim.run_ms(1);
    }
    sim.run_for(Duration::from_secs(2));
    let stats = sim.sfu.stats();
    assert!(sent > 900 && stats.data_tracks_in == sent, "{sent} sent, {} came", stats.data_tracks_in);
    assert!(stats.dropped_queue_full > 0, "a participant may send 4 MiB a second");
    // What is left of a packet that was cut into several datagrams and dropped before the core cannot be told.
    assert!(stats.data_tracks_out <= sent - stats.dropped_queue_full);
    assert!(sim.send_data(anna, Reliable, b"after all"));
    sim.route_data(&[ben], Reliable, b"me too");
    sim.run_ms(200);
    assert_eq!(sim.clients[ben].data, [(Reliable, b"me too".to_vec())]);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::Data { .. })), 1);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::Closed { .. })), 0);
}

#[test]
fn the_loudest_comes_first_and_who_is_silent_is_told_to_be() {
    let mut sim = Sim::new(44);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let (loud, quiet) = (sim.publish(anna, MediaKind::Audio, "loud"), sim.publish(ben, MediaKind::Audio, "quiet"));
    sim.run_ms(400);
    for n in 0..100u32 {
        sim.send_audio(anna, &loud, n * 960, &[0], if n < 50 { -15 } else { -127 });
        sim.send_audio(ben, &quiet, n * 960, &[0], -70);
        sim.run_ms(20);
    }
    let told: Vec<_> = sim
        .events
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::Speaker { level, active } => Some((event.participant.clone(), level, active)),
            _ => None,
        })
        .collect();
    assert!(told.iter().all(|(who, ..)| *who == sim.clients[anna].sid), "noise is no speech");
    assert!(told.first().is_some_and(|(_, level, active)| *active && *level > 0.0));
    assert!(told.last().is_some_and(|(_, level, active)| !*active && *level == 0.0));
}
