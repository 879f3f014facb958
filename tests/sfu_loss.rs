//! Sound over networks that lose packets: what a receiver can play, in simulated time, with seeds.

mod sfu_harness;

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use sfu_harness::{Received, Sim};
use str0m::rtp::{RedDecoder, RedEncoder, RedundantBlock};
use viva::{
    id::TrackSid,
    media::{OpusFrame, tap},
    sfu::{Command, EventKind, MediaKind, OpusOptions},
};

const AUDIO: MediaKind = MediaKind::Audio;
const OPUS: u8 = 111;
const RED: u8 = 63;
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;
/// Receivers report what they miss each second or so; a call that lasts has told by then.
const TOLD: u32 = 200;
const MEASURED: u32 = 1_500;

fn opus(n: u32) -> Vec<u8> {
    [&n.to_be_bytes()[..], &[9; 60]].concat()
}

/// The packet with this number as a browser sends it: with the one before.
fn with_one_before(n: u32) -> Vec<u8> {
    let before = n.checked_sub(1).map(|n| RedundantBlock { pt: OPUS, timestamp_offset: 960, payload: opus(n) });
    RedEncoder::encode(OPUS, &opus(n), before.as_slice())
}

/// A publisher and two receivers: the first knows redundancy, the second does not.
fn call(seed: u64, publisher_knows_it: bool) -> (Sim, usize, [usize; 2], TrackSid) {
    let mut sim = Sim::new(seed);
    sim.red = publisher_knows_it;
    let anna = sim.join();
    sim.red = true;
    let ben = sim.join();
    sim.red = false;
    let old = sim.join();
    sim.connect();
    let voice = sim.publish(anna, AUDIO, "voice");
    sim.run_ms(400);
    (sim, anna, [ben, old], voice)
}

fn talk(sim: &mut Sim, client: usize, voice: &TrackSid, numbers: std::ops::Range<u32>, redundant: bool) {
    for n in numbers {
        let payload = if redundant { with_one_before(n) } else { opus(n) };
        sim.send_audio(client, voice, n * 960, &payload, -20);
        sim.run_ms(20);
    }
    sim.run_ms(200);
}

/// The numbers of the packets that one can play, primary or redundant.
fn playable(seen: &[&Received]) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    let number = |payload: &[u8]| u32::from_be_bytes(payload[..4].try_into().unwrap());
    for packet in seen {
        if packet.pt != RED {
            numbers.insert(number(&packet.payload));
            continue;
        }
        for block in RedDecoder::decode(&packet.payload).unwrap() {
            assert_eq!(block.pt, OPUS);
            numbers.insert(number(block.payload));
        }
    }
    numbers
}

fn share(seen: &[&Received], numbers: std::ops::Range<u32>) -> f64 {
    let count = numbers.len();
    let playable = playable(seen);
    numbers.filter(|n| playable.contains(n)).count() as f64 / count as f64
}

/// Sequence numbers without a gap but for what was lost on the way to it, and times that fit them.
fn assert_numbered_as_sent(seen: &[&Received]) {
    let first = seen[0];
    for packet in seen {
        let steps = packet.seq - first.seq;
        assert_eq!(u64::from(packet.time.wrapping_sub(first.time)), steps * 960, "packet {steps}");
    }
}

#[test]
fn what_is_lost_on_the_way_to_a_receiver_is_played_from_redundancy() {
    for publisher_knows_it in [true, false] {
        // One packet before each would make 0.99, 0.96 and 0.91; told of its losses, a receiver gets two.
        for (loss, least) in [(0.1, 0.995), (0.2, 0.985), (0.3, 0.955)] {
            for seed in SEEDS {
                let (mut sim, anna, [ben, old], voice) = call(seed, publisher_knows_it);
                talk(&mut sim, anna, &voice, 0..10, publisher_knows_it);
                sim.loss_to.insert(ben, loss);
                talk(&mut sim, anna, &voice, 10..TOLD + MEASURED, publisher_knows_it);
                let seen = sim.received(ben, &voice);
                assert!(seen.iter().all(|packet| packet.pt == RED));
                assert_numbered_as_sent(&seen);
                let played = share(&seen, TOLD..TOLD + MEASURED);
                assert!(played >= least, "loss {loss}, seed {seed}: {played}");
                let plain = sim.received(old, &voice);
                assert!(plain.iter().all(|packet| packet.pt == OPUS), "who does not know redundancy gets none");
                assert_eq!(plain.len() as u32, TOLD + MEASURED);
            }
        }
    }
}

#[test]
fn who_misses_nothing_gets_one_packet_before_each_and_no_more() {
    let (mut sim, anna, [ben, _], voice) = call(1, true);
    talk(&mut sim, anna, &voice, 0..800, true);
    let seen = sim.received(ben, &voice);
    let before = |packet: &Received| RedDecoder::decode(&packet.payload).unwrap().len() - 1;
    assert_eq!((seen.len(), before(seen[0])), (800, 0));
    // At first nobody knows what it will miss.
    assert!(seen[2..50].iter().all(|packet| before(packet) == 2));
    assert!(seen[600..].iter().all(|packet| before(packet) == 1));
}

