//! One entry for each parser that reads what a client, a service or a person wrote: any bytes must be taken without
//! panic, in bounded time and memory. `fuzz/` runs these under libFuzzer, `tests/fuzz_bodies.rs` with seeds and
//! mutations of them in every test run. Not an interface for anything else.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use livekit_protocol as proto;
use prost::Message as _;

use crate::{
    auth::{ApiKeys, Claims, Grants},
    http, interview, rooms,
    sfu::{self, fuzzing::OFFER},
    signalling::{livekit, whip},
    turn_server, webhooks,
};

/// A parser, as a fuzzer sees it.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Inputs that get far, to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them, in alphabetical order.
pub const TARGETS: &[Target] = &[
    Target { name: "data_packet", run: rooms::fuzzing::data_packet, seeds: data_packets },
    Target { name: "datagram", run: datagram, seeds: datagrams },
    Target { name: "interview_yaml", run: interview::fuzz_yaml, seeds: yaml },
    Target { name: "join_query", run: join_query, seeds: queries },
    Target { name: "join_request", run: join_request, seeds: join_requests },
    Target { name: "jwt", run: jwt, seeds: tokens },
    Target { name: "offer", run: offer, seeds: offers },
    Target { name: "relay_stream", run: relay_stream, seeds: relay_streams },
    Target { name: "rtcp", run: sfu::fuzzing::rtcp, seeds: reports },
    Target { name: "sdp_munging", run: sdp_munging, seeds: offers },
    Target { name: "signal_json", run: signal_json, seeds: json_requests },
    Target { name: "signal_protobuf", run: signal_protobuf, seeds: requests },
    Target { name: "srtcp", run: sfu::fuzzing::srtcp, seeds: sealed_reports },
    Target { name: "trickle_fragment", run: trickle_fragment, seeds: fragments },
    Target { name: "twirp_json", run: twirp_json, seeds: twirp_json_bodies },
    Target { name: "twirp_protobuf", run: twirp_protobuf, seeds: twirp_bodies },
    Target { name: "webhook_json", run: webhooks::fuzz_json, seeds: hooks },
    Target { name: "whip_sdp", run: whip_sdp, seeds: offers },
    Target { name: "worker_message", run: http::fuzz_worker, seeds: worker_messages },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn join_query(bytes: &[u8]) {
    livekit::fuzz_query(&text(bytes));
}

fn join_request(bytes: &[u8]) {
    let _ = livekit::codec::decode_join_request(&text(bytes));
    if let Ok(request) = livekit::codec::decode_join_request(&URL_SAFE_NO_PAD.encode(bytes)) {
        rooms::fuzzing::join(request);
    }
}

fn signal_protobuf(bytes: &[u8]) {
    rooms::fuzzing::requests(frames(bytes).filter_map(|frame| livekit::codec::decode_binary(frame).ok()));
}

fn signal_json(bytes: &[u8]) {
    let text = text(bytes);
    rooms::fuzzing::requests(text.split('\n').filter_map(|frame| livekit::codec::decode_text(frame).ok()));
}

/// Several frames in one input, each behind its length in two bytes.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (frame, rest) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes(*length))));
        bytes = rest;
        Some(frame)
    })
}

fn framed<'a>(all: impl IntoIterator<Item = &'a proto::signal_request::Message>) -> Vec<u8> {
    let mut out = Vec::new();
    for message in all {
        let frame = proto::SignalRequest { message: Some(message.clone()) }.encode_to_vec();
        out.extend(u16::try_from(frame.len()).unwrap_or_default().to_be_bytes());
        out.extend(frame);
    }
    out
}

fn datagram(bytes: &[u8]) {
    sfu::fuzzing::datagram(Instant::now(), bytes);
}

fn relay_stream(bytes: &[u8]) {
    turn_server::fuzz(turn_server::RelayNow { at: Instant::now(), unix: 1_800_000_000 }, bytes);
}

fn offer(bytes: &[u8]) {
    sfu::fuzzing::offer(Instant::now(), &text(bytes));
}

fn sdp_munging(bytes: &[u8]) {
    sfu::fuzzing::munge(&text(bytes));
}

fn whip_sdp(bytes: &[u8]) {
    whip::fuzz_offer(&text(bytes));
}

fn trickle_fragment(bytes: &[u8]) {
    whip::fuzz_fragment(&text(bytes));
}

