//! Stories of calls over a virtual link, and what no report may do.

mod link;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use self::link::{Call, Link, Seen};
use super::{Estimator, LEAST_BPS, MOST_BPS};

fn reached(seen: &[Seen], bps: u64) -> f64 {
    let from = seen.first().unwrap().at;
    seen.iter().find(|it| it.estimate >= bps).map_or(f64::MAX, |it| it.at - from)
}

fn least(seen: &[Seen]) -> u64 {
    seen.iter().map(|it| it.estimate).min().unwrap()
}

fn most(seen: &[Seen]) -> u64 {
    seen.iter().map(|it| it.estimate).max().unwrap()
}

fn after(seen: &[Seen], secs: f64) -> &[Seen] {
    &seen[(secs * 100.0) as usize..]
}

/// The mean and the 95th percentile of the queue, in milliseconds.
fn queue(seen: &[Seen]) -> (f64, f64) {
    let mut queued: Vec<f64> = seen.iter().map(|it| it.queued).collect();
    queued.sort_by(f64::total_cmp);
    (queued.iter().sum::<f64>() / queued.len() as f64, queued[queued.len() * 95 / 100])
}

#[test]
fn what_the_network_has_room_for_is_reached_within_two_seconds_and_kept() {
    for (initial, each) in [(2_500_000, 100), (300_000, 100), (300_000, 50), (2_500_000, 50)] {
        let mut call = Call::new(Link::default(), initial, 2_500_000).reported_each(each);
        let seen = call.run(20.0);
        let at = reached(&seen, 2_500_000);
        assert!(at < 2.0, "{at} s from {initial}");
        let least = least(after(&seen, 2.0));
        assert!(least >= 2_500_000, "{least} from {initial}");
        let round_trip = call.estimator.round_trip().unwrap();
        assert!((50..80).contains(&round_trip.as_millis()), "{round_trip:?}");
    }
}

#[test]
fn a_network_that_shrinks_is_followed_within_a_second_and_one_that_grows_within_eight() {
    for (queue, each, way) in
        [(300_000, 100, 25_000), (1_000_000, 100, 25_000), (1_000_000, 50, 50_000), (500_000, 50, 5_000)]
    {
        let wide = Link { bps: 2_000_000, queue, way, ..Link::default() };
        let mut call = Call::new(wide, 1_000_000, 2_000_000).reported_each(each);
        call.run(10.0);
        call.link.bps = 300_000;
        let seen = call.run(15.0);
        let most = most(after(&seen, 1.0));
        assert!(most <= 330_000, "{most} with a queue of {queue} and reports each {each} ms");
        let (mean, _) = self::queue(after(&seen, 5.0));
        assert!(mean < 150.0, "{mean} ms with a queue of {queue}");
        call.link.bps = 2_000_000;
        let seen = call.run(10.0);
        let at = reached(&seen, 1_600_000);
        assert!(at < 8.0, "{at} s with a queue of {queue} and reports each {each} ms");
    }
}

#[test]
fn what_a_radio_link_loses_of_everything_holds_nothing_down() {
    for (loss, initial, seed) in [(0.1, 2_500_000, 1), (0.1, 300_000, 2), (0.2, 2_500_000, 3), (0.2, 300_000, 4)] {
        let mut call = Call::new(Link { loss, ..Link::default() }, initial, 2_000_000).seeded(seed);
        let seen = call.run(30.0);
        let down = after(&seen, 5.0).iter().filter(|it| it.estimate < 1_600_000).count();
        assert!(down <= 50, "{} ms down with {loss} lost from {initial}", down * 10);
        assert!((f64::from(call.estimator.loss()) - loss).abs() < 0.12, "{}", call.estimator.loss());
    }
}

