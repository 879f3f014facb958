//! Standards' vectors, what another implementation sealed, and stories of two ends.

use proptest::prelude::*;

use super::*;

const PROFILES: [SrtpProfile; 3] =
    [SrtpProfile::AEAD_AES_256_GCM, SrtpProfile::AEAD_AES_128_GCM, SrtpProfile::AES128_CM_SHA1_80];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// The keying material of a handshake: 1, 2, 3 and so on.
fn material(profile: SrtpProfile) -> Vec<u8> {
    (1..).take(profile.keying_material_len()).collect()
}

/// The two ends of one connection.
fn client_and_server(profile: SrtpProfile) -> [Keys; 2] {
    [true, false].map(|is_client| Keys::new(profile, &material(profile), is_client).unwrap())
}

/// A receiver report, with what some report blocks take.
fn rtcp(ssrc: u32, blocks: usize) -> Vec<u8> {
    let mut packet = vec![0x80 | blocks as u8, 201, 0, 1 + 6 * blocks as u8];
    packet.extend(ssrc.to_be_bytes());
    packet.extend((0..24 * blocks).map(|byte| byte as u8));
    packet
}

fn sealed_rtcp(keys: &Keys, ssrc: u32, index: u32) -> Vec<u8> {
    let mut packet = rtcp(ssrc, 1);
    assert!(keys.sealer.seal_rtcp(&mut packet, index));
    packet
}

/// Opens what the other end sealed; nothing here needs to, but for tests.
fn open_rtp(cipher: &Cipher, packet: &[u8], header_len: usize, ssrc: u32, index: u64) -> Option<Vec<u8>> {
    let (packet, tag) = packet.split_at_checked(packet.len().checked_sub(cipher.tag_bytes())?)?;
    let (header, sealed) = packet.split_at_checked(header_len)?;
    let mut payload = sealed.to_vec();
    match cipher {
        Cipher::Gcm { key, salt } => {
            let nonce = Nonce::assume_unique_for_key(iv(salt, ssrc, index));
            key.open_separate_gather(nonce, Aad::from(header), sealed, tag, &mut payload).ok()?;
        }
        Cipher::Cm { key, mac, salt } => {
            let made = cm_tag(mac, &[packet, &((index >> 16) as u32).to_be_bytes()]);
            (made == tag).then_some(())?;
            apply(key, &iv(salt, ssrc, index), &mut payload)?;
        }
    }
    Some([header, &payload].concat())
}

// --- what the standards say ---

const QUID_PRO_QUO: &[u8; 12] = b"Quid pro quo";

#[test]
fn rtp_is_sealed_as_rfc_7714_says() {
    let key: Vec<u8> = (0..32).collect();
    let packet = [&hex("8040f17b 8041f8d3 5501a0b2")[..], b"Gallia est omnis divisa in partes tres"].concat();
    for (key, wanted) in [
        (
            &key[..16],
            "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833
             899d7f27beb16a9152cf765ee4390cce",
        ),
        (
            &key,
            "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b
             7aa3db36dfffd6b0f9bb7878d7a76c13",
        ),
    ] {
        let [rtp, rtcp] = [(); 2].map(|()| Cipher::gcm(key, *QUID_PRO_QUO).unwrap());
        let mut arena = [b"before", &packet[..]].concat();
        assert!(Sealer { rtp, rtcp }.seal_rtp(&mut arena, 6, 12, 0x5501_a0b2, 0xf17b));
        assert_eq!(arena, [b"before", &packet[..12], &hex(wanted)].concat());
    }
}

