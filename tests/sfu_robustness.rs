//! What must not hurt: malformed and foreign datagrams, nonsense offers, commands for what is gone, floods.

mod sfu_harness;

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use sfu_harness::Sim;
use viva::{
    id::{ParticipantSid, RoomSid, TrackSid},
    sfu::{Command, DataChannel, EventKind, MediaKind, View},
};

#[test]
fn malformed_datagrams_from_strangers_and_from_a_clients_address_are_dropped() {
    let mut sim = Sim::new(51);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, MediaKind::Audio, "mic");
    sim.run_ms(400);
    let mut rng = StdRng::seed_from_u64(51);
    let stranger = "203.0.113.9:9".parse().unwrap();
    let known = sim.clients[anna].address;
    for n in 0..200u32 {
        for source in [stranger, known] {
            let mut bytes = vec![0u8; rng.random_range(0..1_500)];
            rng.fill(&mut bytes[..]);
            // Every kind of first byte: STUN, DTLS, RTP, RTCP, nothing.
            if let Some(first) = bytes.first_mut() {
                *first = [0, 1, 22, 23, 128, 144, 64, 255][n as usize % 8];
            }
            sim.attack(source, &bytes);
        }
        sim.send_audio(anna, &mic, n * 960, &[0], -20);
        sim.run_ms(20);
    }
    sim.run_ms(50);
    let stats = sim.sfu.stats();
    assert!(stats.dropped_unknown_peer >= 200, "{stats:?}");
    assert!(stats.dropped_malformed > 0, "{stats:?}");
    assert_eq!(sim.received(ben, &mic).len(), 200, "the call does not notice");
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::Closed { .. })), 0);
}

#[test]
fn a_recorded_datagram_played_again_or_from_elsewhere_changes_nothing() {
    let mut sim = Sim::new(52);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, MediaKind::Audio, "mic");
    sim.run_ms(400);
    // A request with the right user name but without the password, from a stranger who would take over the address.
    let ufrag = sim.clients[anna].answers.last().unwrap().lines().find_map(|line| line.strip_prefix("a=ice-ufrag:"));
    let username = format!("{}:abcd", ufrag.unwrap());
    let mut attributes = vec![0, 6, 0, username.len() as u8];
    attributes.extend(username.as_bytes());
    attributes.resize(attributes.len().next_multiple_of(4), 0);
    let mut request = vec![0, 1, 0, attributes.len() as u8, 0x21, 0x12, 0xa4, 0x42];
    request.extend([9; 12]);
    request.extend(attributes);
    let before = sim.sfu.stats().dropped_unknown_peer;
    sim.attack(sim.clients[ben].address, &request);
    sim.attack("203.0.113.9:9".parse().unwrap(), &request);
    assert_eq!(sim.sfu.stats().dropped_unknown_peer, before + 2);
    for n in 0..50u32 {
        sim.send_audio(anna, &mic, n * 960, &[0], -20);
        sim.run_ms(20);
    }
    sim.run_ms(50);
    assert_eq!(sim.received(ben, &mic).len(), 50);
}

#[test]
fn nonsense_offers_are_rejected_with_a_reason_and_the_peer_lives_on() {
    let mut sim = Sim::new(53);
    let anna = sim.join();
    sim.connect();
    let participant = sim.clients[anna].sid.clone();
    let many = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:x\r\n".repeat(1_000);
    for sdp in ["", "nonsense", "v=0\r\n", &many, &"a".repeat(1_000_000)] {
        let (room, participant, sdp) = (sim.room.clone(), participant.clone(), sdp.to_owned());
        sim.sfu.handle_command(sim.now, Command::Offer { room, participant, offer_id: 99, sdp });
    }
    let mut rejected = 0;
    while let Some(event) = sim.sfu.poll_event() {
        if let EventKind::OfferRejected { offer_id: 99, reason } = event.kind {
            assert!(!reason.is_empty());
            assert!(!reason.contains("nonsense"), "nothing of the offer is quoted: {reason}");
            rejected += 1;
        }
    }
    assert_eq!(rejected, 5);
    let mic = sim.publish(anna, MediaKind::Audio, "mic");
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::TrackLive { track, .. } if *track == mic)), 1);
}

#[test]
fn commands_for_what_is_gone_are_ignored() {
    let mut sim = Sim::new(54);
    sim.join();
    let gone = ParticipantSid::from("PA_gone");
    let track = TrackSid::from("TR_gone");
    for room in [sim.room.clone(), RoomSid::from("RM_gone")] {
        let (participant, subscriber) = (gone.clone(), gone.clone());
        sim.command(Command::Leave { room: room.clone(), participant: participant.clone() });
        sim.command(Command::Mute {
            room: room.clone(),
            participant: participant.clone(),
            track: track.clone(),
            muted: true,
        });
        sim.command(Command::Unpublish { room: room.clone(), participant, track: track.clone() });
        sim.command(Command::View {
            room: room.clone(),
            subscriber: subscriber.clone(),
            track: track.clone(),
            view: View { paused: true, ..View::default() },
        });
        sim.command(Command::Subscribe { room: room.clone(), subscriber, track: track.clone(), subscribed: true });
        sim.command(Command::CloseTap { room: room.clone(), track: track.clone() });
        let to = vec![gone.clone()];
        sim.command(Command::SendData { room, to, channel: DataChannel::Lossy, payload: vec![0].into() });
    }
    sim.connect();
}

