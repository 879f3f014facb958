//! Packets of one client to the others, through str0m at both ends, over a simulated network.

mod sfu_harness;

use std::time::Duration;

use sfu_harness::{Sim, vp8};
use viva::{
    id::TrackSid,
    media::OpusFrame,
    sfu::{Command, EventKind, MediaKind, View},
};

const AUDIO: MediaKind = MediaKind::Audio;
const VIDEO: MediaKind = MediaKind::Video;

#[test]
fn two_join_and_each_receives_the_others_sound_and_picture_in_order() {
    let mut sim = Sim::new(1);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, AUDIO, "mic");
    let camera = sim.publish(anna, VIDEO, "camera");
    let other_mic = sim.publish(ben, AUDIO, "other");
    sim.run_ms(400);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::TrackLive { .. })), 3);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::TrackSubscribed { .. })), 3);

    for n in 0..100u32 {
        sim.send_audio(anna, &mic, n * 960, &n.to_be_bytes(), -20);
        sim.send_audio(ben, &other_mic, n * 960, &n.to_be_bytes(), -60);
        for part in 0..3u16 {
            let body = [n as u8, part as u8];
            let payload = vp8(n == 0, part == 0, n as u16, &body);
            sim.send(anna, &camera, n * 1_800, part == 2, &payload);
        }
        sim.run_ms(20);
    }
    sim.run_ms(100);

    let heard = sim.received(ben, &mic);
    let words: Vec<u32> =
        heard.iter().map(|packet| u32::from_be_bytes(packet.payload[..].try_into().unwrap())).collect();
    assert_eq!(words, (0..100).collect::<Vec<_>>());
    assert!(heard[0].seq < 65_536);
    assert!(heard.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    assert!(heard.windows(2).all(|pair| pair[1].time.wrapping_sub(pair[0].time) == 960));

    let seen = sim.received(ben, &camera);
    assert_eq!(seen.len(), 300);
    assert!(seen.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    assert_eq!(seen.iter().filter(|packet| packet.marker).count(), 100);
    assert_eq!(sim.received(anna, &other_mic).len(), 100);
    assert!(sim.clients[anna].received.iter().all(|packet| packet.track.as_ref() == Some(&other_mic)));
    let stats = sim.sfu.stats();
    assert_eq!((stats.packets_in, stats.packets_out), ([200, 300], [200, 300]));
    assert_eq!((stats.dropped_malformed, stats.tapped), (0, 0));
}

/// One publisher with a camera and one receiver, connected.
fn call(seed: u64) -> (Sim, usize, usize, TrackSid) {
    let mut sim = Sim::new(seed);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let camera = sim.publish(anna, VIDEO, "camera");
    sim.run_ms(400);
    (sim, anna, ben, camera)
}

/// Frames of three packets every 20 ms, numbered from `first`; a keyframe at the start and wherever one was asked for.
fn film(sim: &mut Sim, client: usize, camera: &TrackSid, first: u32, frames: u32) {
    let mut asked = sim.clients[client].keyframe_requests.len();
    for n in first..first + frames {
        let now_asked = sim.clients[client].keyframe_requests.len();
        let keyframe = n == first || now_asked > asked;
        asked = now_asked;
        for part in 0..3u8 {
            let body = [&n.to_be_bytes()[..], &[part]].concat();
            let payload = vp8(keyframe, part == 0, n as u16 & 0x7fff, &body);
            sim.send(client, camera, n * 1_800, part == 2, &payload);
        }
        sim.run_ms(20);
    }
}

#[test]
fn lost_packets_are_asked_for_again_on_both_hops_and_all_arrive() {
    for seed in 1..=5 {
        let (mut sim, anna, ben, camera) = call(seed);
        sim.loss = 0.05;
        sim.delay = Duration::from_millis(15);
        film(&mut sim, anna, &camera, 0, 300);
        sim.loss = 0.0;
        film(&mut sim, anna, &camera, 300, 20);
        sim.run_ms(500);
        let seen = sim.received(ben, &camera);
        let mut numbers: Vec<u64> = seen.iter().map(|packet| packet.seq).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), seen.len(), "seed {seed}: nothing twice");
        assert_eq!(numbers.last().unwrap() - numbers[0] + 1, numbers.len() as u64, "seed {seed}: no gap is left");
        assert_eq!(seen.len(), 960, "seed {seed}");
        let stats = sim.sfu.stats();
        assert!(stats.retransmitted_in > 10 && stats.retransmitted_out > 10, "seed {seed}: {stats:?}");
        assert!(stats.nacks_in > 0 && stats.nacks_out > 0, "seed {seed}: {stats:?}");
    }
}