#[test]
fn rtcp_is_sealed_and_opened_as_rfc_7714_says() {
    let key: Vec<u8> = (0..32).collect();
    let plain = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
                     deadbeef deadbeef deadbeef deadbeef deadbeef");
    for (key, wanted) in [
        (
            &key[..16],
            "63e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9275b
             c84aa45896cf4d2fc5abf87245d9eade 800005d4",
        ),
        (
            &key,
            "d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658c61de0476f1b6fad
             1d1eb30c4446839f57ff6f6cb26ac3be 800005d4",
        ),
    ] {
        let cipher = || Cipher::gcm(key, *QUID_PRO_QUO).unwrap();
        let mut packet = plain.clone();
        assert_eq!(cipher().seal_rtcp(&mut packet, 0x5d4), Some(()));
        assert_eq!(packet, [&plain[..8], &hex(wanted)].concat());
        let (mut opener, mut out) = (Opener { rtcp: cipher(), senders: Vec::new() }, vec![9]);
        assert!(opener.open_rtcp(&packet, &mut out));
        assert_eq!(out, plain);
    }
    // The standard's example of a packet that is authentic and readable.
    let readable = [&plain[..], &hex("841dd9683dd78ec92ae58790125f62b3 000005d4")].concat();
    let rtcp = Cipher::gcm(&key[..16], *QUID_PRO_QUO).unwrap();
    let (mut opener, mut out) = (Opener { rtcp, senders: Vec::new() }, Vec::new());
    assert!(!opener.open_rtcp(&readable, &mut out), "what is not encrypted is not taken");
}

#[test]
fn counter_mode_gives_the_key_stream_of_rfc_3711() {
    let salt = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd").try_into().unwrap();
    let cipher = Cipher::cm(&hex("2b7e151628aed2a6abf7158809cf4f3c"), &[0; 20], salt).unwrap();
    let (mut packet, mut tag) = (vec![0; 12 + 0xff02 * 16], [0; 10]);
    assert_eq!(cipher.seal_rtp(&mut packet, &mut tag, 12, 0, 0), Some(()));
    let blocks: Vec<_> = packet[12..].chunks(16).collect();
    for (at, wanted) in [
        (0, "e03ead0935c95e80e166b16dd92b4eb4"),
        (1, "d23513162b02d0f72a43a2fe4a5f97ab"),
        (2, "41e95b3bb0a2e8dd477901e4fca894c0"),
        (0xfeff, "ec8cdf7398607cb0f2d21675ea9ea1e4"),
        (0xff00, "362b7c3c6773516318a077d7fc5073ae"),
        (0xff01, "6a2cc3787889374fbeb4c81b17ba6c44"),
    ] {
        assert_eq!(blocks[at], hex(wanted), "block {at:#x}");
    }
}

