//! Packets written by hand, and feedback by a small writer.

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn all(compound: &[u8]) -> Vec<Report<'_>> {
    read(compound).collect()
}

/// A packet with the right header before this.
fn packet(payload_type: u8, count: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len().is_multiple_of(4));
    let words = (body.len() / 4) as u16;
    [&[0x80 | count, payload_type][..], &words.to_be_bytes(), body].concat()
}

/// Transport-wide feedback from 1 on 2, padded as it must be.
fn feedback(head: &str, chunks_and_deltas: &str) -> Vec<u8> {
    let mut body = [hex("00000001 00000002"), hex(head), hex(chunks_and_deltas)].concat();
    let padding = body.len().next_multiple_of(4) - body.len();
    if padding > 0 {
        body.resize(body.len() + padding, 0);
        *body.last_mut().unwrap() = padding as u8;
    }
    let mut packet = packet(205, 15, &body);
    packet[0] |= if padding > 0 { 0x20 } else { 0 };
    packet
}

/// What it says of packets, times in units of 250 us after the feedback's reference.
fn arrivals(compound: &[u8], reference: i64) -> Vec<(u16, Option<i64>)> {
    let [Report::TransportFeedback(found)] = all(compound)[..] else { panic!("{:?}", all(compound)) };
    let start = (reference + (1 << 24)) * 64_000;
    let since = |time: Duration| (time.as_micros() as i64 - start) / 250;
    found.packets().map(|(number, time)| (number, time.map(since))).collect()
}

const BLOCK: &str = "00000007 40 fffffe 00010002 00000003 aabbccdd 00010000";

fn reception(ssrc: u32) -> Report<'static> {
    Report::ReceptionReport {
        ssrc,
        fraction_lost: 0.25,
        packets_lost: -2,
        highest_seq: 0x1_0002,
        jitter: 3,
        last_sr: 0xaabb_ccdd,
        delay_since_last_sr: 0x1_0000,
    }
}

#[test]
fn reception_is_reported_by_those_who_send_and_those_who_do_not() {
    let rr = packet(201, 2, &[hex("00000001"), hex(BLOCK), hex(BLOCK)].concat());
    let sr = packet(200, 1, &[hex("00000001"), vec![9; 20], hex(BLOCK)].concat());
    let compound = [rr, sr, packet(202, 1, &[0; 8])].concat();
    let (sender, description) = (Report::Other { payload_type: 200 }, Report::Other { payload_type: 202 });
    assert_eq!(all(&compound), [reception(7), reception(7), sender, reception(7), description]);
    assert_eq!(all(&packet(201, 0, &hex("00000001"))), []);
}

#[test]
fn what_a_profile_adds_to_a_report_is_passed_over() {
    let rr = packet(201, 1, &[hex("00000001"), hex(BLOCK), vec![1; 8]].concat());
    assert_eq!(all(&rr), [reception(7)]);
}

#[test]
fn lost_packets_are_listed_one_by_one() {
    let nack = packet(205, 1, &hex("00000001 00000007 fffe 8005 0009 0000"));
    let [Report::Nack { media_ssrc: 7, lost }] = all(&nack)[..] else { panic!("{:?}", all(&nack)) };
    assert_eq!(lost.numbers().collect::<Vec<_>>(), [0xfffe, 0xffff, 1, 14, 9]);
}

#[test]
fn keyframes_are_asked_for_in_two_ways() {
    let pli = packet(206, 1, &hex("00000001 00000007"));
    let fir = packet(206, 4, &hex("00000001 00000000 00000008 05000000 00000009 06000000"));
    let asked = [7, 8, 9].map(|media_ssrc| Report::KeyframeRequest { media_ssrc });
    assert_eq!(all(&[pli, fir].concat()), asked);
}

#[test]
fn a_receiver_estimate_is_a_mantissa_and_an_exponent() {
    let estimate = |word: &str| packet(206, 15, &hex(&format!("00000001 00000000 52454d42 {word} 00000007")));
    assert_eq!(all(&estimate("01 0d0090")), [Report::Remb { bps: 0x1_0090 << 3 }]);
    assert_eq!(all(&estimate("01 ffffff")), [Report::Remb { bps: u64::MAX }], "as much as anybody can say");
    let another = packet(206, 15, &hex("00000001 00000000 41414141 00000000"));
    assert_eq!(all(&another), [Report::Other { payload_type: 206 }]);
}

#[test]
fn kinds_without_a_use_are_named_and_passed_over() {
    let compound = [packet(203, 1, &[0; 4]), packet(207, 0, &[0; 8]), packet(205, 3, &[0; 8])].concat();
    assert_eq!(all(&compound), [203, 207, 205].map(|payload_type| Report::Other { payload_type }));
}

