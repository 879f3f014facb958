//! What one forwarded packet costs the media core: one publisher, receivers with real DTLS-SRTP at both ends, no
//! sockets. Beside it the floor of any such server, measured in the same run: one copy and one AES-GCM seal a packet.
//!
//! The shape decides the figure, so it is stated: frames of ten packets of 1,100 bytes are handed in as one batch,
//! and single packets for comparison. Ratios to the floor compare across machines; nanoseconds do not.

#[path = "../tests/sfu_harness/mod.rs"]
mod sfu_harness;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use sfu_harness::{Sim, Spent, vp8};
use viva::{
    id::TrackSid,
    sfu::{Claim, MediaKind, Step, View, allocate},
};

const PAYLOAD_BYTES: usize = 1_100;
/// Repetitions of which the median is told; a shared machine is noisy.
const ROUNDS: usize = 7;
/// Forwarded packets per repetition, about.
const PACKETS: usize = 4_000;
/// For switches and retransmissions.
const MANY: usize = 50;

/// How much of everything.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    packets: usize,
}

fn main() {
    // `cargo test` runs benches with `--test` to see that they work: one short round is enough then.
    let quick = std::env::args().any(|argument| argument == "--test");
    let effort = if quick { Effort { rounds: 1, packets: 200 } } else { Effort { rounds: ROUNDS, packets: PACKETS } };
    let floor = median((0..effort.rounds).map(|_| floor_ns(if quick { 100 } else { 100_000 })));
    println!("floor: copy + AES-256-GCM seal of {PAYLOAD_BYTES} B         {floor:8.0} ns/packet");
    for receivers in [1, 10, 100] {
        for in_batch in [1, 10] {
            forward(effort, floor, receivers, in_batch);
        }
    }
    answer_nacks(effort, floor);
    switch_layers(effort);
    divide(effort);
}

/// A call in which one films and so many receive.
struct Film {
    sim: Sim,
    publisher: usize,
    camera: TrackSid,
    frame: u32,
    in_batch: usize,
}

impl Film {
    fn new(receivers: usize, in_batch: usize) -> Self {
        let mut sim = Sim::new(1);
        sim.delay = Duration::from_micros(100);
        let publisher = sim.join();
        for _ in 0..receivers {
            sim.join();
        }
        sim.connect();
        let camera = sim.publish(publisher, MediaKind::Video, "camera");
        sim.run_ms(500);
        let mut film = Self { sim, publisher, camera, frame: 0, in_batch };
        (0..3).for_each(|_| _ = film.burst());
        film
    }

    fn burst(&mut self) -> Spent {
        self.frame += 1;
        let (frame, in_batch) = (self.frame, self.in_batch);
        let packet = |part| {
            let payload = vp8(frame % 50 == 1, part == 0, (frame & 0x7fff) as u16, &[7; PAYLOAD_BYTES - 5]);
            (frame * 1_800, part + 1 == in_batch, payload)
        };
        self.sim.burst(self.publisher, &self.camera, &(0..in_batch).map(packet).collect::<Vec<_>>())
    }
}

fn forward(effort: Effort, floor: f64, receivers: usize, in_batch: usize) {
    let mut film = Film::new(receivers, in_batch);
    let bursts = (effort.packets / receivers / in_batch).max(2);
    let measured: Vec<(f64, f64)> = (0..effort.rounds)
        .map(|_| {
            let spent: Vec<Spent> = (0..bursts).map(|_| film.burst()).collect();
            let packets = (bursts * in_batch * receivers) as f64;
            assert!(spent.iter().map(|it| it.datagrams).sum::<usize>() as f64 >= packets * 0.95);
            let per_packet =
                |part: fn(&Spent) -> Duration| spent.iter().map(part).sum::<Duration>().as_nanos() as f64 / packets;
            (per_packet(|spent| spent.media), per_packet(|spent| spent.feedback))
        })
        .collect();
    let media = median(measured.iter().map(|(media, _)| *media));
    let feedback = median(measured.iter().map(|(_, feedback)| *feedback));
    println!(
        "forward: 1 -> {receivers:3}, {in_batch:2} packets a batch          {media:8.0} ns/packet = {:.1} x floor; \
         receivers' feedback for it {feedback:.0} ns",
        media / floor
    );
}

