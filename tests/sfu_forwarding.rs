//! Packets of one client to the others, through str0m at both ends, over a simulated network.

mod sfu_harness;

use sfu_harness::{Sim, vp8};
use viva::sfu::{EventKind, MediaKind};

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
