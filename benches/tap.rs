//! What listening costs: one packet of 20 ms from the tap through order, Opus and voice activity, and what speaking
//! costs: resampling and encoding one.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use viva::{
    media::{AudioPacket, PACKET_SAMPLES},
    speech::{
        codec::{Decoder, Encoder, Resampler},
        ear::Ear,
        vad::{Vad, VadConfig},
    },
};

/// Something like a voice: a buzz whose pitch and loudness move, with pauses. 48 kHz, 10 s.
fn voice() -> Vec<i16> {
    let mut phase = 0.0f64;
    (0..480_000)
        .map(|i| {
            let t = f64::from(i) / 48_000.0;
            phase += (130.0 + 40.0 * (t * 3.1).sin()) / 48_000.0;
            let buzz: f64 = (1..20).map(|h| (phase * f64::from(h) * std::f64::consts::TAU).sin() / f64::from(h)).sum();
            let loudness = ((t * 4.3).sin().max(0.0) * (t * 0.7).sin().abs()).min(1.0);
            (buzz * loudness * 6000.0) as i16
        })
        .collect()
}

fn packets() -> Vec<Box<[u8]>> {
    let mut encoder = Encoder::new().unwrap();
    voice().chunks_exact(PACKET_SAMPLES).map(|frame| encoder.encode(frame).unwrap()).collect()
}

fn listening(c: &mut Criterion) {
    let packets = packets();
    let mut group = c.benchmark_group("per 20 ms packet");
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode at 16 kHz", |b| {
        let mut decoder = Decoder::new().unwrap();
        let mut at = packets.iter().cycle();
        b.iter(|| black_box(decoder.decode(at.next().unwrap()).unwrap().len()));
    });
    group.bench_function("voice activity", |b| {
        let mut vad = Vad::new(&VadConfig::default());
        let samples: Vec<i16> = voice().iter().step_by(3).copied().collect();
        let mut at = samples.chunks_exact(320).cycle();
        let (now, mut events) = (Instant::now(), Vec::new());
        b.iter(|| {
            vad.push(at.next().unwrap(), now, &mut events);
            events.clear();
        });
    });
    group.bench_function("tap: order, decode, voice activity", |b| {
        let (mut ear, mut vad) = (Ear::new().unwrap(), Vad::new(&VadConfig::default()));
        let (start, mut seq, mut events) = (Instant::now(), 0u64, Vec::new());
        b.iter(|| {
            let packet = AudioPacket {
                source: 1,
                seq,
                rtp_time: seq * 960,
                arrived: start + Duration::from_millis(20) * seq as u32,
                payload: packets[seq as usize % packets.len()].clone(),
            };
            seq += 1;
            ear.handle_packet(packet, &mut |samples, at| vad.push(samples, at, &mut events));
            events.clear();
        });
    });
    group.bench_function("speak: resample from 22.05 kHz, encode", |b| {
        let (mut resampler, mut encoder) = (Resampler::new(22_050).unwrap(), Encoder::new().unwrap());
        let samples = voice();
        let mut at = samples.chunks_exact(441).cycle();
        let mut out = Vec::new();
        b.iter(|| {
            resampler.push(at.next().unwrap(), &mut out).unwrap();
            if out.len() >= PACKET_SAMPLES {
                black_box(encoder.encode(&out[..PACKET_SAMPLES]).unwrap());
                out.drain(..PACKET_SAMPLES);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, listening);
criterion_main!(benches);