fn twirp_json(bytes: &[u8]) {
    http::fuzz_twirp(bytes, true);
}

fn twirp_protobuf(bytes: &[u8]) {
    http::fuzz_twirp(bytes, false);
}

/// As a token, and as the claims of a token that has the right signature.
fn jwt(bytes: &[u8]) {
    static KEYS: LazyLock<ApiKeys> = LazyLock::new(ApiKeys::dev);
    let _ = KEYS.verify(&text(bytes));
    if let Ok(claims) = KEYS.verify_signed(bytes) {
        assert!(claims.exp > 0 && claims.iss == "devkey", "a token without an end, or of nobody, was accepted");
    }
}

// --- seeds ---

fn offers() -> Vec<Vec<u8>> {
    let audio = OFFER.split("m=video").next().unwrap_or_default();
    vec![OFFER.into(), audio.replace("a=recvonly", "a=sendonly").into(), OFFER.replace("recvonly", "inactive").into()]
}

fn fragments() -> Vec<Vec<u8>> {
    vec![
        b"a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
          a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag abcd\r\n\
          a=candidate:1 1 TCP 1 abc.local 9 typ host tcptype active\r\na=end-of-candidates\r\n"
            .to_vec(),
    ]
}

fn queries() -> Vec<Vec<u8>> {
    vec![
        b"protocol=13&sdk=android&version=2.20.0&auto_subscribe=0&adaptive_stream=1&attributes=eyJhIjoiYiJ9".to_vec(),
        b"protocol=17&reconnect=1&sid=PA_1&reconnect_reason=2&network=wifi%20x&access_token=a.b.c".to_vec(),
        b"join_request=CAASAA%3D%3D&access_token=a".to_vec(),
    ]
}

fn description() -> proto::SessionDescription {
    proto::SessionDescription { r#type: "offer".into(), sdp: OFFER.into(), id: 1, ..Default::default() }
}

fn microphone() -> proto::AddTrackRequest {
    let codec = proto::SimulcastCodec { codec: "opus".into(), cid: "mic".into(), ..Default::default() };
    proto::AddTrackRequest { cid: "mic".into(), source: 2, simulcast_codecs: vec![codec], ..Default::default() }
}

fn join_requests() -> Vec<Vec<u8>> {
    let join = proto::JoinRequest {
        client_info: Some(proto::ClientInfo { protocol: 17, capabilities: vec![1, 2], ..Default::default() }),
        metadata: "m".into(),
        participant_attributes: [("k".to_owned(), "v".to_owned())].into(),
        add_track_requests: vec![microphone()],
        publisher_offer: Some(description()),
        ..Default::default()
    };
    let resume = proto::JoinRequest { reconnect: true, participant_sid: "PA_1".into(), ..Default::default() };
    [join, resume]
        .map(|request| {
            proto::WrappedJoinRequest { compression: 0, join_request: request.encode_to_vec() }.encode_to_vec()
        })
        .into()
}

fn messages() -> Vec<proto::signal_request::Message> {
    use proto::signal_request::Message as Ask;
    let sync = proto::SyncState {
        offer: Some(proto::SessionDescription::default()),
        subscription: Some(proto::UpdateSubscription { track_sids: vec!["TR_1".into()], ..Default::default() }),
        publish_tracks: vec![proto::TrackPublishedResponse::default()],
        track_sids_disabled: vec!["TR_1".into()],
        datachannel_receive_states: vec![proto::DataChannelReceiveState { publisher_sid: "PA_1".into(), last_seq: 1 }],
        ..Default::default()
    };
    let permission = proto::TrackPermission { participant_identity: "bob".into(), ..Default::default() };
    vec![
        Ask::Offer(description()),
        Ask::AddTrack(microphone()),
        Ask::Mute(proto::MuteTrackRequest { sid: "TR_1".into(), muted: true }),
        Ask::Subscription(proto::UpdateSubscription {
            track_sids: vec!["TR_1".into()],
            subscribe: true,
            participant_tracks: vec![proto::ParticipantTracks {
                participant_sid: "PA_1".into(),
                track_sids: vec!["TR_2".into()],
            }],
        }),
        Ask::TrackSetting(proto::UpdateTrackSettings { track_sids: vec!["TR_1".into()], ..Default::default() }),
        Ask::SubscriptionPermission(proto::SubscriptionPermission {
            all_participants: false,
            track_permissions: vec![permission],
        }),
        Ask::SyncState(sync),
        Ask::UpdateMetadata(proto::UpdateParticipantMetadata {
            metadata: "m".into(),
            name: "n".into(),
            attributes: [("a".to_owned(), "b".to_owned())].into(),
            request_id: 3,
        }),
        Ask::Ping(1),
        Ask::PingReq(proto::Ping { timestamp: 1, rtt: 2 }),
        Ask::Simulate(proto::SimulateScenario {
            scenario: Some(proto::simulate_scenario::Scenario::SpeakerUpdate(i32::MAX)),
        }),
        Ask::Leave(proto::LeaveRequest::default()),
    ]
}

fn requests() -> Vec<Vec<u8>> {
    let all = messages();
    all.iter().map(|one| framed([one])).chain([framed(&all)]).collect()
}

fn json_requests() -> Vec<Vec<u8>> {
    let json = |message| {
        serde_json::to_string(&proto::SignalRequest { message: Some(message) }).unwrap_or_default().into_bytes()
    };
    messages().into_iter().map(json).collect()
}

fn tokens() -> Vec<Vec<u8>> {
    let keys = ApiKeys::dev();
    let claims = Claims::new(&"ada".into(), Grants::participant(&"room".into())).with_name("Ada");
    let token = keys.mint(claims, Duration::from_secs(3600)).unwrap_or_default();
    let claims = r#"{"iss":"devkey","sub":"ada","exp":4000000000,"nbf":1,"video":{"roomJoin":true,"room":"r",
        "canPublish":null,"canPublishSources":["camera"]},"attributes":{"a":"b"},"kind":"agent"}"#;
    vec![token.into_bytes(), claims.as_bytes().to_vec(), b"eyJhbGciOiJub25lIn0.e30.".to_vec()]
}

