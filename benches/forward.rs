//! What one forwarded packet costs the media core: one publisher, 50 receivers, real DTLS-SRTP at both ends, no
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
use viva::sfu::MediaKind;

const RECEIVERS: usize = 50;
const PAYLOAD_BYTES: usize = 1_100;
/// Repetitions of which the median is told; a shared machine is noisy.
const ROUNDS: usize = 7;
/// Frames per repetition.
const FRAMES: usize = 40;

fn main() {
    // `cargo test` runs benches with `--test` to see that they work: one short round is enough then.
    let quick = std::env::args().any(|argument| argument == "--test");
    let (rounds, frames) = if quick { (1, 2) } else { (ROUNDS, FRAMES) };
    let floor = median((0..rounds).map(|_| floor_ns(if quick { 100 } else { 100_000 })));
    println!("floor: copy + AES-256-GCM seal of {PAYLOAD_BYTES} B       {floor:8.0} ns/packet");
    for packets_per_frame in [1, 10] {
        let mut sim = Sim::new(1);
        sim.delay = Duration::from_micros(100);
        let publisher = sim.join();
        for _ in 0..RECEIVERS {
            sim.join();
        }
        sim.connect();
        let camera = sim.publish(publisher, MediaKind::Video, "camera");
        sim.run_ms(500);
        let mut frame = 0u32;
        let mut burst = || {
            frame += 1;
            let packets: Vec<_> = (0..packets_per_frame)
                .map(|part| {
                    let keyframe = frame % 50 == 1;
                    let payload = vp8(keyframe, part == 0, (frame & 0x7fff) as u16, &[7; PAYLOAD_BYTES - 5]);
                    (frame * 1_800, part + 1 == packets_per_frame, payload)
                })
                .collect();
            sim.burst(publisher, &camera, &packets)
        };
        (0..3).for_each(|_| _ = burst());
        let per_packet = |part: fn(&Spent) -> Duration, spent: &[Spent]| {
            let packets = spent.len() * packets_per_frame * RECEIVERS;
            spent.iter().map(part).sum::<Duration>().as_nanos() as f64 / packets as f64
        };
        let measured: Vec<(f64, f64)> = (0..rounds)
            .map(|_| {
                let spent: Vec<Spent> = (0..frames).map(|_| burst()).collect();
                assert!(spent.iter().all(|spent| spent.datagrams >= packets_per_frame * RECEIVERS));
                (per_packet(|spent| spent.media, &spent), per_packet(|spent| spent.feedback, &spent))
            })
            .collect();
        let media = median(measured.iter().map(|(media, _)| *media));
        let feedback = median(measured.iter().map(|(_, feedback)| *feedback));
        println!(
            "forward: 1 -> {RECEIVERS}, {packets_per_frame:2} packets a batch          {media:8.0} ns/packet = {:.1} x floor",
            media / floor
        );
        println!("  and receivers' feedback for it             {feedback:8.0} ns/packet");
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds for one copy into a fresh buffer and one seal, with the cipher that the transports use.
fn floor_ns(packets: u32) -> f64 {
    let provider = str0m::crypto::from_feature_flags();
    let mut cipher = provider.srtp_provider.aead_aes_256_gcm().create_cipher([7; 32], true);
    let payload = vec![7u8; PAYLOAD_BYTES];
    let started = Instant::now();
    for n in 0..packets {
        let copy = black_box(payload.clone());
        let mut sealed = vec![0u8; PAYLOAD_BYTES + 16];
        let mut iv = [0; 12];
        iv[..4].copy_from_slice(&n.to_be_bytes());
        cipher.encrypt(&iv, &[0; 12], &copy, &mut sealed).expect("a seal cannot fail");
        black_box(sealed);
    }
    started.elapsed().as_nanos() as f64 / f64::from(packets)
}