#[test]
fn what_is_malformed_ends_the_reading_and_what_came_before_counts() {
    let pli = packet(206, 1, &hex("00000001 00000007"));
    let asked = Report::KeyframeRequest { media_ssrc: 7 };
    for bad in [
        packet(206, 1, &hex("00000001")),
        packet(201, 2, &[hex("00000001"), hex(BLOCK)].concat()),
        packet(205, 15, &[0; 12]),
        hex("40c90001 00000001"),
        hex("80c90002 00000001"),
        hex("a0c90001 00000000"),
        hex("a0c90001 00000005"),
        hex("80c9"),
    ] {
        assert_eq!(all(&[&pli[..], &bad, &pli].concat()), [asked], "{bad:02x?}");
    }
    let padded = hex("a1c9 0008 00000001").into_iter().chain(hex(BLOCK)).chain(hex("00000004")).collect::<Vec<_>>();
    assert_eq!(all(&[padded, pli].concat()), [reception(7), asked], "padding is well-formed");
}

#[test]
fn runs_of_packets_came_one_after_the_other_and_numbers_wrap() {
    // Five from 65534 on; reference 2; three with small deltas, two lost.
    let found = feedback("fffe 0005 000002 09", "2003 0002 04 00 ff");
    let came = [(65534, Some(4)), (65535, Some(4)), (0, Some(259)), (1, None), (2, None)];
    assert_eq!(arrivals(&found, 2), came);
    let [Report::TransportFeedback(TransportFeedback { feedback_count: 9, .. })] = all(&found)[..] else { panic!() };
}

#[test]
fn vectors_of_one_bit_say_which_packets_came() {
    // 10 0110 0000 0000 01 and the first two of 10 10...
    let found = feedback("0001 0010 000000 00", "9801 a000 01 02 03 04");
    let mut came: Vec<_> = (1..17).map(|number| (number, None)).collect();
    (came[1].1, came[2].1, came[13].1, came[14].1) = (Some(1), Some(3), Some(6), Some(10));
    assert_eq!(arrivals(&found, 0), came);
}

#[test]
fn vectors_of_two_bits_say_how_far_apart_too() {
    // 11 00 01 10 10 01 00 00: lost, small, large, large, small, lost, lost; one more of a second chunk is not meant.
    let found = feedback("0005 0007 fffffe 00", "c690 08 1000 fff0 02");
    let came =
        [(5, None), (6, Some(8)), (7, Some(0x1008)), (8, Some(0x0ff8)), (9, Some(0x0ffa)), (10, None), (11, None)];
    assert_eq!(arrivals(&found, -2), came, "a later packet may have come before an earlier one");
}

#[test]
fn times_are_never_negative() {
    // As early as a reference can be, and far back from there: a run of large negative deltas.
    let body = format!("47d0{}", "8000".repeat(2_000));
    let found = feedback("0000 07d0 800000 00", &body);
    let [Report::TransportFeedback(found)] = all(&found)[..] else { panic!("one report") };
    let times: Vec<_> = found.packets().filter_map(|(_, time)| time).collect();
    assert_eq!(times.len(), 2_000);
    let first = Duration::from_micros((1 << 23) * 64_000 - 8_192_000);
    assert_eq!((times[0], times[1]), (first, first - Duration::from_micros(8_192_000)));
    assert!(times.windows(2).all(|pair| pair[1] < pair[0]), "none is cut at zero");
}

#[test]
fn feedback_about_more_packets_than_it_holds_ends_where_it_ends() {
    let found = feedback("0000 ffff 000000 00", "0003 2002");
    assert_eq!(arrivals(&found, 0), [(0, None), (1, None), (2, None)], "no deltas are left for the two that came");
    let reserved = feedback("0000 0004 000000 00", "0001 6002 01 01");
    assert_eq!(arrivals(&reserved, 0), [(0, None)], "what became of the next is not known");
}

#[test]
fn one_compound_cannot_keep_us_busy() {
    let one = feedback("0000 ffff 000000 00", &"1fff".repeat(10));
    let many = one.repeat(30);
    let said = |report| match report {
        Report::TransportFeedback(found) => found.packets().count(),
        _ => 0,
    };
    assert_eq!(read(&many).map(said).sum::<usize>(), usize::from(STATUSES_MAX));
}

#[test]
fn our_sender_reports_are_rewritten_in_place_and_nothing_else() {
    let sr = |ssrc: u8| packet(200, 1, &[&[0, 0, 0, ssrc][..], &[1; 20], &hex(BLOCK)].concat());
    let compound = [sr(7), packet(202, 1, &[9; 28]), sr(8), packet(206, 1, &[9; 8]), vec![0x80, 200, 0, 9]].concat();
    let (mut rewritten, mut seen) = (compound.clone(), Vec::new());
    for_each_sender_report(&mut rewritten, |ssrc, ntp| {
        seen.push((ssrc, ntp));
        (ssrc == 8).then_some(SenderInfo { rtp_time: 0x0a0b_0c0d, packets: 5, octets: 0x1_0000 })
    });
    assert_eq!(seen, [(7, 0x0101_0101_0101_0101), (8, 0x0101_0101_0101_0101)]);
    let start = sr(7).len() + 32 + 16;
    let mut wanted = compound;
    wanted[start..start + 12].copy_from_slice(&hex("0a0b0c0d 00000005 00010000"));
    assert_eq!(rewritten, wanted);
}