fn twirp_bodies() -> Vec<Vec<u8>> {
    let room = proto::CreateRoomRequest { name: "r".into(), metadata: "m".into(), ..Default::default() };
    let update = proto::UpdateParticipantRequest {
        room: "r".into(),
        identity: "ada".into(),
        permission: Some(proto::ParticipantPermission { can_publish_sources: vec![1, 2], ..Default::default() }),
        ..Default::default()
    };
    vec![room.encode_to_vec(), update.encode_to_vec()]
}

fn twirp_json_bodies() -> Vec<Vec<u8>> {
    vec![
        br#"{"name":"r","emptyTimeout":5,"max_participants":2,"metadata":"m","agents":[{"agentName":"a"}]}"#.to_vec(),
        br#"{"room":"r","identity":"ada","permission":{"canPublishSources":["CAMERA",2]},"attributes":{"a":"b"}}"#
            .to_vec(),
        br#"{"room":"r","data":"aGk=","kind":"LOSSY","destinationIdentities":["a"],"nonce":"AA=="}"#.to_vec(),
        br#"{"room":"r","identity":"ada","revokeTokenTs":"1800000000"}"#.to_vec(),
    ]
}

fn hooks() -> Vec<Vec<u8>> {
    let event = proto::WebhookEvent {
        event: "track_published".into(),
        room: Some(proto::Room { sid: "RM_1".into(), ..Default::default() }),
        participant: Some(proto::ParticipantInfo { capabilities: vec![77], ..Default::default() }),
        track: Some(proto::TrackInfo { source: 99, audio_features: vec![44], ..Default::default() }),
        ..Default::default()
    };
    vec![event.encode_to_vec()]
}

fn data_packets() -> Vec<Vec<u8>> {
    use proto::data_packet::Value;
    let packet = |value| proto::DataPacket { sequence: 1, value: Some(value), ..Default::default() }.encode_to_vec();
    vec![
        packet(Value::User(proto::UserPacket { payload: b"hi".to_vec(), nonce: vec![1], ..Default::default() })),
        packet(Value::RpcRequest(proto::RpcRequest { id: "1".into(), method: "m".into(), ..Default::default() })),
        packet(Value::RpcResponse(proto::RpcResponse { request_id: "1".into(), ..Default::default() })),
        packet(Value::StreamHeader(proto::data_stream::Header { topic: "lk.chat".into(), ..Default::default() })),
    ]
}