#[test]
fn jitter_reorders_packets_and_receivers_still_get_each_once() {
    let (mut sim, anna, ben, camera) = call(6);
    sim.jitter = Duration::from_millis(8);
    film(&mut sim, anna, &camera, 0, 200);
    sim.run_ms(500);
    let seen = sim.received(ben, &camera);
    assert!(seen.windows(2).any(|pair| pair[1].seq < pair[0].seq), "the network did reorder");
    let mut payloads: Vec<_> = seen.iter().map(|packet| &packet.payload).collect();
    payloads.sort();
    payloads.dedup();
    assert_eq!(payloads.len(), 600);
}

/// The drain rule: str0m holds one packet per peer connection; datagrams that are read in one batch must not eat each
/// other, neither on the way in (one publisher, many datagrams) nor out (many packets before one flush).
#[test]
fn datagrams_of_one_batch_all_get_through() {
    let mut sim = Sim::new(7);
    let (anna, ben, carl) = (sim.join(), sim.join(), sim.join());
    sim.connect();
    let (mic, camera) = (sim.publish(anna, AUDIO, "mic"), sim.publish(anna, VIDEO, "camera"));
    let second = sim.publish(ben, VIDEO, "second");
    sim.run_ms(400);
    // Everything that is under way within 40 ms is handed in at once.
    sim.batch = Duration::from_millis(40);
    for n in 0..100u32 {
        sim.send_audio(anna, &mic, n * 960, &[n as u8], -20);
        for part in 0..10u16 {
            let payload = vp8(n == 0, part == 0, n as u16, &[n as u8, part as u8]);
            sim.send(anna, &camera, n * 1_800, part == 9, &payload);
            sim.send(ben, &second, n * 1_800, part == 9, &payload);
        }
        sim.run_ms(20);
    }
    sim.run_ms(200);
    let counts = |client, track| sim.received(client, track).len();
    assert_eq!((counts(carl, &mic), counts(carl, &camera), counts(carl, &second)), (100, 1_000, 1_000));
    assert_eq!((counts(ben, &mic), counts(ben, &camera), counts(anna, &second)), (100, 1_000, 1_000));
}

#[test]
fn a_muted_track_is_not_forwarded_and_goes_on_without_a_gap() {
    let mut sim = Sim::new(8);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, AUDIO, "mic");
    sim.run_ms(400);
    for n in 0..90u32 {
        match n {
            30 => sim.mute(anna, &mic, true),
            60 => sim.mute(anna, &mic, false),
            _ => {}
        }
        sim.send_audio(anna, &mic, n * 960, &[n as u8], -20);
        sim.run_ms(20);
    }
    let heard = sim.received(ben, &mic);
    let words: Vec<u8> = heard.iter().map(|packet| packet.payload[0]).collect();
    let edge = |n: u8| !(29..=31).contains(&n) && !(59..=61).contains(&n);
    let expected: Vec<u8> = (0..90).filter(|n| !(30..60).contains(n)).filter(|n| edge(*n)).collect();
    assert_eq!(words.iter().copied().filter(|n| edge(*n)).collect::<Vec<_>>(), expected);
    assert!(heard.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "no gap in numbers");
    let jump = heard.windows(2).map(|pair| pair[1].time.wrapping_sub(pair[0].time)).max().unwrap();
    assert!((29 * 960..=32 * 960).contains(&jump), "time went on over the mute: {jump}");
    assert!(sim.sfu.stats().dropped_paused >= 28);
}