#[test]
fn session_keys_are_those_of_rfc_3711_and_rfc_6188() {
    let prf = counter_mode(&hex("e1f97a0d3e018be0d64fa32c06de4139")).unwrap();
    let salt = hex("0ec675ad498afeebb6960b3aabe6");
    assert_eq!(derive::<16>(&prf, &salt, 0).unwrap(), *hex("c61e7a93744f39ee10734afe3ff7a087"));
    assert_eq!(derive::<14>(&prf, &salt, 2).unwrap(), *hex("30cbbc08863d8c85d49db34a9ae1"));
    let mac = "cebe321f6ff7716b6fd4ab49af256a156d38baa48f0a0acf3c34e2359e6cdbcee049646c43d9327ad175578ef722709863 \
               71c10c9a369ac2f94a8c5fbcdddc256d6e919a48b610ef17c2041e474035766b68642c59bbfc2f34db60dbdfb2";
    assert_eq!(derive::<94>(&prf, &salt, 1).unwrap(), *hex(mac));

    let prf = counter_mode(&hex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6")).unwrap();
    let salt = hex("3b04803de51ee7c96423ab5b78d2");
    let key = "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4";
    assert_eq!(derive::<32>(&prf, &salt, 0).unwrap(), *hex(key));
    assert_eq!(derive::<14>(&prf, &salt, 2).unwrap(), *hex("fa31791685ca444a9e07c6c64e93"));
    assert_eq!(derive::<20>(&prf, &salt, 1).unwrap(), *hex("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"));
}

/// Made by `rtc-srtp` 0.21.1, of the crate `webrtc`, with the server's half of our material: the packet before a
/// rollover, the one after it, and the first report.
#[test]
fn another_implementation_seals_the_same() {
    let header = |seq: u16| [&[0x80, 111][..], &seq.to_be_bytes(), &hex("000003c0 decafbad")].concat();
    let report = [&hex("81c90007 decafbad")[..], &(0..24).collect::<Vec<u8>>()].concat();
    for (profile, last, next, sealed_report) in [
        (
            SrtpProfile::AEAD_AES_256_GCM,
            "d864db9a5b97c7ba9e0490aaf60e791c40b2be9d3cfe0582e1759b8990fbcccd",
            "6dd0462dfae59f8a449006ebb5b8b52fe1766daacd8d49a51a35fb5701c01830",
            "c4eee9bd385507112380f2da312108e4c6df100855419eb54f345fc49327f1fe13812e74a45132ff80000001",
        ),
        (
            SrtpProfile::AEAD_AES_128_GCM,
            "eeaf1b3e04b2c4c2d43f94f9d6b3df8048edcc364f29175d6886af3a64d0e1a3",
            "b9d1c40a456203a5ae997d04a69b8b8b810be5dde696316ad6cb91b940416fee",
            "381b8a01503e398b368a2a13190ad3a1413695fca0e143e89ff6d9e7f222d7e34203e45277b587f380000001",
        ),
        (
            SrtpProfile::AES128_CM_SHA1_80,
            "bd3b929888d4e7b727e2c6a56f355735a904ec6f69aab0f2bce8",
            "1d4dafc47da92cacc3adfd4087b7d78d96b33e3af08f1858656f",
            "4bde4ba25ec6a932b4e972003e75c31efe0f733faaf5647b80000001b04bbd78e7fbb2ef3d71",
        ),
    ] {
        let [mut client, server] = client_and_server(profile);
        for (seq, index, sealed) in [(0xffff, 0xffff, last), (0, 0x1_0000, next)] {
            let mut packet = [&header(seq)[..], b"Veni, vidi, vici"].concat();
            assert!(server.sealer.seal_rtp(&mut packet, 0, 12, 0xdeca_fbad, index));
            assert_eq!(packet, [header(seq), hex(sealed)].concat(), "{profile}");
        }
        let (mut packet, mut out) = (report.clone(), Vec::new());
        assert!(server.sealer.seal_rtcp(&mut packet, 1));
        assert_eq!(packet, [&report[..8], &hex(sealed_report)].concat(), "{profile}");
        assert!(client.opener.open_rtcp(&packet, &mut out));
        assert_eq!(out, report);
    }
}

// --- stories ---

#[test]
fn each_end_opens_what_the_other_sealed_and_not_its_own() {
    for profile in PROFILES {
        let [mut client, mut server] = client_and_server(profile);
        let mut out = Vec::new();
        assert!(server.opener.open_rtcp(&sealed_rtcp(&client, 7, 0), &mut out));
        assert_eq!(out, rtcp(7, 1));
        assert!(client.opener.open_rtcp(&sealed_rtcp(&server, 7, 0), &mut out));
        assert!(!client.opener.open_rtcp(&sealed_rtcp(&client, 8, 0), &mut out), "{profile}");
        assert!(out.is_empty(), "nothing of what was not opened stays");
    }
}

#[test]
fn our_own_report_is_opened_changed_and_sealed_under_the_same_index() {
    for profile in PROFILES {
        let [client, mut server] = client_and_server(profile);
        let (sealed, mut report, mut out) = (sealed_rtcp(&client, 7, 0x7fff_fffe), Vec::new(), Vec::new());
        let index = client.sealer.open_own_rtcp(&sealed, &mut report).unwrap();
        assert_eq!((index, &report), (0x7fff_fffe, &rtcp(7, 1)));
        report[20] ^= 0xff;
        let changed = report.clone();
        assert!(client.sealer.seal_rtcp(&mut report, index));
        assert!(server.opener.open_rtcp(&report, &mut out));
        assert_eq!(out, changed);
        assert!(!server.opener.open_rtcp(&sealed, &mut out), "they are one packet to who receives them");
    }
}

#[test]
fn no_byte_of_a_packet_can_be_changed() {
    for profile in PROFILES {
        let [client, mut server] = client_and_server(profile);
        let sealed = sealed_rtcp(&client, 7, 3);
        let mut out = Vec::new();
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 0x10;
            assert!(!server.opener.open_rtcp(&forged, &mut out) && out.is_empty(), "{profile}, byte {at}");
            assert!(!server.opener.open_rtcp(&sealed[..at], &mut out), "{profile}, cut at {at}");
            assert_eq!(client.sealer.open_own_rtcp(&forged, &mut out), None);
        }
        assert!(server.opener.open_rtcp(&sealed, &mut out), "what was forged spoils nothing for what is authentic");

        let mut packet = vec![5; 60];
        assert!(client.sealer.seal_rtp(&mut packet, 0, 16, 7, 1 << 16 | 9));
        for at in 0..packet.len() {
            let mut forged = packet.clone();
            forged[at] ^= 0x10;
            assert_eq!(open_rtp(&client.sealer.rtp, &forged, 16, 7, 1 << 16 | 9), None);
        }
        assert_eq!(open_rtp(&client.sealer.rtp, &packet, 16, 7, 9), None, "nor can it be played a rollover later");
    }
}

