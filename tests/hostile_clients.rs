//! Clients that dawdle, flood, or send more than anybody needs, while others join and talk as if they were not there.

mod door;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use door::{Door, PATIENCE, Setup, join_request, wrapped};
use flate2::{Compression, write::GzEncoder};
use futures::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::{signal_request::Message as Ask, signal_response::Message as Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message as Frame};
use viva::{auth::Grants, http::guard, rooms};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn socket(door: &Door, identity: &str) -> Socket {
    let token = door.token(identity, "room");
    let url = format!("ws://{}/rtc/v1?access_token={token}&join_request={}", door.address, join_request());
    tokio_tungstenite::connect_async(url).await.expect("let in").0
}

async fn ask(socket: &mut Socket, ask: Ask) -> bool {
    let frame = proto::SignalRequest { message: Some(ask) }.encode_to_vec();
    socket.send(Frame::Binary(frame.into())).await.is_ok()
}

/// The next message of a kind; `None` where the socket is closed before it comes.
async fn next<T>(socket: &mut Socket, pick: impl Fn(Response) -> Option<T>) -> Option<T> {
    let found = async {
        while let Some(Ok(frame)) = socket.next().await {
            let Frame::Binary(bytes) = frame else { continue };
            let message = proto::SignalResponse::decode(bytes).expect("a SignalResponse").message;
            if let Some(found) = message.and_then(&pick) {
                return Some(found);
            }
        }
        None
    };
    tokio::time::timeout(PATIENCE, found).await.expect("in time")
}