#[test]
fn what_a_short_queue_loses_holds_down_what_is_sent() {
    for (bps, queue) in [(1_000_000, 20_000), (3_000_000, 10_000), (2_000_000, 15_000)] {
        let mut call = Call::new(Link { bps, queue, ..Link::default() }, 1_000_000, 6_000_000);
        call.run(10.0);
        let (sent, lost, arrived) = (call.sent.0, call.lost, call.arrived);
        call.run(20.0);
        let loss = (call.lost - lost) as f64 / (call.sent.0 - sent) as f64;
        let goodput = (call.arrived - arrived) as f64 * 8.0 / 20.0 / bps as f64;
        assert!(loss < 0.1 && goodput > 0.75, "{loss} lost, {goodput} of {bps} carried");
    }
}

#[test]
fn jitter_alone_holds_nothing_down() {
    for (initial, seed) in [(2_500_000, 1), (300_000, 2)] {
        let mut call = Call::new(Link { jitter: 30_000, ..Link::default() }, initial, 2_500_000).seeded(seed);
        let seen = call.run(30.0);
        assert!(reached(&seen, 2_500_000) < 10.0, "{} s from {initial}", reached(&seen, 2_500_000));
        let least = least(after(&seen, 10.0));
        assert!(least >= 2_000_000, "{least} from {initial}");
    }
}

#[test]
fn reports_that_are_missing_for_a_second_cost_little() {
    let mut call = Call::new(Link::default(), 2_500_000, 2_500_000);
    let before = call.run(5.0).last().unwrap().estimate;
    call.link.deaf = true;
    let least = least(&call.run(1.0));
    assert!(least < before && least > before / 2, "{least} of {before}");
    call.link.deaf = false;
    let at = reached(&call.run(3.0), 2_500_000);
    assert!(at < 0.5, "{at} s");
}

#[test]
fn a_path_that_was_gone_is_found_again() {
    let mut call = Call::new(Link::default(), 2_500_000, 2_500_000);
    call.run(5.0);
    call.link.gone = true;
    let seen = call.run(5.0);
    assert!(seen.last().unwrap().estimate < 500_000, "{}", seen.last().unwrap().estimate);
    call.link.gone = false;
    let at = reached(&call.run(10.0), 2_500_000);
    assert!(at < 8.0, "{at} s");
}

#[test]
fn who_sends_little_is_believed_little_and_probes_when_more_is_wanted() {
    for (bps, queue) in [(10_000_000, 300_000), (1_000_000, 300_000)] {
        let mut call = Call::new(Link { bps, queue, ..Link::default() }, 300_000, 300_000);
        let seen = call.run(60.0);
        let (least, most) = (least(after(&seen, 1.0)), most(&seen));
        assert!(least >= 290_000 && most <= 600_000, "{least} to {most}");
        assert!(call.padding < 20_000, "{} bytes of padding for nothing", call.padding);
        call.desired = 2_500_000;
        let seen = call.run(10.0);
        if bps > 2_500_000 {
            let at = reached(&seen, 2_500_000);
            assert!(at < 3.0, "{at} s");
        } else {
            let over = seen.iter().filter(|it| it.estimate > 1_200_000).count();
            assert!(over < 100, "{} ms over what the link carries", over * 10);
        }
    }
}

#[test]
fn a_full_network_is_filled_without_a_queue() {
    for (each, way, seed) in [(100, 25_000, 1), (50, 25_000, 2), (50, 100_000, 3), (100, 5_000, 4)] {
        let link = Link { bps: 1_000_000, queue: 1_000_000, way, ..Link::default() };
        let mut call = Call::new(link, 300_000, 2_500_000).reported_each(each).seeded(seed);
        let seen = call.run(60.0);
        let seen = after(&seen, 5.0);
        let (mean, late) = queue(seen);
        let least = least(seen);
        assert!(least >= 750_000, "{least} with reports each {each} ms");
        assert!(mean < 100.0 && late < 200.0, "{mean} ms, at times {late} with reports each {each} ms");
    }
}

#[test]
fn a_way_that_becomes_longer_costs_some_seconds_and_no_more() {
    let mut call = Call::new(Link::default(), 2_500_000, 2_500_000);
    call.run(15.0);
    call.link.way = 110_000;
    let seen = call.run(10.0);
    let least = least(&seen);
    assert!(least > 700_000, "{least}");
    let down = seen.iter().filter(|it| it.estimate < 2_500_000).count();
    assert!(down < 400, "{} ms", down * 10);
}

