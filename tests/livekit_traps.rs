//! What LiveKit's clients trip over, found the hard way. Each test is named after its trap.

mod door;

use std::collections::HashMap;

use door::{Door, Setup, wrapped};
use futures::StreamExt;
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message as Response;
use tokio_tungstenite::tungstenite::Message as Frame;

/// What a browser offers when it joins: three recvonly sections of each kind, and data channels.
fn placeholders() -> String {
    let seeds = (viva::fuzzing::target("offer").expect("is there").seeds)();
    String::from_utf8(seeds[0].clone()).expect("text")
}

/// Everything that a client is told when it joins with this request, up to the answer to its offer.
async fn join(door: &Door, request: proto::JoinRequest) -> Vec<Response> {
    let wants_answer = request.publisher_offer.is_some();
    let token = door.token("ada", "room");
    let param = wrapped(0, request.encode_to_vec());
    let url = format!("ws://{}/rtc/v1?access_token={token}&join_request={param}", door.address);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("let in");
    let mut told = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = socket.next().await {
            let Frame::Binary(bytes) = frame else { continue };
            told.extend(proto::SignalResponse::decode(bytes).expect("a SignalResponse").message);
            let last = told.last();
            if matches!(last, Some(Response::Answer(_) | Response::Leave(_))) || !wants_answer {
                break;
            }
        }
    };
    tokio::time::timeout(door::PATIENCE, read).await.expect("in time");
    told
}

async fn answer() -> String {
    let door = Door::open(Setup::default()).await;
    let offer = proto::SessionDescription { r#type: "offer".into(), sdp: placeholders(), id: 1, ..Default::default() };
    let told = join(&door, proto::JoinRequest { publisher_offer: Some(offer), ..Default::default() }).await;
    let answer = told.into_iter().find_map(|m| if let Response::Answer(answer) = m { Some(answer.sdp) } else { None });
    answer.expect("an answer")
}

fn sections(sdp: &str) -> Vec<&str> {
    sdp.split("m=").skip(1).collect()
}

/// A later offer with simulcast fails in the browser where the first answer did not accept the layers' header extensions,
/// and an extension that was left out once cannot come back.
#[tokio::test(flavor = "multi_thread")]
async fn t1_the_first_answer_accepts_what_simulcast_will_need_on_every_section() {
    let answer = answer().await;
    let sections = sections(&answer);
    let of = |kind: &str| sections.iter().filter(move |section| section.starts_with(kind)).collect::<Vec<_>>();
    let (audio, video) = (of("audio"), of("video"));
    assert_eq!((audio.len(), video.len()), (3, 3), "{answer}");
    for section in video {
        for needed in [
            "sdes:mid",
            "sdes:rtp-stream-id",
            "sdes:repaired-rtp-stream-id",
            "transport-wide-cc",
            "abs-send-time",
            "playout-delay",
        ] {
            assert!(section.contains(needed), "{needed} is missing: {section}");
        }
    }
    for section in audio {
        for needed in ["sdes:mid", "ssrc-audio-level", "transport-wide-cc", "abs-send-time"] {
            assert!(section.contains(needed), "{needed} is missing: {section}");
        }
    }
}

/// A client throws where the server has no version, when it joins and when it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn t3_the_server_says_its_version_at_every_join() {
    let door = Door::open(Setup::default()).await;
    let told = join(&door, proto::JoinRequest::default()).await;
    let Some(Response::Join(join)) = told.first() else { panic!("{told:?}") };
    let version = join.server_info.as_ref().expect("a server info").version.clone();
    let numbers: Vec<u32> = version.split('.').map(|part| part.parse().expect("a number")).collect();
    assert!(numbers.len() == 3 && numbers >= vec![1, 8, 0], "calls need 1.8.0: {version}");
    assert_eq!(join.server_version, version, "older clients read this one");
}

/// In one bundle, a payload type has one meaning: browsers refuse a description in which its parameters differ.
#[tokio::test(flavor = "multi_thread")]
async fn t9_a_payload_type_means_the_same_in_every_section() {
    let answer = answer().await;
    let mut meanings: HashMap<&str, (Vec<&str>, Vec<&str>)> = HashMap::new();
    let mut checked = 0;
    for section in sections(&answer) {
        let of = |name: &'static str| section.lines().filter_map(move |line| line.strip_prefix(name)?.split_once(' '));
        for (pt, codec) in of("a=rtpmap:") {
            let parameters: Vec<&str> = of("a=fmtp:").filter(|(of, _)| *of == pt).map(|(_, text)| text).collect();
            let meaning = meanings.entry(pt).or_insert_with(|| (vec![codec], parameters.clone()));
            assert_eq!((&meaning.0, &meaning.1), (&vec![codec], &parameters), "payload type {pt}: {answer}");
            checked += 1;
        }
    }
    assert!(checked >= 9 && meanings.contains_key("111") && meanings.contains_key("96"), "{answer}");
}
