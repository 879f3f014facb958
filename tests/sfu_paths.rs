//! By which path media goes: TCP where UDP does not get through, UDP where it does, another one when the client says so,
//! and none at all to a client that is heard no more.

mod sfu_harness;

use std::time::Duration;

use sfu_harness::Sim;
use viva::{
    id::TrackSid,
    sfu::{Connections, EventKind, MediaKind, Protocol},
};

/// A call in which the first client speaks to the second.
fn call(sim: &mut Sim) -> (usize, usize, TrackSid) {
    let (anna, ben) = (sim.join(), sim.join());
    sim.connect();
    let mic = sim.publish(anna, MediaKind::Audio, "mic");
    sim.run_ms(400);
    (anna, ben, mic)
}

/// Speaks for this long; returns the packets that the other client heard of it.
fn talk(sim: &mut Sim, anna: usize, ben: usize, mic: &TrackSid, time: Duration) -> usize {
    let before = sim.received(ben, mic).len();
    let from = sim.now.duration_since(sim.start).as_millis() as u32;
    for n in 0..(time.as_millis() / 20) as u32 {
        sim.send_audio(anna, mic, (from + n * 20) * 48, &[1, 2, 3], -20);
        sim.run_ms(20);
    }
    sim.received(ben, mic).len() - before
}

#[test]
fn without_udp_a_call_comes_up_by_tcp_and_media_flows() {
    for connections in [Connections::One, Connections::Fixed] {
        let mut sim = Sim::with_tcp(81);
        sim.blocked = Some(Protocol::Udp);
        let anna = sim.join_by(connections, true, 3);
        let ben = sim.join();
        sim.connect();
        let took = sim.now.duration_since(sim.start);
        assert!(took < Duration::from_secs(3), "{took:?}");
        let mic = sim.publish(anna, MediaKind::Audio, "mic");
        sim.run_ms(400);
        let heard = talk(&mut sim, anna, ben, &mic, Duration::from_secs(2));
        assert!(heard >= 98, "{heard} of 100");
        assert_eq!(sim.sfu.stats().connected, [0, 2]);
        assert_eq!(sim.delivered[0], 0);
    }
}

#[test]
fn where_udp_works_media_does_not_go_by_tcp() {
    let mut sim = Sim::with_tcp(82);
    let (anna, ben, mic) = call(&mut sim);
    let tcp_before = sim.delivered[1];
    assert_eq!(talk(&mut sim, anna, ben, &mic, Duration::from_secs(10)), 500);
    let by_tcp = sim.delivered[1] - tcp_before;
    // Answers to the checks of the path that is kept in reserve.
    assert!(by_tcp < 50, "{by_tcp}");
    let answer = sim.clients[anna].answers.last().unwrap();
    let candidates: Vec<&str> = answer.lines().filter(|line| line.starts_with("a=candidate:")).collect();
    let priority = |protocol: &str| {
        let line = candidates.iter().find(|line| line.split(' ').nth(2) == Some(protocol)).expect(protocol);
        line.split(' ').nth(3).unwrap().parse::<u32>().unwrap()
    };
    assert!(priority("udp") > priority("tcp"), "{candidates:#?}");
    assert!(
        candidates.iter().any(|line| line.ends_with(" typ host tcptype passive") || line.contains(" tcptype passive "))
    );
}

#[test]
fn a_client_whose_udp_dies_in_the_call_goes_on_by_tcp() {
    let mut sim = Sim::with_tcp(83);
    let (anna, ben, mic) = call(&mut sim);
    assert_eq!(talk(&mut sim, anna, ben, &mic, Duration::from_secs(2)), 100);
    sim.blocked = Some(Protocol::Udp);
    // str0m as the client takes its time to see it; then both directions are by TCP.
    talk(&mut sim, anna, ben, &mic, Duration::from_secs(30));
    let heard = talk(&mut sim, anna, ben, &mic, Duration::from_secs(2));
    assert!(heard >= 98, "{heard} of 100");
    assert!(sim.sfu.stats().path_changes[1] >= 2, "{:?}", sim.sfu.stats());
    assert_eq!(sim.count(|kind| matches!(kind, EventKind::Closed { .. })), 0);
}

#[test]
fn a_client_that_is_heard_no_more_is_sent_nothing_within_half_a_minute_and_is_told_of() {
    let mut sim = Sim::new(84);
    let (anna, ben, mic) = call(&mut sim);
    assert_eq!(talk(&mut sim, anna, ben, &mic, Duration::from_secs(2)), 100);
    let gone = sim.clients[ben].address;
    let (mut last_sent, vanished) = (sim.now, sim.now);
    sim.cut(gone.ip());
    for n in 0..3_000u32 {
        sim.send_audio(anna, &mic, (10_000 + n) * 960, &[1], -20);
        let sent = sim.sent_to_nobody;
        sim.run_ms(20);
        if sim.sent_to_nobody > sent {
            last_sent = sim.now;
        }
    }
    let (lost_after, sent_for) = (sim.lost_at.map(|at| at - vanished), last_sent - vanished);
    println!("told after {lost_after:?}, sent for {sent_for:?}");
    assert!(sent_for > Duration::from_secs(5), "a hiccup is no farewell");
    assert!(sent_for <= Duration::from_secs(30), "{sent_for:?}");
    assert!(lost_after.is_some_and(|after| after <= Duration::from_secs(30)), "{lost_after:?}");
    assert!(sim.sfu.stats().dropped_no_consent > 0);

    // It comes back with an ICE restart, as clients do, and is sent to again.
    sim.heal();
    sim.clients[ben].restart_ice();
    sim.offer(ben);
    sim.run_ms(5_000);
    let heard = talk(&mut sim, anna, ben, &mic, Duration::from_secs(2));
    assert!(heard >= 95, "{heard} of 100");
}