#[test]
fn a_tap_gets_every_packet_once_and_only_while_it_is_open() {
    let mut sim = Sim::new(9);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, AUDIO, "mic");
    sim.run_ms(400);
    let (room, mut n) = (sim.room.clone(), 0u32);
    let mut talk = |sim: &mut Sim, packets: u32| {
        for _ in 0..packets {
            sim.send_audio(anna, &mic, n * 960, &n.to_be_bytes(), -20);
            n += 1;
            sim.run_ms(20);
        }
        sim.run_ms(20);
    };
    talk(&mut sim, 50);
    assert_eq!(sim.sfu.stats().tapped, 0, "nothing is copied without a tap");
    let (writer, mut reader) = viva::media::tap(1_000);
    sim.open_tap(anna, &mic, 1, writer);
    assert_eq!(sim.sfu.stats().taps_open, 1);
    talk(&mut sim, 50);
    sim.mute(anna, &mic, true);
    talk(&mut sim, 10);
    sim.mute(anna, &mic, false);
    sim.command(Command::CloseTap { room, track: mic.clone() });
    talk(&mut sim, 50);

    let tapped = drain(&mut reader);
    let words: Vec<u32> =
        tapped.iter().map(|packet| u32::from_be_bytes(packet.payload[..].try_into().unwrap())).collect();
    assert_eq!(words, (50..100).collect::<Vec<_>>());
    assert!(tapped.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1 && pair[1].rtp_time == pair[0].rtp_time + 960));
    let stats = sim.sfu.stats();
    assert_eq!((stats.tapped, stats.tap_dropped, stats.taps_open), (50, 0, 0));
    assert_eq!(sim.received(ben, &mic).len(), 150, "the call does not care");
}

#[test]
fn a_listener_that_is_behind_loses_packets_and_the_call_none() {
    let mut sim = Sim::new(10);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, AUDIO, "mic");
    sim.run_ms(400);
    let (writer, mut reader) = viva::media::tap(10);
    sim.open_tap(anna, &mic, 1, writer);
    for n in 0..50u32 {
        sim.send_audio(anna, &mic, n * 960, &[n as u8], -20);
        sim.run_ms(20);
    }
    sim.run_ms(20);
    assert_eq!(drain(&mut reader).len(), 10);
    assert_eq!((sim.sfu.stats().tapped, sim.sfu.stats().tap_dropped), (10, 40));
    assert_eq!(sim.received(ben, &mic).len(), 50);
    assert_eq!(closed_taps(&sim), [], "to be behind is not to be gone");
}

/// The taps that the core closed by itself.
fn closed_taps(sim: &Sim) -> Vec<(TrackSid, u64)> {
    let closed = sim.events.iter().filter_map(|event| match &event.kind {
        EventKind::TapClosed { track, id } => Some((track.clone(), *id)),
        _ => None,
    });
    closed.collect()
}

#[test]
fn a_tap_that_nobody_reads_and_one_of_no_track_are_closed_and_told() {
    let mut sim = Sim::new(14);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let (mic, camera) = (sim.publish(anna, AUDIO, "mic"), sim.publish(anna, VIDEO, "camera"));
    sim.run_ms(400);
    let gone = TrackSid::from("TR_gone");
    // No such track; no sound; somebody else's.
    for (id, owner, track) in [(1, anna, &gone), (2, anna, &camera), (3, ben, &mic)] {
        let (writer, _reader) = viva::media::tap(10);
        sim.open_tap(owner, track, id, writer);
        assert_eq!(closed_taps(&sim).last(), Some(&(track.clone(), id)));
    }
    assert_eq!(sim.sfu.stats().taps_open, 0);
    let (writer, reader) = viva::media::tap(10);
    sim.open_tap(anna, &mic, 4, writer);
    assert_eq!(sim.sfu.stats().taps_open, 1);
    drop(reader);
    for n in 0..20u32 {
        sim.send_audio(anna, &mic, n * 960, &[n as u8], -20);
        sim.run_ms(20);
    }
    sim.run_ms(50);
    assert_eq!(closed_taps(&sim)[3..], [(mic.clone(), 4)], "once");
    assert_eq!((sim.sfu.stats().taps_open, sim.sfu.stats().tapped), (0, 0));
    assert_eq!(sim.received(ben, &mic).len(), 20, "the call does not care");
    // It heals.
    let (writer, mut reader) = viva::media::tap(10);
    sim.open_tap(anna, &mic, 5, writer);
    sim.send_audio(anna, &mic, 20 * 960, &[20], -20);
    sim.run_ms(50);
    assert_eq!((drain(&mut reader).len(), sim.sfu.stats().taps_open), (1, 1));
}