#[test]
fn what_is_lost_on_the_way_from_a_publisher_is_rebuilt_for_all_who_hear_it() {
    for seed in SEEDS {
        let (mut sim, anna, [ben, old], voice) = call(seed, true);
        let (writer, mut reader) = tap(usize::from(u16::MAX));
        sim.open_tap(anna, &voice, 1, writer);
        talk(&mut sim, anna, &voice, 0..10, true);
        sim.loss_from.insert(anna, 0.2);
        talk(&mut sim, anna, &voice, 10..MEASURED, true);
        for listener in [ben, old] {
            let seen = sim.received(listener, &voice);
            assert_numbered_as_sent(&seen);
            let played = share(&seen, 0..MEASURED);
            assert!(played >= 0.945, "seed {seed}: {played}");
            let seqs: BTreeSet<u64> = seen.iter().map(|packet| packet.seq).collect();
            assert_eq!(seqs.len(), seen.len(), "nothing comes twice");
        }
        let mut heard = BTreeMap::new();
        while let Some(Some(packet)) = reader.read().now_or_never() {
            let n = u32::from_be_bytes(packet.payload[..4].try_into().unwrap());
            assert_eq!(&packet.payload[..], opus(n), "plain Opus");
            assert!(heard.insert(packet.seq, n).is_none());
        }
        assert_eq!(heard.len(), sim.received(old, &voice).len());
        assert!(sim.sfu.stats().rebuilt as f64 >= 0.12 * f64::from(MEASURED));
    }
}

#[test]
fn a_voice_without_a_transport_comes_with_redundancy_to_those_who_know_it() {
    let (mut sim, _, [ben, old], _) = call(1, true);
    let agent = sim.join_agent();
    let (room, track) = (sim.room.clone(), TrackSid::from("TR_agent"));
    sim.command(Command::PublishInjected { room: room.clone(), participant: agent, track: track.clone() });
    sim.run_ms(400);
    sim.loss_to.insert(ben, 0.2);
    for n in 0..1_000 {
        let frame = OpusFrame { payload: opus(n).into(), starts_talk_spurt: n == 0, report: None };
        sim.command(Command::Inject { room: room.clone(), track: track.clone(), frame });
        sim.run_ms(20);
    }
    sim.run_ms(200);
    let seen = sim.received(ben, &track);
    assert_numbered_as_sent(&seen);
    let played = share(&seen, 0..1_000);
    assert!(played >= 0.96, "{played}");
    assert_eq!(sim.received(old, &track).len(), 1_000);
}

#[test]
fn a_publisher_that_refuses_redundancy_is_not_asked_for_it_and_nobody_gets_it() {
    let mut sim = Sim::new(1);
    sim.red = true;
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    sim.opus = OpusOptions { red: false, dtx: true, stereo: true };
    let music = sim.publish(anna, AUDIO, "music");
    sim.run_ms(400);
    let answer = sim.clients[anna].answers.last().unwrap();
    let section = answer.rsplit("m=audio").next().unwrap();
    assert!(section.lines().next().unwrap().ends_with(" 111 63"), "{section}");
    assert!(section.contains(";useinbandfec=1;usedtx=1;stereo=1;"), "{section}");
    // It knows redundancy, so what it sends by that payload type is taken apart; but it goes on without.
    talk(&mut sim, anna, &music, 0..50, true);
    let seen = sim.received(ben, &music);
    assert_eq!(seen.len(), 50);
    assert!(seen.iter().all(|packet| packet.pt == OPUS && packet.payload.len() == opus(0).len()));
}

#[test]
fn answers_put_redundancy_first_as_browsers_then_send_it() {
    let (sim, anna, _, _) = call(1, true);
    let answer = sim.clients[anna].answers.last().unwrap();
    let section = answer.rsplit("m=audio").next().unwrap();
    assert!(section.lines().next().unwrap().ends_with(" 63 111"), "{section}");
    assert!(section.contains("useinbandfec=1") && !section.contains("usedtx") && !section.contains("stereo=1"));
}

#[test]
fn what_is_said_while_muted_reaches_nobody_afterwards() {
    let (mut sim, anna, [ben, old], voice) = call(1, true);
    talk(&mut sim, anna, &voice, 0..20, true);
    sim.mute(anna, &voice, true);
    talk(&mut sim, anna, &voice, 20..40, true);
    sim.mute(anna, &voice, false);
    talk(&mut sim, anna, &voice, 40..60, true);
    let expected: BTreeSet<u32> = (0..20).chain(40..60).collect();
    for listener in [ben, old] {
        let seen = sim.received(listener, &voice);
        assert_eq!(playable(&seen), expected);
        assert!(seen.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "no gap shows where it was muted");
    }
}

#[test]
fn who_speaks_is_known_with_redundancy_too() {
    let (mut sim, anna, _, voice) = call(1, true);
    talk(&mut sim, anna, &voice, 0..100, true);
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::Speaker { active: true, .. })), 1);
}