/// Somebody else joins and is answered.
async fn others_are_served(door: &Door) {
    let mut ada = socket(door, "ada").await;
    assert!(next(&mut ada, |m| matches!(m, Response::Join(_)).then_some(())).await.is_some());
    assert!(ask(&mut ada, Ask::Ping(1)).await);
    assert!(next(&mut ada, |m| matches!(m, Response::Pong(_)).then_some(())).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_or_never_ends_is_closed_and_others_get_in() {
    let door = Door::open(Setup::default()).await;
    let begun = Instant::now();
    // Half-open ones: silent, in the middle of a request line, in the middle of headers, in the middle of a handshake.
    let beginnings = [
        "",
        "GET /rtc/v1?access",
        "GET /livez HTTP/1.1\r\nHost: a\r\nX-A: b",
        "GET /rtc/v1 HTTP/1.1\r\n\
        Connection: Upgrade\r\nUpgrade: websocket\r\n",
    ];
    let mut held = Vec::new();
    for n in 0..400 {
        let mut stream = TcpStream::connect(door.address).await.expect("listens");
        stream.write_all(beginnings[n % beginnings.len()].as_bytes()).await.expect("sends");
        held.push(stream);
    }
    others_are_served(&door).await;
    // One that drips: each byte comes soon after the last.
    let mut dripping = TcpStream::connect(door.address).await.expect("listens");
    let drip = async {
        dripping.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n").await?;
        loop {
            dripping.write_all(b"X-A: b\r\n").await?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let dripped: Result<Result<(), std::io::Error>, _> = tokio::time::timeout(PATIENCE, drip).await;
    assert!(dripped.expect("closed in time").is_err());
    for mut stream in held {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "a half-open connection stays");
    }
    println!("400 half-open connections were closed within {:.1} s", begun.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_is_not_waited_for() {
    let door = Door::open(Setup::default()).await;
    let token = door.mint("", Grants { room_list: true, ..Grants::default() });
    let join = door.token("eve", "room");
    let request = |path: &str, kind: &str, token: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: 1000\r\n\r\nv=0"
        )
    };
    let twirp = request("/twirp/livekit.RoomService/ListRooms", "application/json", &token);
    let whip = request("/whip/v1", "application/sdp", &join);
    let (twirp, whip) = tokio::join!(door.exchange(twirp.as_bytes()), door.exchange(whip.as_bytes()));
    assert_eq!((twirp.status, whip.status), (408, 503), "{twirp:?} {whip:?}");
    assert!(twirp.body.contains("took too long"));
    others_are_served(&door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_by_its_size() {
    let door = Door::open(Setup::default()).await;
    let token = door.token("eve", "room");
    let bearer = format!("Bearer {token}");
    let whip = [("Authorization", bearer.as_str()), ("Content-Type", "application/sdp")];
    let sections = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n";
    for sdp in ["v=0\r\n".to_owned() + &"a=x\r\n".repeat(200_000), "v=0\r\n".to_owned() + &sections.repeat(10_000)] {
        let answer = door.ask("POST", "/whip/v1", &whip, &sdp).await;
        assert_eq!(answer.status, 413, "{}", answer.body);
    }
    let few = "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n".to_owned() + &sections.repeat(1_000);
    assert_eq!(door.ask("POST", "/whip/v1", &whip, &few).await.status, 422);
    // An offer in the address, packed: 1 MiB, then so many sections that it fits.
    for (sdp, told) in [("v=0\r\n".to_owned() + &"a=x\r\n".repeat(200_000), 400), (sections.repeat(5_000), 400)] {
        let offer = proto::SessionDescription { r#type: "offer".into(), sdp, id: 1, ..Default::default() };
        let request = proto::JoinRequest { publisher_offer: Some(offer), ..Default::default() };
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&request.encode_to_vec()).expect("packs");
        let param = wrapped(1, packed.finish().expect("packs"));
        let answer = door.upgrade(&format!("/rtc/v1?access_token={token}&join_request={param}"), &[]).await;
        assert!(answer.status == told || answer.status == 101, "{answer:?}");
    }
    // Bombs: what is small packed and large unpacked, and what is small unpacked and large in memory.
    let tracks = vec![proto::AddTrackRequest::default(); 100_000];
    let many = proto::JoinRequest { add_track_requests: tracks, ..Default::default() }.encode_to_vec();
    for (bytes, words) in [(vec![0; 16 * 1024 * 1024], "too large"), (many, "more parts")] {
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&bytes).expect("packs");
        let param = wrapped(1, packed.finish().expect("packs"));
        let answer = door.upgrade(&format!("/rtc/v1?access_token={token}&join_request={param}"), &[]).await;
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains(words), "{}", answer.body);
    }
    let admin = door.mint("", Grants { room_create: true, ..Grants::default() });
    let long = door.twirp("CreateRoom", &admin, &format!(r#"{{"name":"{}"}}"#, "x".repeat(600_000))).await;
    assert_eq!(long.status, 413, "{}", long.body);
    others_are_served(&door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_64_mib_ends_its_socket_and_nothing_else() {
    let door = Door::open(Setup::default()).await;
    let mut eve = socket(&door, "eve").await;
    // The header alone: nobody needs to send the rest.
    let header = [&[0x82, 0xff][..], &(64u64 * 1024 * 1024).to_be_bytes(), &[0; 4]].concat();
    let MaybeTlsStream::Plain(raw) = eve.get_mut() else { panic!("no TLS here") };
    raw.write_all(&header).await.expect("sends");
    assert!(next(&mut eve, |m| matches!(m, Response::Leave(_)).then_some(())).await.is_none(), "the socket is closed");
    // Many parts of a message that never ends.
    let mut mallory = socket(&door, "mallory").await;
    let part = [&[0x02, 0xfe][..], &60_000u16.to_be_bytes(), &[0; 4], &[0; 60_000]].concat();
    let MaybeTlsStream::Plain(raw) = mallory.get_mut() else { panic!("no TLS here") };
    for n in 0..20u8 {
        let mut part = part.clone();
        part[0] = if n == 0 { 0x02 } else { 0x00 };
        if raw.write_all(&part).await.is_err() {
            break;
        }
    }
    assert!(next(&mut mallory, |m| matches!(m, Response::Leave(_)).then_some(())).await.is_none());
    others_are_served(&door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_floods_is_told_to_leave_and_its_room_goes_on() {
    let door = Door::open(Setup::default()).await;
    let mut ada = socket(&door, "ada").await;
    let eve = socket(&door, "eve").await;
    // Large ones cost more, so that this takes as little time as may be; the limit is ten seconds of that.
    let track_sids = vec![format!("TR_{}", "x".repeat(1_000)); 400];
    let flood = Ask::TrackSetting(proto::UpdateTrackSettings { track_sids, ..Default::default() });
    let (mut writer, mut reader) = eve.split();
    let frame: bytes::Bytes = proto::SignalRequest { message: Some(flood) }.encode_to_vec().into();
    let writing = tokio::spawn(async move { while writer.send(Frame::Binary(frame.clone())).await.is_ok() {} });
    let told = async {
        let (mut left, mut closed) = (None, None);
        while let Some(Ok(frame)) = reader.next().await {
            match frame {
                Frame::Binary(bytes) => {
                    if let Some(Response::Leave(leave)) =
                        proto::SignalResponse::decode(bytes).expect("readable").message
                    {
                        left = Some((leave.reason(), leave.action()));
                    }
                }
                Frame::Close(close) => closed = close.map(|close| u16::from(close.code)),
                _ => {}
            }
        }
        (left, closed)
    };
    let (left, closed) = tokio::time::timeout(PATIENCE, told).await.expect("in time");
    let removed = (proto::DisconnectReason::ParticipantRemoved, proto::leave_request::Action::Disconnect);
    assert_eq!((left, closed), (Some(removed), Some(1008)));
    assert_eq!(door.metrics.limited.with_label_values(&["messages"]).get(), 1);
    writing.abort();
    let gone = |m| match m {
        Response::Update(update) => update.participants.into_iter().find(|p| p.identity == "eve" && p.state == 3),
        _ => None,
    };
    assert!(next(&mut ada, gone).await.is_some(), "others see that she has gone");
    assert!(ask(&mut ada, Ask::Ping(1)).await);
    assert!(next(&mut ada, |m| matches!(m, Response::Pong(_)).then_some(())).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_joins_is_told_when_to_come_again_and_others_are_not_held_up() {
    let proxies = vec!["127.0.0.1".parse().expect("an address")];
    let limits = guard::Config { joins_per_address_per_sec: 1, ..guard::Config::default() };
    let door = Door::open(Setup { trusted_proxies: proxies, limits, ..Setup::default() }).await;
    let knock = async |from: &str, path: &str| {
        let headers = [("X-Forwarded-For", from)];
        door.ask("GET", path, &headers, "").await
    };
    let mut refused = Vec::new();
    for _ in 0..300 {
        let answer = knock("203.0.113.9", "/rtc/v1").await;
        if answer.status == 429 {
            refused.push(answer);
        }
    }
    assert!((50..=100).contains(&refused.len()), "200 at once, the rest waits: {}", refused.len());
    let secs: u64 = refused[0].header("retry-after").expect("says when").parse().expect("seconds");
    assert!((1..10).contains(&secs));
    assert_eq!(refused[0].header("access-control-allow-origin"), Some("*"), "a page may read it");
    assert!(refused[0].body.contains("Retry-After"));
    // Each kind of client reads it in its own form.
    let problem = async {
        loop {
            let answer = door.ask("POST", "/v1/interviews", &[("X-Forwarded-For", "203.0.113.9")], "{}").await;
            if answer.status == 429 {
                return answer;
            }
        }
    };
    let problem = tokio::time::timeout(PATIENCE, problem).await.expect("counts as the same");
    assert_eq!(problem.header("content-type"), Some("application/problem+json"));
    assert_eq!(knock("203.0.113.9", "/livez").await.status, 200, "health is free");
    assert_ne!(knock("203.0.113.10", "/rtc/v1").await.status, 429, "another address");
    assert_ne!(knock("203.0.113.9, 203.0.113.10", "/rtc/v1").await.status, 429, "what a client invents does not count");
    assert!(door.metrics.limited.with_label_values(&["joins_address"]).get() >= 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_every_connection() {
    let limits = guard::Config { connections_per_address: 8, ..guard::Config::default() };
    let door = Door::open(Setup { limits, ..Setup::default() }).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(door.address).await.expect("listens");
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sends");
        let mut some = [0; 16];
        assert!(stream.read(&mut some).await.expect("answers") > 0);
        held.push(stream);
    }
    let mut ninth = TcpStream::connect(door.address).await.expect("listens");
    let _ = ninth.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, ninth.read_to_end(&mut rest)).await.expect("closed");
    assert!(rest.is_empty(), "closed without a word");
    held.pop();
    let again = async { while door.get("/livez").await.status != 200 {} };
    tokio::time::timeout(PATIENCE, again).await.expect("a place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signalling_socket_counts_as_a_connection_for_as_long_as_it_is_open() {
    let limits = guard::Config { connections_per_address: 3, ..guard::Config::default() };
    let door = Door::open(Setup { limits, ..Setup::default() }).await;
    let mut held = Vec::new();
    for n in 0..3 {
        let token = door.token(&format!("eve {n}"), "room");
        let url = format!("ws://{}/rtc/v1?access_token={token}&join_request={}", door.address, join_request());
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("let in");
        // The upgrade is over when the first message is here.
        socket.next().await.expect("open").expect("a message");
        held.push(socket);
    }
    for _ in 0..3 {
        assert_eq!(door.get("/livez").await.status, 0, "closed without a word");
    }
    held.pop();
    let again = async { while door.get("/livez").await.status != 200 {} };
    tokio::time::timeout(PATIENCE, again).await.expect("a place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_has_its_share_and_the_others_have_theirs() {
    let rooms = rooms::Config {
        max_rooms_per_key: 2,
        max_participants_per_key: 3,
        joins_per_key_burst: 10,
        joins_per_key_per_sec: 1,
        ..rooms::Config::default()
    };
    let keys = vec![("tenant-a", "the secret of a"), ("tenant-b", "the secret of b")];
    let door = Door::open(Setup { rooms, keys, ..Setup::default() }).await;
    let token = |key: &str, identity: &str, room: &str| {
        let claims = viva::auth::Claims::new(&identity.into(), Grants::participant(&room.into()));
        door.keys.mint_by(Some(key), claims, Duration::from_secs(600)).expect("a known key")
    };
    let open = async |token: String| {
        let url = format!("ws://{}/rtc/v1?access_token={token}&join_request={}", door.address, join_request());
        match tokio_tungstenite::connect_async(url).await {
            Ok((socket, _)) => Ok(socket),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                let retry = response.headers().contains_key("retry-after");
                Err((
                    response.status().as_u16(),
                    retry,
                    String::from_utf8_lossy(response.body().as_ref().expect("words")).into_owned(),
                ))
            }
            Err(error) => panic!("{error}"),
        }
    };
    let _first = open(token("tenant-a", "a1", "one")).await.expect("let in");
    let _second = open(token("tenant-a", "a2", "two")).await.expect("let in");
    let (status, retry, words) = open(token("tenant-a", "a3", "three")).await.expect_err("has two rooms");
    assert_eq!((status, retry), (429, true));
    assert!(words.contains("max_rooms_per_key"), "{words}");
    let service =
        viva::auth::Claims::new(&"a".into(), Grants { room_admin: true, room: "three".into(), ..Default::default() });
    let service = door.keys.mint_by(Some("tenant-a"), service, Duration::from_secs(600)).expect("a known key");
    let headers = [("Authorization", &*format!("Bearer {service}")), ("Content-Type", "application/json")];
    let dispatch = "/twirp/livekit.AgentDispatchService/CreateDispatch";
    let answer = door.ask("POST", dispatch, &headers, r#"{"room": "three", "agentName": "echo"}"#).await;
    assert!(answer.status == 429 && answer.body.contains("max_rooms_per_key"), "{answer:?}");
    let third = open(token("tenant-a", "a3", "two")).await.expect("let in");
    let (status, _, words) = open(token("tenant-a", "a4", "two")).await.expect_err("has three people");
    assert_eq!(status, 429);
    assert!(words.contains("max_participants_per_key"), "{words}");
    let _other = open(token("tenant-b", "b1", "three")).await.expect("another key has its own share");
    drop(third);
    let again = async { while open(token("tenant-a", "a5", "two")).await.is_err() {} };
    tokio::time::timeout(PATIENCE, again).await.expect("who goes makes room");
    // Too fast.
    let mut refused = None;
    for n in 0..40 {
        if let Err((429, _, words)) = open(token("tenant-b", &format!("f{n}"), "three")).await
            && words.contains("joins_per_key")
        {
            refused = Some(words);
        }
    }
    assert!(refused.is_some());
    assert!(door.metrics.limited.with_label_values(&["joins_key"]).get() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_get_in_or_a_reason_and_leave_no_trace_in_the_metrics() {
    let rooms = rooms::Config { max_rooms: 400, ..rooms::Config::default() };
    let limits = guard::Config { joins_per_address_per_sec: 0, ..guard::Config::default() };
    let door = Door::open(Setup { rooms, limits, ..Setup::default() }).await;
    let lines = async || {
        let metrics = door.get("/metrics").await;
        let count = metrics.body.lines().filter(|line| !line.starts_with('#')).count();
        (count, metrics.body)
    };
    // Once in each way, so that every series that there can be is there.
    let admin = door.mint("", Grants { room_create: true, ..Grants::default() });
    let whip = async |token: &str| {
        let bearer = format!("Bearer {token}");
        door.ask("POST", "/whip/v1", &[("Authorization", &bearer), ("Content-Type", "application/sdp")], "v=0").await
    };
    let odd: Vec<String> = [
        "a",
        " ",
        "\t",
        "\u{0}",
        "\u{7}\u{1b}[31m",
        "\u{202e}evil",
        "\u{200b}\u{200b}",
        "\u{feff}",
        "e\u{301}\u{301}",
        "\u{1f9d1}\u{200d}\u{1f4bb}",
        "مرحبا",
        "../../etc",
        "'; DROP TABLE rooms; --",
        "<script>",
        "{{7*7}}",
        "%00",
        "\\\"\n",
        "${jndi:ldap://x}",
        "room\r\nX-A: b",
        "NaN",
        "null",
        "\u{ffff}",
        "a/b/c?d=e#f",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([256, 257, 1_000, 20_000].map(|n| "x".repeat(n)))
    .chain(["é".repeat(128), "é".repeat(129)])
    .collect();
    let enter = async |identity: &str, room: &str| {
        let token = door.token(identity, room);
        let joined = door.join(&token).await;
        let published = whip(&token).await;
        let created = door.twirp("CreateRoom", &admin, &serde_json::json!({ "name": room }).to_string()).await;
        assert!([101, 400].contains(&joined.status), "{joined:?}");
        assert!([400, 503].contains(&published.status), "{published:?}");
        assert!([200, 400].contains(&created.status), "{created:?}");
        (joined.status, created.status)
    };
    assert_eq!(enter("plain", "plain").await, (101, 200));
    assert_eq!(enter(&"i".repeat(300), "plain").await.0, 400);
    assert_eq!(enter("plain", &"r".repeat(300)).await, (400, 400));
    door.get("/v1/interviews/01NOTHING").await;
    lines().await;
    let (before, _) = lines().await;
    for name in &odd {
        let fits = name.len() <= 256;
        assert_eq!(enter("plain", name).await, if fits { (101, 200) } else { (400, 400) }, "{name:.40?}");
        assert_eq!(enter(name, "plain").await.0, if fits { 101 } else { 400 }, "{name:.40?}");
        door.get(&format!("/v1/interviews/{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))).await;
    }
    for n in 0..600 {
        let answer = door.join(&door.token(&format!("person-{n}"), &format!("room-{n}"))).await;
        assert!([101, 503].contains(&answer.status), "{answer:?}");
    }
    let (after, text) = lines().await;
    // The refusals of rooms beyond the bound are a series of their own.
    assert!(after <= before + 40, "{before} lines of metrics became {after}");
    assert!(!text.contains("room-1") && !text.contains("person-1") && !text.contains("evil") && !text.contains("xxxx"));
    assert!(door.rooms.count() <= 400);
}