#[test]
fn a_packet_is_taken_once_and_not_if_it_is_too_old_to_know() {
    let [client, mut server] = client_and_server(SrtpProfile::AEAD_AES_128_GCM);
    let mut takes = |index| server.opener.open_rtcp(&sealed_rtcp(&client, 7, index), &mut Vec::new());
    assert_eq!([100, 100, 99, 99, 37, 36].map(&mut takes), [true, false, true, false, true, false]);
    assert_eq!([101, 37, 38, 100].map(&mut takes), [true, false, true, false]);
    assert_eq!([164, 101, 102, 100].map(&mut takes), [true, false, true, false]);
    assert_eq!([100_000, 164, 99_999, 0].map(&mut takes), [true, false, true, false]);
}

#[test]
fn the_senders_heard_last_are_remembered() {
    let [client, mut server] = client_and_server(SrtpProfile::AEAD_AES_128_GCM);
    let mut takes = |ssrc, index| server.opener.open_rtcp(&sealed_rtcp(&client, ssrc, index), &mut Vec::new());
    assert!((0..8).all(|ssrc| takes(ssrc, 1)));
    assert!((0..8).all(|ssrc| !takes(ssrc, 1)));
    assert!(takes(0, 2) && takes(8, 1), "the ninth takes the place of who was silent for longest");
    assert!(!takes(0, 1) && !takes(2, 1) && takes(1, 1));
    assert_eq!(server.opener.senders.len(), SENDERS_MAX);
}

#[test]
fn what_cannot_be_sealed_leaves_nothing_that_could_be_read() {
    for profile in PROFILES {
        let [Keys { sealer, .. }, _] = client_and_server(profile);
        let mut arena = vec![1; 30];
        assert!(!sealer.seal_rtp(&mut arena, 10, 21, 7, 0), "the header is longer than the packet");
        assert_eq!(arena, [1; 10]);
        assert!(!sealer.seal_rtp(&mut arena, 11, 0, 7, 0), "it begins after its end");
        assert_eq!(arena, [1; 10]);
        let (mut short, mut spent) = (vec![0x80, 201, 0, 1, 0, 0, 0], rtcp(7, 1));
        assert!(!sealer.seal_rtcp(&mut short, 0) && short.is_empty());
        assert!(!sealer.seal_rtcp(&mut spent, 1 << 31) && spent.is_empty(), "there is no such index");
    }
}