#[test]
fn a_sender_report_that_is_cut_short_is_left_alone() {
    let mut short = packet(200, 0, &[1; 20]);
    for_each_sender_report(&mut short, |_, _| Some(SenderInfo { rtp_time: 0, packets: 0, octets: 0 }));
    assert_eq!(short, packet(200, 0, &[1; 20]));
}

// --- transport-wide feedback as a receiver writes it ---

/// How a writer packs symbols.
#[derive(Clone, Copy, Debug)]
enum Packing {
    Runs,
    OneBit,
    TwoBits,
}

/// Arrivals in units of 250 us after the one before, `None` where it was lost; each stretch packed in its way.
fn written(base: u16, reference: i32, stretches: &[(Packing, Vec<Option<i16>>)]) -> Vec<u8> {
    let (mut chunks, mut deltas, mut count) = (Vec::new(), Vec::new(), 0u16);
    let symbol = |delta: &Option<i16>| match delta {
        None => 0u16,
        Some(0..256) => 1,
        Some(_) => 2,
    };
    for (packing, stretch) in stretches {
        let symbols: Vec<_> = stretch.iter().map(symbol).collect();
        match packing {
            Packing::Runs => {
                for run in symbols.chunk_by(|a, b| a == b) {
                    chunks.push(run[0] << 13 | run.len() as u16);
                }
            }
            Packing::OneBit => chunks.push(symbols.iter().fold(2, |word, symbol| word << 1 | symbol)),
            Packing::TwoBits => chunks.push(symbols.iter().fold(3, |word, symbol| word << 2 | symbol)),
        }
        for delta in stretch.iter().flatten() {
            match u8::try_from(*delta) {
                Ok(small) => deltas.push(small),
                Err(_) => deltas.extend(delta.to_be_bytes()),
            }
        }
        count += stretch.len() as u16;
    }
    let chunks: String = chunks.iter().map(|chunk| format!("{chunk:04x}")).collect();
    let deltas: String = deltas.iter().map(|byte| format!("{byte:02x}")).collect();
    feedback(&format!("{base:04x} {count:04x} {:06x} 00", reference & 0xff_ffff), &(chunks + &deltas))
}

fn stretch() -> impl Strategy<Value = (Packing, Vec<Option<i16>>)> {
    let small = prop::option::of(0i16..256);
    let any = prop::option::of(prop_oneof![0i16..256, any::<i16>()]);
    prop_oneof![
        prop::collection::vec(any.clone(), 1..40).prop_map(|it| (Packing::Runs, it)),
        prop::collection::vec(small, 14).prop_map(|it| (Packing::OneBit, it)),
        prop::collection::vec(any, 7).prop_map(|it| (Packing::TwoBits, it)),
    ]
}

proptest! {
    #[test]
    fn feedback_is_read_as_it_was_written(
        base: u16, reference in -(1i32 << 23)..1 << 23, stretches in prop::collection::vec(stretch(), 1..20),
    ) {
        let mut now = 0;
        let deltas = stretches.iter().flat_map(|(_, stretch)| stretch);
        let wanted: Vec<_> = deltas.enumerate().map(|(n, delta)| {
            let time = delta.map(|delta| { now += i64::from(delta); now });
            (base.wrapping_add(n as u16), time)
        }).collect();
        prop_assert_eq!(arrivals(&written(base, reference, &stretches), reference.into()), wanted);
    }

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..1_500)) {
        take(&bytes);
    }

    /// Noise hardly ever is a packet; this is, by its header.
    #[test]
    fn any_body_is_read_to_an_end(packets in prop::collection::vec(
        (200u8..208, prop_oneof![0u8..32, Just(1), Just(15)], prop::collection::vec(any::<[u8; 4]>(), 0..60)), 1..6,
    )) {
        let packets = packets.iter().map(|(kind, count, body)| packet(*kind, *count, body.as_flattened()));
        let compound = packets.collect::<Vec<_>>().concat();
        take(&compound);
    }
}

fn take(bytes: &[u8]) {
    let (mut reports, mut statuses) = (0, 0);
    for report in read(bytes) {
        reports += 1;
        match report {
            Report::Nack { lost, .. } => assert!(lost.numbers().count() <= bytes.len() / 4 * 17),
            Report::TransportFeedback(found) => statuses += found.packets().count(),
            _ => {}
        }
    }
    assert!(reports <= bytes.len() / 4 && statuses <= usize::from(STATUSES_MAX));
    let mut rewritten = bytes.to_vec();
    for_each_sender_report(&mut rewritten, |_, _| Some(SenderInfo { rtp_time: 1, packets: 2, octets: 3 }));
    assert_eq!(rewritten.len(), bytes.len());
}