fn drain(reader: &mut viva::media::TapReader) -> Vec<viva::media::AudioPacket> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut packets = Vec::new();
        while let Ok(Some(packet)) = tokio::time::timeout(Duration::from_millis(10), reader.read()).await {
            packets.push(packet);
        }
        packets
    })
}

#[test]
fn an_injected_voice_reaches_all_and_counts_as_a_speaker() {
    let mut sim = Sim::new(11);
    let (anna, ben) = (sim.join(), sim.join());
    let agent = sim.join_agent();
    let (room, voice) = (sim.room.clone(), TrackSid::from("TR_voice"));
    let (participant, track) = (agent.clone(), voice.clone());
    sim.command(Command::PublishInjected { room: room.clone(), participant, track });
    sim.connect();
    for n in 0..100u32 {
        // A pause of a second in the middle.
        if n == 50 {
            sim.run_ms(980);
        }
        let frame = OpusFrame {
            payload: Box::from(n.to_be_bytes()),
            starts_talk_spurt: n == 0 || n == 50,
            report: (n % 50 == 0).then_some(u64::from(n)),
        };
        sim.command(Command::Inject { room: room.clone(), track: voice.clone(), frame });
        sim.run_ms(20);
    }
    sim.run_ms(500);
    for client in [anna, ben] {
        let heard = sim.received(client, &voice);
        assert_eq!(heard.len(), 100);
        assert!(heard.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
        let steps: Vec<u32> = heard.windows(2).map(|pair| pair[1].time.wrapping_sub(pair[0].time)).collect();
        assert_eq!(steps.iter().filter(|step| **step == 960).count(), 98);
        assert_eq!(steps[49], 48_000, "time ran on over the pause");
        assert!(heard[0].marker && heard[50].marker && !heard[1].marker);
    }
    let reports: Vec<u64> = sim
        .events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Injected { report, .. } => Some(*report),
            _ => None,
        })
        .collect();
    assert_eq!(reports, [0, 50]);
    let mut speaking = sim.events.iter().filter(|event| event.participant == agent);
    assert!(speaking.any(|event| matches!(event.kind, EventKind::Speaker { active: true, level } if level > 0.0)));
    let mut silent = sim.events.iter().rev().filter(|event| event.participant == agent);
    assert!(silent.any(|event| matches!(event.kind, EventKind::Speaker { active: false, .. })));
}

#[test]
fn who_joins_late_starts_with_a_keyframe_that_was_asked_for() {
    let (mut sim, anna, ben, camera) = call(12);
    film(&mut sim, anna, &camera, 0, 100);
    let before = sim.clients[anna].keyframe_requests.len();
    let carl = sim.join();
    film_without_keyframe(&mut sim, anna, &camera, 100, 50);
    assert!(sim.clients[anna].keyframe_requests.len() > before, "the publisher was asked");
    let seen = sim.received(carl, &camera);
    assert!(!seen.is_empty());
    assert_eq!(seen[0].payload[4] & 1, 0, "the first packet begins a keyframe");
    assert!(seen[0].seq < 65_536);
    // Many receivers asking at once cost the publisher one keyframe.
    let before = sim.clients[anna].keyframe_requests.len();
    sim.request_keyframe(ben, &camera);
    sim.request_keyframe(carl, &camera);
    film_without_keyframe(&mut sim, anna, &camera, 150, 20);
    assert!(sim.clients[anna].keyframe_requests.len() <= before + 2);
}

/// As [`film`], but without one at the start.
fn film_without_keyframe(sim: &mut Sim, client: usize, camera: &TrackSid, first: u32, frames: u32) {
    let mut asked = sim.clients[client].keyframe_requests.len();
    for n in first..first + frames {
        let now_asked = sim.clients[client].keyframe_requests.len();
        let payload = vp8(now_asked > asked, true, n as u16, &n.to_be_bytes());
        asked = now_asked;
        sim.send(client, camera, n * 1_800, true, &payload);
        sim.run_ms(20);
    }
}