#[test]
fn a_flood_of_data_is_bounded() {
    let mut sim = Sim::new(55);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    sim.delay = Duration::from_micros(100);
    let mut sent = 0u64;
    for _ in 0..4_000 {
        sent += u64::from(sim.send_data(anna, DataChannel::Lossy, &[0; 8_000]));
        sim.run_ms(1);
    }
    let passed = sim.count(|kind| matches!(kind, EventKind::Data { .. })) as u64;
    assert!(passed < 3_000 && sent > passed, "{passed} of {sent} passed");
    assert!(sim.sfu.stats().dropped_queue_full > 0);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::Closed { .. })), 0);
    sim.route_data(&[ben], DataChannel::Reliable, b"ok");
    sim.run_ms(100);
    assert_eq!(sim.clients[ben].data.len(), 1);
}

#[test]
fn a_client_that_vanishes_is_told_of_and_can_be_removed() {
    let mut sim = Sim::new(56);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    sim.publish(anna, MediaKind::Audio, "mic");
    sim.run_ms(400);
    sim.loss = 1.0;
    sim.run_for(Duration::from_secs(40));
    let lost = |who: usize| {
        sim.events
            .iter()
            .any(|event| event.participant == sim.clients[who].sid && matches!(event.kind, EventKind::Disconnected))
    };
    assert!(lost(anna) && lost(ben));
    sim.loss = 0.0;
    sim.leave(anna);
    sim.leave(ben);
    assert_eq!((sim.sfu.stats().rooms, sim.sfu.stats().transports), (0, 0));
    assert!(sim.sfu.transmits().is_empty());
}

#[test]
fn a_publisher_that_floods_is_cut_to_what_it_may_and_others_hear_each_other() {
    let mut sim = Sim::new(57);
    let (anna, ben, eve) = (sim.join(), sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, MediaKind::Audio, "mic");
    let flood = sim.publish(eve, MediaKind::Audio, "flood");
    sim.run_ms(400);
    // 20 times what a voice sends, then more than a second of everything that may be: 12,000 packets in two seconds.
    let mut sent = 0u32;
    for n in 0..100u32 {
        for _ in 0..120 {
            sim.send_audio(eve, &flood, sent * 960, &[0], -20);
            sent += 1;
        }
        sim.send_audio(anna, &mic, n * 960, &[0], -20);
        sim.run_ms(20);
    }
    sim.run_ms(100);
    let passed = sim.received(ben, &flood).len();
    assert!((6_000..=12_100).contains(&passed), "6,000 at once and 3,000 a second: {passed} of {sent}");
    for n in 100..200u32 {
        for _ in 0..120 {
            sim.send_audio(eve, &flood, sent * 960, &[0], -20);
            sent += 1;
        }
        sim.send_audio(anna, &mic, n * 960, &[0], -20);
        sim.run_ms(20);
    }
    sim.run_ms(100);
    let later = sim.received(ben, &flood).len() - passed;
    assert!((5_500..=6_500).contains(&later), "then 3,000 a second: {later}");
    assert_eq!(sim.received(ben, &mic).len(), 200, "nobody else loses anything");
    assert!(sim.sfu.stats().dropped_flood > 4_000);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::Closed { .. })), 0);
}

#[test]
fn a_packet_that_no_network_carries_in_one_piece_is_dropped_and_the_call_goes_on() {
    let mut sim = Sim::new(58);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, MediaKind::Audio, "mic");
    sim.run_ms(400);
    for n in 0..20u32 {
        let size = if n == 10 { 1_900 } else { 80 };
        sim.send_audio(anna, &mic, n * 960, &vec![0; size], -20);
        sim.run_ms(20);
    }
    sim.run_ms(50);
    assert_eq!(sim.received(ben, &mic).len(), 19);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::Closed { .. })), 0);
}

#[test]
fn a_network_that_is_said_to_carry_anything_is_believed_only_so_far() {
    let mut sim = Sim::new(59);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let camera = sim.publish(anna, MediaKind::Video, "camera");
    sim.run_ms(400);
    let (room, participant) = (sim.room.clone(), sim.clients[ben].sid.clone());
    sim.command(Command::CapBandwidth { room, participant, bps: Some(u64::MAX) });
    for n in 0..100u32 {
        sim.send(anna, &camera, n * 3_000, true, &sfu_harness::vp8(n == 0, true, n as u16, &[0; 500]));
        sim.run_ms(33);
    }
    assert!(sim.received(ben, &camera).len() >= 99);
}