#[test]
fn packets_without_a_payload_and_reports_without_a_block_are_sealed_too() {
    for profile in PROFILES {
        let [client, mut server] = client_and_server(profile);
        let (mut packet, mut report, mut out) = (vec![5; 12], rtcp(7, 0), Vec::new());
        assert!(client.sealer.seal_rtp(&mut packet, 0, 12, 7, 0));
        assert_eq!(packet.len(), 12 + client.sealer.rtp_overhead());
        assert!(client.sealer.rtp_overhead() <= RTP_OVERHEAD_MAX);
        assert!(client.sealer.seal_rtcp(&mut report, 0) && server.opener.open_rtcp(&report, &mut out));
        assert_eq!(out, rtcp(7, 0));
    }
}

#[test]
fn material_of_another_length_gives_no_keys() {
    for profile in PROFILES {
        let material = material(profile);
        assert!(Keys::new(profile, &material[1..], true).is_none());
        assert!(Keys::new(profile, &[&material[..], &[0]].concat(), true).is_none());
        assert!(Keys::new(profile, &[], true).is_none());
    }
}

#[test]
fn keys_are_not_printed() {
    for profile in PROFILES {
        let [keys, _] = client_and_server(profile);
        assert_eq!(format!("{keys:?}"), "Keys { sealer: Sealer(***), opener: Opener(***) }");
    }
}

proptest! {
    #[test]
    fn any_packet_comes_out_as_it_went_in(
        which in 0usize..3, before in 0usize..40, header_len in 12usize..60,
        payload in prop::collection::vec(any::<u8>(), 0..1_300), ssrc: u32, index in 0u64..1 << 48,
    ) {
        let [Keys { sealer, .. }, _] = client_and_server(PROFILES[which]);
        let packet = [&vec![3; header_len][..], &payload].concat();
        let mut arena = [&vec![1; before][..], &packet].concat();
        prop_assert!(sealer.seal_rtp(&mut arena, before, header_len, ssrc, index));
        prop_assert_eq!(&arena[..before + header_len], &[&vec![1; before][..], &packet[..header_len]].concat());
        prop_assert_eq!(arena.len(), before + packet.len() + sealer.rtp_overhead());
        let opened = open_rtp(&sealer.rtp, &arena[before..], header_len, ssrc, index);
        prop_assert_eq!(opened, Some(packet));
    }

    #[test]
    fn any_compound_comes_out_as_it_went_in(
        which in 0usize..3, compound in prop::collection::vec(any::<u8>(), 8..600), index in 0u32..1 << 31,
    ) {
        let [client, mut server] = client_and_server(PROFILES[which]);
        let (mut packet, mut out) = (compound.clone(), Vec::new());
        prop_assert!(client.sealer.seal_rtcp(&mut packet, index));
        prop_assert!(server.opener.open_rtcp(&packet, &mut out));
        prop_assert_eq!(out, compound);
    }

    #[test]
    fn noise_is_never_opened(which in 0usize..3, noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let [client, mut server] = client_and_server(PROFILES[which]);
        let mut out = Vec::new();
        prop_assert!(!server.opener.open_rtcp(&noise, &mut out) && out.is_empty());
        out.push(9);
        prop_assert!(client.sealer.open_own_rtcp(&noise, &mut out).is_none() && out.is_empty());
    }

    /// Whatever the order: none is taken twice, and none of the last 64 is refused that was not there.
    #[test]
    fn the_window_takes_each_once(indices in prop::collection::vec(0u32..200, 1..300)) {
        let mut window = Window::new(7, indices[0]);
        let mut seen = std::collections::HashSet::new();
        for index in indices {
            let newest = seen.iter().copied().max().unwrap_or(0);
            let wanted = !seen.contains(&index) && index + 64 > newest;
            prop_assert_eq!(window.is_new(index), wanted, "{} after {}", index, newest);
            if wanted {
                window.note(index);
                seen.insert(index);
            }
        }
    }
}