#[test]
fn until_the_receiver_tells_anything_there_is_no_estimate() {
    let now = Instant::now();
    let mut estimator = Estimator::new(now, 1_000_000);
    estimator.aim(now, 0, 2_000_000);
    assert_eq!((estimator.estimate(), estimator.poll_probe(now), estimator.poll_timeout()), (None, None, None));
    estimator.handle_feedback(now, [(1, Some(Duration::ZERO))].into_iter());
    assert_eq!(estimator.estimate(), None, "of a packet that was never sent");
    assert_eq!(estimator.handle_sent(now, 100, false), 1);
    estimator.handle_feedback(now, [(1, Some(Duration::ZERO))].into_iter());
    assert_eq!(estimator.estimate(), Some(1_000_000));
}

#[test]
fn who_tells_only_of_the_whole_is_believed_for_a_while() {
    let start = Instant::now();
    let mut estimator = Estimator::new(start, 1_000_000);
    estimator.handle_remb(start, 700_000);
    assert_eq!(estimator.estimate(), Some(700_000));
    let due = estimator.poll_timeout().unwrap();
    estimator.handle_timeout(due);
    assert_eq!((estimator.estimate(), estimator.poll_timeout()), (None, None));
    estimator.handle_sent(due, 100, false);
    estimator.handle_feedback(due, [(1, Some(Duration::ZERO))].into_iter());
    estimator.handle_remb(due, 700_000);
    assert_eq!(estimator.estimate(), Some(1_000_000), "packets say more");
}

#[test]
fn what_is_told_twice_counts_once_and_what_was_lost_may_still_arrive() {
    let start = Instant::now();
    let mut estimator = Estimator::new(start, 1_000_000);
    (0..10).for_each(|_| _ = estimator.handle_sent(start, 1_000, false));
    let lost = |n: u16| (n, n.is_multiple_of(2).then_some(Duration::from_millis(n.into())));
    for _ in 0..5 {
        estimator.handle_feedback(start, (1..=10).map(lost));
        assert_eq!(estimator.loss(), 0.5);
    }
    estimator.handle_feedback(start, [(3, Some(Duration::from_millis(3)))].into_iter());
    assert_eq!(estimator.loss(), 0.4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn no_report_does_harm(
        initial in any::<u64>(),
        steps in prop::collection::vec((any::<u16>(), any::<u64>(), 0..6u8, 0..2_000u64, any::<bool>()), 0..200),
    ) {
        let mut now = Instant::now();
        let mut estimator = Estimator::new(now, initial);
        for (number, time, what, pause, flag) in steps {
            now += Duration::from_millis(pause);
            match what {
                0 => (0..number % 300).for_each(|n| _ = estimator.handle_sent(now, usize::from(n) * 9, flag)),
                1 => {
                    let packets = (0..400u16).map(|n| {
                        let at = Duration::from_micros(time.wrapping_add(u64::from(n) << (number % 40)));
                        (n.wrapping_add(number % 2_000), (!flag || n % 3 > 0).then_some(at))
                    });
                    estimator.handle_feedback(now, packets);
                }
                2 => estimator.handle_feedback(now, (0..400).map(|n| (n, Some(Duration::from_millis(u64::from(n) * 7))))),
                3 => estimator.aim(now, time, time.wrapping_mul(3)),
                4 => estimator.handle_timeout(now),
                _ => {
                    estimator.handle_remb(now, time);
                    estimator.handle_round_trip(Duration::from_secs(time));
                    estimator.handle_reported_loss(f32::from_bits(time as u32));
                }
            }
            estimator.poll_probe(now);
            prop_assert!(estimator.estimate().is_none_or(|bps| (LEAST_BPS..=MOST_BPS).contains(&bps)));
            prop_assert!((0.0..=1.0).contains(&estimator.loss()));
            prop_assert!(estimator.rate_bps(now) > 0);
        }
    }
}
