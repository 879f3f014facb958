//! Which layers of a video reach whom: simulcast, temporal layers, scalable video, second codecs.

mod sfu_harness;

use sfu_harness::{Received, Sim, vp8};
use str0m::format::Codec;
use viva::{
    id::TrackSid,
    sfu::{Command, EventKind, MediaKind, PendingTrack, View},
};

const VIDEO: MediaKind = MediaKind::Video;

fn layer(layer: u8) -> View {
    View { layer, ..View::default() }
}

/// A publisher with three simulcast layers and two receivers.
fn simulcast(seed: u64) -> (Sim, usize, [usize; 2], TrackSid) {
    let mut sim = Sim::new(seed);
    let (anna, ben, cleo) = (sim.join(), sim.join(), sim.join());
    sim.connect();
    let camera = TrackSid::from("TR_camera");
    sim.announce(anna, VIDEO, &camera, "cid");
    sim.add_uplink(anna, VIDEO, &camera, "cid", &["q", "h", "f"]);
    sim.offer(anna);
    sim.run_ms(400);
    (sim, anna, [ben, cleo], camera)
}

/// Frames of all layers every 20 ms. A keyframe of a layer at the start and wherever one was asked for; the encoder
/// takes 40 ms to make it.
fn film(sim: &mut Sim, client: usize, camera: &TrackSid, first: u32, frames: u32) {
    let mut asked = sim.clients[client].keyframe_requests.len();
    let mut due = (first == 0).then_some(0);
    for n in first..first + frames {
        let now_asked = sim.clients[client].keyframe_requests.len();
        if now_asked > asked {
            due = Some(n + 2);
        }
        asked = now_asked;
        let keyframe = due.take_if(|at| *at <= n).is_some();
        for layer in 0..3usize {
            let payload = vp8(keyframe, true, (n + 1_000 * layer as u32) as u16, &[layer as u8]);
            sim.send_layer(client, camera, layer, n * 1_800, true, &payload, None);
        }
        sim.run_ms(20);
    }
}

fn layers(seen: &[&Received]) -> Vec<u8> {
    seen.iter().map(|packet| packet.payload[5]).collect()
}

#[test]
fn everybody_gets_the_layer_that_fits_their_window_and_changes_are_seamless() {
    let (mut sim, anna, [ben, cleo], camera) = simulcast(1);
    sim.view(cleo, &camera, layer(0));
    film(&mut sim, anna, &camera, 0, 50);
    sim.view(ben, &camera, layer(1));
    film(&mut sim, anna, &camera, 50, 50);
    sim.view(cleo, &camera, layer(2));
    film(&mut sim, anna, &camera, 100, 50);
    sim.run_ms(50);
    let of = |client| {
        let mut seen = layers(&sim.received(client, &camera));
        seen.dedup();
        seen
    };
    // At the very start, the first layer that comes is better than none.
    assert!(of(ben).ends_with(&[2, 1]), "{:?}", of(ben));
    assert_eq!(of(cleo), [0, 2]);
    for client in [ben, cleo] {
        let seen = sim.received(client, &camera);
        assert!(seen.len() >= 147, "no frame is left out over a change: {}", seen.len());
        assert!(seen.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "one gapless stream");
        let steps = seen.windows(2).map(|pair| pair[1].time.wrapping_sub(pair[0].time));
        assert!(steps.clone().all(|step| (900..4_000).contains(&step)), "time goes on: {:?}", steps.max());
        let picture = |packet: &Received| u16::from_be_bytes([packet.payload[2] & 0x7f, packet.payload[3]]);
        assert!(seen.windows(2).all(|pair| picture(pair[1]) == picture(pair[0]) + 1), "picture ids go on");
        let switches = seen.windows(2).filter(|pair| pair[0].payload[5] != pair[1].payload[5]);
        assert!(switches.into_iter().all(|pair| pair[1].payload[4] & 1 == 0), "changes begin with a keyframe");
    }
}

#[test]
fn many_who_ask_for_a_keyframe_of_a_layer_cause_one_and_other_layers_are_asked_apart() {
    let (mut sim, anna, [ben, cleo], camera) = simulcast(2);
    sim.view(cleo, &camera, layer(0));
    film(&mut sim, anna, &camera, 0, 50);
    let before = sim.clients[anna].keyframe_requests.len();
    for _ in 0..10 {
        sim.request_keyframe(ben, &camera);
        sim.request_keyframe(cleo, &camera);
        sim.run_ms(10);
    }
    let asked = sim.clients[anna].keyframe_requests.len() - before;
    assert_eq!(asked, 2, "one of each layer");
}

/// A VP8 packet of a temporal layer: descriptor with picture id, TL0PICIDX and TID.
fn temporal(keyframe: bool, picture: u16, tl0: u8, tid: u8, sync: bool) -> Vec<u8> {
    let mut payload = vec![0x90, 0xe0, 0x80 | (picture >> 8) as u8, picture as u8, tl0];
    payload.extend([tid << 6 | if sync { 0x20 } else { 0 }, u8::from(!keyframe), tid]);
    payload
}