/// What one packet costs that is sent again, from the report that misses it.
fn answer_nacks(effort: Effort, floor: f64) {
    let mut film = Film::new(MANY, 10);
    let mut measure = |lose: usize| {
        film.sim.lose_one_in = lose;
        let before = film.sim.sfu.stats().retransmitted_out;
        let bursts = (effort.packets / 200).max(20);
        let spent: Duration = (0..bursts).map(|_| film.burst().feedback).sum();
        (
            spent.as_nanos() as f64 / bursts as f64,
            (film.sim.sfu.stats().retransmitted_out - before) as f64 / bursts as f64,
        )
    };
    let (without, _) = measure(0);
    let (with, answers) = measure(5);
    assert!(answers > 1.0, "nobody asked for anything");
    let each = (with - without) / answers;
    println!(
        "answer to a NACK, one packet of {PAYLOAD_BYTES} B            {each:8.0} ns/packet = {:.1} x floor",
        each / floor
    );
}

/// What it costs that all receivers go to another layer at once, beyond forwarding the keyframe at which they do.
fn switch_layers(effort: Effort) {
    let mut sim = Sim::new(2);
    let publisher = sim.join();
    (0..MANY).for_each(|_| _ = sim.join());
    sim.connect();
    let camera = TrackSid::from("TR_layers");
    sim.announce(publisher, MediaKind::Video, &camera, "layers");
    sim.add_uplink(publisher, MediaKind::Video, &camera, "layers", &["q", "h"]);
    sim.run_ms(500);
    let mut frame = 0u32;
    let mut film = |sim: &mut Sim, keyframe: bool| {
        frame += 1;
        let payload = vp8(keyframe, true, (frame & 0x7fff) as u16, &[7; PAYLOAD_BYTES - 5]);
        let burst = |layer| (layer, frame * 1_800, payload.clone());
        sim.burst_layers(publisher, &camera, &[burst(0), burst(1)]).media
    };
    (0..10).for_each(|n| _ = film(&mut sim, n == 0));
    let (mut steady, mut switching) = (Vec::new(), Vec::new());
    for round in 0..effort.rounds * 4 {
        for layer in [0, 1] {
            steady.push(film(&mut sim, true).as_nanos() as f64);
            let started = Instant::now();
            (1..=MANY).for_each(|client| {
                let room = sim.room.clone();
                let subscriber = sim.clients[client].sid.clone();
                let view = View { layer, ..View::default() };
                sim.sfu.handle_command(
                    sim.now,
                    viva::sfu::Command::View { room, subscriber, track: camera.clone(), view },
                );
            });
            let asked = started.elapsed();
            switching.push((asked + film(&mut sim, true)).as_nanos() as f64);
            black_box(round);
        }
    }
    let each = (median(switching.into_iter()) - median(steady.into_iter())).max(0.0) / MANY as f64;
    println!("switch of layer, command and first packet         {each:8.0} ns/receiver beyond a keyframe");
}

/// What it costs to divide a network among ten videos of nine steps each.
fn divide(effort: Effort) {
    let step = |at: u8| Step { layer: at / 3, temporal: at % 3, bps: 100_000 * (1 + u64::from(at)) };
    let claim = |priority| Claim { priority, steps: (0..9).map(step).collect(), current: Some(4) };
    let claims: Vec<Claim> = (0..10).map(|n| claim(n % 3)).collect();
    let each = median((0..effort.rounds).map(|_| {
        let started = Instant::now();
        for n in 0..1_000 {
            black_box(allocate(black_box(1_000_000 + n * 1_000), &claims));
        }
        started.elapsed().as_nanos() as f64 / 1_000.0
    }));
    println!("allocator: 10 videos of 9 steps each              {each:8.0} ns");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds for one copy and one seal, with the cipher that the transports use, in memory that is there.
fn floor_ns(packets: u32) -> f64 {
    let provider = str0m::crypto::from_feature_flags();
    let mut cipher = provider.srtp_provider.aead_aes_256_gcm().create_cipher([7; 32], true);
    let payload = vec![7u8; PAYLOAD_BYTES];
    let mut sealed = vec![0u8; PAYLOAD_BYTES + 16];
    let started = Instant::now();
    for n in 0..packets {
        let mut iv = [0; 12];
        iv[..4].copy_from_slice(&n.to_be_bytes());
        cipher.encrypt(&iv, &[0; 12], black_box(&payload), &mut sealed).expect("a seal cannot fail");
        black_box(&sealed);
    }
    started.elapsed().as_nanos() as f64 / f64::from(packets)
}
