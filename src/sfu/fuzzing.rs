//! A media core for fuzzers: one room, one client that offered, and an address that is believed to be its own.

use std::{
    net::SocketAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

use str0m::crypto::dtls::SrtpProfile;

use super::{
    Certificate, Command, Connections, OpusOptions, Route, Sfu,
    demux::{MAGIC_COOKIE, USERNAME},
    egress::{
        rtcp::{self, Report, SenderInfo},
        srtp::Keys,
    },
    participant::Leg,
    path::Path,
    sdp::{self, SectionPlan},
};
use crate::id::{ParticipantSid, RoomSid};

/// What a browser offers when it joins: three sections of each kind, and data channels.
pub const OFFER: &str = include_str!("../fuzzing/offer.sdp");

static CERTIFICATE: LazyLock<Option<Certificate>> = LazyLock::new(|| Certificate::generate().ok());

fn core(now: Instant, offer: &str) -> Option<Sfu> {
    let mut sfu = Sfu::new(CERTIFICATE.clone()?, &[here()]);
    let (room, participant) = (RoomSid::from("RM_1"), ParticipantSid::from("PA_1"));
    let (r, p) = (room.clone(), participant.clone());
    sfu.handle_command(now, Command::Join { room: r, participant: p, connections: Connections::One });
    sfu.handle_command(now, Command::Offer { room, participant, offer_id: 1, sdp: offer.to_owned() });
    drain(&mut sfu, now);
    Some(sfu)
}

fn here() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 7882))
}

fn drain(sfu: &mut Sfu, now: Instant) {
    sfu.handle_timeout(now);
    sfu.transmits().clear();
    while sfu.poll_event().is_some() {}
}

/// An offer, answered by str0m, and the same once more.
pub fn offer(now: Instant, text: &str) {
    let Some(mut sfu) = core(now, text) else { return };
    let (room, participant) = (RoomSid::from("RM_1"), ParticipantSid::from("PA_1"));
    sfu.handle_command(now, Command::Offer { room, participant, offer_id: 2, sdp: text.to_owned() });
    drain(&mut sfu, now);
}

/// What we do to SDP ourselves.
pub fn munge(text: &str) {
    let sections = sdp::offered_sections(text);
    for plan in [
        SectionPlan::Keep,
        SectionPlan::Silent { client_sends: true },
        SectionPlan::Carries { stream: "PA_1|TR_1".into(), track: "TR_1".into() },
        SectionPlan::Receive {
            formats: vec!["96".into()],
            codec: "VP8".into(),
            opus: OpusOptions { red: true, dtx: true, stereo: true },
        },
    ] {
        let rewritten = sdp::rewrite(text, |_| plan.clone());
        assert_eq!(sdp::offered_sections(&rewritten).len(), sections.len(), "rewriting lost a section");
    }
    let _ = sdp::without_candidates(text);
}

/// A datagram from a stranger, and from a client's own address.
pub fn datagram(now: Instant, bytes: &[u8]) {
    let Some(mut sfu) = core(now, OFFER) else { return };
    let (stranger, known) = (SocketAddr::from(([203, 0, 113, 9], 9)), SocketAddr::from(([203, 0, 113, 8], 8)));
    if let Some(room) = sfu.by_sid.get(&RoomSid::from("RM_1")).copied()
        && let Some(participant) =
            sfu.rooms.get(room).and_then(|room| room.by_sid.get(&ParticipantSid::from("PA_1")).copied())
    {
        sfu.cx.demux.bind(Path::udp(here(), known), Route { room, participant, leg: Leg::Main });
    }
    for (n, source) in (1..).zip([stranger, known, known]) {
        let now = now + Duration::from_millis(n);
        sfu.handle_datagram(now, Path::udp(here(), source), bytes);
        drain(&mut sfu, now);
    }
}

/// A STUN binding request with this user name and nothing that proves it.
pub fn binding_request(username: &str) -> Vec<u8> {
    let mut attributes = USERNAME.to_be_bytes().to_vec();
    attributes.extend((username.len() as u16).to_be_bytes());
    attributes.extend(username.as_bytes());
    attributes.resize(attributes.len().next_multiple_of(4), 0);
    let mut request = vec![0, 1];
    request.extend((attributes.len() as u16).to_be_bytes());
    request.extend(MAGIC_COOKIE);
    request.extend([7; 12]);
    request.extend(attributes);
    request
}

/// A compound RTCP packet as a receiver could have sent it.
pub fn rtcp(bytes: &[u8]) {
    let (mut reports, mut statuses) = (0, 0);
    for report in rtcp::read(bytes) {
        reports += 1;
        match report {
            Report::Nack { lost, .. } => {
                assert!(lost.numbers().count() <= 17 * bytes.len() / 4, "numbers from nowhere")
            }
            Report::TransportFeedback(found) => statuses += found.packets().count(),
            _ => {}
        }
    }
    assert!(reports <= bytes.len() / 4 && statuses <= 1 << 14, "small packets say much");
    let mut rewritten = bytes.to_vec();
    rtcp::for_each_sender_report(&mut rewritten, |_, _| Some(SenderInfo { rtp_time: 1, packets: 2, octets: 3 }));
    assert_eq!(rewritten.len(), bytes.len());
}

/// The two ends of a connection, for each profile.
fn ends() -> impl Iterator<Item = [Keys; 2]> {
    SrtpProfile::ALL.iter().filter_map(|profile| {
        let material: Vec<_> = (1..).take(profile.keying_material_len()).collect();
        Some([Keys::new(*profile, &material, true)?, Keys::new(*profile, &material, false)?])
    })
}

/// SRTCP of a stranger, and of a client who seals just this.
pub fn srtcp(bytes: &[u8]) {
    let mut out = Vec::new();
    for [client, mut server] in ends() {
        if server.opener.open_rtcp(bytes, &mut out) {
            rtcp(&out);
            assert!(!server.opener.open_rtcp(bytes, &mut out), "a packet was taken twice");
        }
        assert!(out.is_empty(), "what was not opened can be read");
        let (mut packet, index) = (bytes.to_vec(), 1);
        if client.sealer.seal_rtcp(&mut packet, index) {
            assert_eq!(client.sealer.open_own_rtcp(&packet, &mut out), Some(index));
            assert_eq!(out, bytes, "a packet came out as another");
            rtcp(&out);
        }
    }
}

/// As a client seals it, with each profile.
pub fn sealed_rtcp(compound: &[u8]) -> Vec<Vec<u8>> {
    let sealed = ends().filter_map(|[client, _]| {
        let mut packet = compound.to_vec();
        client.sealer.seal_rtcp(&mut packet, 1).then_some(packet)
    });
    sealed.collect()
}