#[test]
fn temporal_layers_that_are_not_wanted_leave_no_gap_and_come_back_where_they_can_be_decoded() {
    let mut sim = Sim::new(3);
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let camera = sim.publish(anna, VIDEO, "camera");
    sim.run_ms(400);
    let play = |sim: &mut Sim, from: u16, to: u16| {
        for n in from..to {
            // 0 2 1 2, and what only needs the lowest layer at every second period.
            let tid = [0, 2, 1, 2][usize::from(n % 4)];
            let sync = n % 8 == 1 || n % 8 == 2;
            sim.send(anna, &camera, u32::from(n) * 3_000, true, &temporal(n == 0, n, (n / 4) as u8, tid, sync));
            sim.run_ms(33);
        }
        sim.run_ms(50);
    };
    play(&mut sim, 0, 40);
    sim.view(ben, &camera, View { temporal: 0, ..View::default() });
    play(&mut sim, 40, 80);
    sim.view(ben, &camera, View { temporal: 1, ..View::default() });
    play(&mut sim, 80, 120);
    sim.view(ben, &camera, View::default());
    play(&mut sim, 120, 160);
    let seen = sim.received(ben, &camera);
    assert!(seen.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    let picture = |packet: &Received| u16::from_be_bytes([packet.payload[2] & 0x7f, packet.payload[3]]);
    assert!(seen.windows(2).all(|pair| picture(pair[1]) == picture(pair[0]) + 1), "a receiver misses no picture");
    let of = |from: u32, to: u32| {
        let within = seen.iter().filter(|packet| (from * 3_000..to * 3_000).contains(&packet.time));
        let mut counts = [0; 3];
        within.for_each(|packet| counts[usize::from(packet.payload[7])] += 1);
        counts
    };
    assert_eq!(of(0, 40), [10, 10, 20]);
    assert_eq!(of(44, 80), [9, 0, 0]);
    assert_eq!(of(88, 120), [8, 8, 0]);
    assert_eq!(of(128, 160), [8, 8, 16]);
}

/// A VP9 packet of a spatial layer, one packet a layer.
fn vp9(keyframe: bool, picture: u8, spatial: u8) -> Vec<u8> {
    let first = 0b1010_1100 | if keyframe { 0 } else { 0x40 };
    vec![first, picture & 0x7f, spatial << 1 | u8::from(spatial > 0), 0, 0xaa, spatial]
}

#[test]
fn of_scalable_video_lower_layers_come_at_once_and_higher_ones_with_a_keyframe() {
    let mut sim = Sim::new(4);
    sim.codecs = vec![Codec::Vp9, Codec::Vp8];
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let camera = sim.publish(anna, VIDEO, "camera");
    sim.run_ms(400);
    let play = |sim: &mut Sim, from: u32, to: u32| {
        for n in from..to {
            let keyframe = n == 0 || sim.clients[anna].keyframe_requests.pop().is_some();
            for spatial in 0..3u8 {
                sim.send(anna, &camera, n * 3_000, spatial == 2, &vp9(keyframe, n as u8, spatial));
            }
            sim.run_ms(33);
        }
        sim.run_ms(50);
    };
    play(&mut sim, 0, 30);
    sim.view(ben, &camera, layer(0));
    play(&mut sim, 30, 60);
    let asked = sim.sfu.stats().keyframe_requests_out;
    sim.view(ben, &camera, layer(1));
    play(&mut sim, 60, 90);
    assert!(sim.sfu.stats().keyframe_requests_out > asked);
    let seen = sim.received(ben, &camera);
    assert!(seen.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "what is left out leaves no gap");
    let of = |from: u32, to: u32| {
        let within = seen.iter().filter(|packet| (from * 3_000..to * 3_000).contains(&packet.time));
        let mut spatial: Vec<(u8, bool)> = within.map(|packet| (packet.payload[5], packet.marker)).collect();
        spatial.sort_unstable();
        spatial.dedup();
        spatial
    };
    assert_eq!(of(0, 30), [(0, false), (1, false), (2, true)]);
    assert_eq!(of(32, 60), [(0, true)], "the picture ends with its last layer");
    assert_eq!(of(75, 90), [(0, false), (1, true)]);
    assert!(sim.count(|kind| matches!(kind, EventKind::TrackCodec { mime_type: "video/VP9", .. })) == 1);
}

/// A dependency descriptor: three spatial layers in as many templates.
fn dependency(structure: bool, template: u8, number: u16) -> Vec<u8> {
    let mut bytes = vec![0xc0 | template];
    bytes.extend(number.to_be_bytes());
    if structure {
        // Structure follows; offset 0, three decode targets; next spatial layer, twice; no more.
        let bits = "1 0000 000000 00010 10 10 11".replace(' ', "");
        let byte = |bits: &[u8]| bits.iter().enumerate().fold(0, |sum, (at, bit)| sum | (bit - b'0') << (7 - at));
        bytes.extend(bits.as_bytes().chunks(8).map(byte));
    }
    bytes
}

#[test]
fn av1_is_forwarded_with_its_descriptor_and_without_the_layers_that_are_not_wanted() {
    let mut sim = Sim::new(5);
    sim.codecs = vec![Codec::Av1, Codec::Vp8];
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let camera = sim.publish(anna, VIDEO, "camera");
    sim.run_ms(400);
    let play = |sim: &mut Sim, from: u32, to: u32| {
        for n in from..to {
            for spatial in 0..3u8 {
                let number = (n * 3) as u16 + u16::from(spatial);
                let bytes = dependency(n == 0 && spatial == 0, spatial, number);
                sim.send_with_dependency(anna, &camera, n * 3_000, &[0x10, 0x32, spatial], &bytes);
            }
            sim.run_ms(33);
        }
        sim.run_ms(50);
    };
    play(&mut sim, 0, 30);
    sim.view(ben, &camera, layer(1));
    play(&mut sim, 30, 60);
    let seen = sim.received(ben, &camera);
    assert_eq!(seen.len(), 30 * 3 + 30 * 2);
    assert!(seen.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    assert!(seen.iter().all(|packet| packet.dependency.is_some()));
    assert!(seen[90..].iter().all(|packet| packet.marker == (packet.payload[2] == 1)));
}

#[test]
fn who_takes_only_the_second_codec_gets_that_and_the_others_keep_the_first() {
    let mut sim = Sim::new(6);
    sim.codecs = vec![Codec::Vp9, Codec::Vp8];
    let (anna, ben) = (sim.join(), sim.join());
    sim.codecs = vec![Codec::Vp8];
    let old = sim.join();
    sim.connect();
    let camera = sim.publish(anna, VIDEO, "camera");
    sim.run_ms(400);
    let send = |sim: &mut Sim, codec: Codec, track: &TrackSid, n: u32, keyframe: bool| {
        let payload = if codec == Codec::Vp9 { vp9(keyframe, n as u8, 0) } else { vp8(keyframe, true, n as u16, &[9]) };
        sim.clients[anna].sends = codec;
        sim.send(anna, track, n * 3_000, true, &payload);
    };
    for n in 0..30 {
        send(&mut sim, Codec::Vp9, &camera, n, n == 0);
        sim.run_ms(33);
    }
    assert_eq!((sim.received(ben, &camera).len(), sim.received(old, &camera).len()), (30, 0));
    let unsupported = |kind: &EventKind| matches!(kind, EventKind::TrackUnsupported { .. });
    assert_eq!(sim.count(unsupported), 1, "it is told once");
    // The publisher sends a second codec, too: another section of the same track.
    let (room, participant) = (sim.room.clone(), sim.clients[anna].sid.clone());
    let track = PendingTrack {
        track: camera.clone(),
        kind: VIDEO,
        cids: vec!["cid2".into()],
        opus: Default::default(),
        codec: String::new(),
        backup: true,
        screen: false,
    };
    sim.command(Command::Publish { room, participant, track });
    let second = TrackSid::from("TR_second");
    sim.add_uplink(anna, VIDEO, &second, "cid2", &[]);
    sim.offer(anna);
    sim.run_ms(400);
    for n in 30..60 {
        let asked = sim.clients[anna].keyframe_requests.pop().is_some();
        send(&mut sim, Codec::Vp9, &camera, n, asked);
        send(&mut sim, Codec::Vp8, &second, n, asked || n == 30);
        sim.run_ms(33);
    }
    let codecs = |client: usize| -> Vec<u8> { sim.received(client, &camera).iter().map(|it| it.pt).collect() };
    assert!(codecs(old).len() >= 25);
    assert_eq!(codecs(ben).len(), 60);
    assert!(codecs(ben).iter().all(|pt| *pt == codecs(ben)[0]), "who takes the first codec gets no other");
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::TrackLive { .. })), 1, "it is one track");
    // The section of the second codec ends: the track goes on.
    sim.stop(anna, &second);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::TrackEnded { .. })), 0);
}