fn datagrams() -> Vec<Vec<u8>> {
    let stun = sfu::fuzzing::binding_request("abcd:efgh");
    let dtls = [&[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4][..], &[1, 0, 0, 0]].concat();
    let rtp = [&[0x90, 111, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7, 0xbe, 0xde, 0, 1, 0x10, 0x7f, 0, 0][..], &[9; 40]].concat();
    let rtcp = vec![0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7];
    vec![stun, dtls, rtp, rtcp]
}

fn relay_streams() -> Vec<Vec<u8>> {
    let binding = sfu::fuzzing::binding_request("abcd:efgh");
    // A request of another kind with an attribute of four bytes.
    let request = |method: u8, attribute: [u8; 2], value: [u8; 4]| {
        let head = [&[0, method, 0, 8][..], &binding[4..20], &attribute, &[0, 4], &value];
        head.concat()
    };
    let allocate = request(3, [0, 0x19], [17, 0, 0, 0]);
    let refresh = request(4, [0, 0x0d], [0, 0, 2, 88]);
    let bind = request(9, [0, 0x0c], [0x40, 1, 0, 0]);
    let channel = vec![0x40, 1, 0, 3, 9, 9, 9, 0];
    vec![[&allocate[..], &refresh, &bind, &channel].concat(), [&binding[..], &channel].concat(), allocate]
}

fn worker_messages() -> Vec<Vec<u8>> {
    use proto::worker_message::Message;
    let of = |message| proto::WorkerMessage { message: Some(message) };
    let messages = [
        of(Message::Register(proto::RegisterWorkerRequest { agent_name: "helper".into(), ..Default::default() })),
        of(Message::Availability(proto::AvailabilityResponse {
            job_id: "AJ_1".into(),
            available: true,
            participant_identity: "helper".into(),
            ..Default::default()
        })),
        of(Message::UpdateJob(proto::UpdateJobStatus { job_id: "AJ_1".into(), ..Default::default() })),
    ];
    let binary = messages.iter().map(prost::Message::encode_to_vec);
    binary.chain(messages.iter().filter_map(|message| serde_json::to_vec(message).ok())).collect()
}

/// Each kind of report, and all of them in one packet.
fn reports() -> Vec<Vec<u8>> {
    let packet = |kind: [u8; 2], body: &[u8]| {
        let words = u16::try_from(body.len() / 4).unwrap_or_default();
        [&kind[..], &words.to_be_bytes(), body].concat()
    };
    let feedback = [
        // In runs, with one delta of each size, and in both kinds of vector.
        &[0, 0, 0, 1, 0, 0, 0, 7, 0xff, 0xfe, 0, 5, 0, 0, 2, 9, 0x20, 1, 0x40, 1, 0, 3, 4, 0xff, 0xf0, 0, 0, 3][..],
        &[0, 0, 0, 1, 0, 0, 0, 7, 0, 5, 0, 21, 0xff, 0xff, 0xfe, 9, 0x98, 1, 0xc6, 0x90, 1, 2, 3, 8, 16, 0, 0xff, 0xf0],
    ];
    let mut all = vec![
        packet([0x81, 200], &[[0, 0, 0, 1]; 12].concat()),
        packet([0x82, 201], &[[0, 0, 0, 7]; 13].concat()),
        packet([0x81, 205], &[0, 0, 0, 1, 0, 0, 0, 7, 0xff, 0xfe, 0x80, 5]),
        packet([0xaf, 205], feedback[0]),
        packet([0x8f, 205], feedback[1]),
        packet([0x81, 206], &[0, 0, 0, 1, 0, 0, 0, 7]),
        packet([0x84, 206], &[[0, 0, 0, 9]; 6].concat()),
        packet([0x8f, 206], b"\0\0\0\x01\0\0\0\0REMB\x01\x0d\x00\x90\0\0\0\x07"),
    ];
    all.push(all.concat());
    all
}

fn sealed_reports() -> Vec<Vec<u8>> {
    reports().iter().flat_map(|compound| sfu::fuzzing::sealed_rtcp(compound)).collect()
}

fn yaml() -> Vec<Vec<u8>> {
    let plan = "title: T\nrole: R\nlevel: junior\nminutes: 5\nquestions:\n  - id: a\n    text: What do you do?\n    \
        follow_up:\n      min_words: 3\n      probes: [Why?]\n";
    vec![plan.into(), "name: Ada\nstyle: warm\ngreeting: Hello {name}.\n".into()]
}
