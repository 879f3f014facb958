//! Data channels and speakers.

mod sfu_harness;

use std::time::Duration;

use sfu_harness::Sim;
use viva::sfu::{
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