#[test]
fn h264_starts_with_its_parameters_and_keeps_its_profile() {
    let mut sim = Sim::new(7);
    sim.codecs = vec![Codec::H264];
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let camera = sim.publish(anna, VIDEO, "camera");
    sim.run_ms(400);
    sim.send(anna, &camera, 0, true, &[0x65, 1]);
    sim.run_ms(20);
    sim.send(anna, &camera, 3_000, false, &[0x78, 0, 2, 0x67, 0, 0, 2, 0x68, 0]);
    sim.send(anna, &camera, 3_000, true, &[0x65, 2]);
    sim.send(anna, &camera, 6_000, true, &[0x41, 3]);
    sim.run_ms(50);
    let seen = sim.received(ben, &camera);
    let first: Vec<u8> = seen.iter().map(|packet| packet.payload[0]).collect();
    assert_eq!(first, [0x78, 0x65, 0x41], "nothing before what can be decoded");
    let publisher = sim.clients[anna].rtc.codec_config().params().iter().find(|it| it.spec().codec == Codec::H264);
    let profile = publisher.unwrap().spec().format;
    let receiver = sim.clients[ben].rtc.codec_config().params().iter().find(|it| *it.pt() == seen[0].pt);
    assert_eq!(receiver.unwrap().spec().format, profile);
}