#[test]
fn the_best_layer_that_flows_is_forwarded_as_one_stream() {
    let mut sim = Sim::new(13);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let camera = TrackSid::from("TR_camera");
    sim.announce(anna, VIDEO, &camera, "cid");
    sim.add_uplink(anna, VIDEO, &camera, "cid", &["q", "h", "f"]);
    sim.offer(anna);
    sim.run_ms(400);
    let answer = sim.clients[anna].answers.last().unwrap();
    assert!(answer.contains("a=simulcast:recv q;h;f"), "no layer is left paused:\n{answer}");
    let mut asked = 0;
    for n in 0..200u32 {
        let now_asked = sim.clients[anna].keyframe_requests.len();
        let keyframe = n == 0 || now_asked > asked;
        asked = now_asked;
        // The best layer comes late and goes early; layers number their pictures apart.
        for layer in 0..3usize {
            if layer == 2 && !(50..120).contains(&n) {
                continue;
            }
            let picture = (n + 1_000 * layer as u32) as u16;
            let payload = vp8(keyframe, true, picture, &[layer as u8]);
            sim.send_layer(anna, &camera, layer, n * 1_800, true, &payload, None);
        }
        sim.run_ms(20);
    }
    sim.run_ms(100);
    let seen = sim.received(ben, &camera);
    let mut layers: Vec<u8> = seen.iter().map(|packet| packet.payload[5]).collect();
    layers.dedup();
    assert!(layers.contains(&2) && layers.last() == Some(&1), "{layers:?}");
    assert!(seen.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "one gapless stream");
    assert!(seen.windows(2).all(|pair| (pair[1].time.wrapping_sub(pair[0].time) as i32) > 0));
    let picture = |packet: &sfu_harness::Received| u16::from_be_bytes([packet.payload[2] & 0x7f, packet.payload[3]]);
    assert!(seen.windows(2).all(|pair| picture(pair[1]) > picture(pair[0])), "picture ids go on over the changes");
    assert!(seen.windows(2).all(|pair| pair[0].payload[5] == pair[1].payload[5] || pair[1].payload[4] & 1 == 0));
}

#[test]
fn a_paused_subscription_gets_nothing_and_comes_back_with_a_keyframe() {
    let (mut sim, anna, ben, camera) = call(14);
    film(&mut sim, anna, &camera, 0, 50);
    sim.run_ms(20);
    let pause = |sim: &mut Sim, paused| {
        let (room, subscriber) = (sim.room.clone(), sim.clients[ben].sid.clone());
        let track = camera.clone();
        sim.command(Command::View { room, subscriber, track, view: View { paused, ..View::default() } });
    };
    pause(&mut sim, true);
    let before = sim.received(ben, &camera).len();
    film_without_keyframe(&mut sim, anna, &camera, 50, 50);
    assert_eq!(sim.received(ben, &camera).len(), before);
    pause(&mut sim, false);
    film_without_keyframe(&mut sim, anna, &camera, 100, 50);
    let seen = sim.received(ben, &camera);
    assert!(seen.len() > before + 30);
    assert_eq!(seen[before].payload[4] & 1, 0);
    assert_eq!(seen[before].seq, seen[before - 1].seq + 1);
}

#[test]
fn sender_reports_keep_sound_and_picture_of_one_moment_together() {
    let mut sim = Sim::new(15);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let (mic, camera) = (sim.publish(anna, AUDIO, "mic"), sim.publish(anna, VIDEO, "camera"));
    sim.run_ms(400);
    for n in 0..300u32 {
        sim.send_audio(anna, &mic, 5_000 + n * 960, &[n as u8], -20);
        sim.send(anna, &camera, 70_000 + n * 1_800, true, &vp8(n == 0, true, n as u16, &[n as u8]));
        sim.run_ms(20);
    }
    // When the receiver thinks that packet 250 of each was captured, in seconds.
    let captured = |track: &TrackSid, hz: f64| {
        let packets = sim.received(ben, track);
        let packet = packets.iter().find(|packet| *packet.payload.last().unwrap() == 250).unwrap();
        let (ntp, rtp) = packet.report.expect("a sender report came");
        let ntp = ntp.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        ntp + f64::from(packet.time.wrapping_sub(rtp) as i32) / hz
    };
    let skew = captured(&mic, 48_000.0) - captured(&camera, 90_000.0);
    assert!(skew.abs() < 0.005, "{skew} s apart");
}
