//! Forged, broken, expired and misused tokens at every door: none of them opens.

mod door;

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use door::{Answer, Door, Setup, join_request};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use serde_json::{Value, json};
use viva::auth::Grants;

const SECRET: &str = "the secret of the key";
const OTHER_SECRET: &str = "the secret of the other key";
const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// What a token says that opens every door.
fn good() -> Value {
    json!({
        "iss": "key", "sub": "ada", "nbf": now() - 10, "exp": now() + 600,
        "video": { "roomJoin": true, "room": "room", "roomAdmin": true, "roomCreate": true, "roomList": true },
    })
}

fn signed_with(secret: &[u8], algorithm: Algorithm, header: &str, payload: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = sign(message.as_bytes(), &EncodingKey::from_secret(secret), algorithm).expect("signs");
    format!("{message}.{signature}")
}

/// Signed as it should be, whatever it says.
fn signed(header: &str, payload: &str) -> String {
    signed_with(SECRET.as_bytes(), Algorithm::HS256, header, payload)
}

fn claims(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = good();
    change(&mut claims);
    signed(HS256, &claims.to_string())
}

fn with(key: &str, value: Value) -> String {
    claims(|claims| claims[key] = value)
}

fn granting(key: &str, value: Value) -> String {
    claims(|claims| claims["video"][key] = value)
}

fn without(key: &str) -> String {
    claims(|claims| drop(claims.as_object_mut().expect("an object").remove(key)))
}

type Cases = Vec<(String, String)>;

fn signatures(cases: &mut Cases) {
    let token = signed(HS256, &good().to_string());
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let mut add = |name: String, signature: &str| cases.push((name, format!("{message}.{signature}")));
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        add(format!("signature with byte {at} flipped"), &URL_SAFE_NO_PAD.encode(flipped));
    }
    for length in [0, 1, 8, 16, 31] {
        add(format!("signature cut to {length} bytes"), &URL_SAFE_NO_PAD.encode(&bytes[..length]));
    }
    add("longer signature".into(), &URL_SAFE_NO_PAD.encode([&bytes[..], &[0]].concat()));
    add("doubled signature".into(), &URL_SAFE_NO_PAD.encode([&bytes[..], &bytes[..]].concat()));
    add("zeros".into(), &URL_SAFE_NO_PAD.encode([0; 32]));
    add("ones".into(), &URL_SAFE_NO_PAD.encode([255; 32]));
    add("signature in hex".into(), &bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    add("signature in lower case".into(), &signature.to_lowercase());
    add("padded signature".into(), &URL_SAFE.encode(&bytes));
    add("no base64".into(), "!!!!");
    let other = signed(HS256, r#"{"iss":"key","sub":"ada","exp":4000000000}"#);
    add("signature of another token".into(), other.rsplit('.').next().expect("a part"));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let payload = message.split('.').nth(1).expect("a part");
    add("signature of the payload alone".into(), &sign(payload.as_bytes(), &key, Algorithm::HS256).expect("signs"));
    for (name, secret) in [
        ("no secret", ""),
        ("the key's name", "key"),
        ("a guess", "secret"),
        ("the other key's secret", OTHER_SECRET),
        ("the secret and a line end", "the secret of the key\n"),
        ("a public key", PEM),
        ("null", "null"),
    ] {
        let token = signed_with(secret.as_bytes(), Algorithm::HS256, HS256, &good().to_string());
        cases.push((format!("signed with {name}"), token));
    }
}

fn algorithms(cases: &mut Cases) {
    let payload = good().to_string();
    let names = [
        "none",
        "None",
        "NONE",
        "nOnE",
        "HS384",
        "HS512",
        "HS1",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "ES256",
        "ES256K",
        "ES384",
        "ES512",
        "EdDSA",
        "hs256",
        "HS256 ",
        " HS256",
        "HS256\\u0000",
        "",
        "dir",
    ];
    for name in names {
        // With the signature that HS256 would have: nothing but the name is wrong.
        cases.push((format!("alg {name:?}"), signed(&format!(r#"{{"alg":"{name}","typ":"JWT"}}"#), &payload)));
    }
    for name in ["none", "RS256", "HS256"] {
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{name}"}}"#)),
            URL_SAFE_NO_PAD.encode(&payload)
        );
        cases.push((format!("alg {name}, unsigned"), format!("{message}.")));
        cases.push((format!("alg {name}, two parts"), message));
    }
    for (name, algorithm) in [("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)] {
        for said in [name, "HS256"] {
            let header = format!(r#"{{"alg":"{said}"}}"#);
            let token = signed_with(SECRET.as_bytes(), algorithm, &header, &payload);
            cases.push((format!("{name} that says {said}"), token));
        }
    }
    let mix_up = signed_with(PEM.as_bytes(), Algorithm::HS256, r#"{"alg":"RS256"}"#, &payload);
    cases.push(("RS256 signed as HS256 with the public key".into(), mix_up));
}

fn headers(cases: &mut Cases) {
    let payload = good().to_string();
    for header in [
        "{}",
        "null",
        "[]",
        "\"HS256\"",
        "1",
        "",
        "{",
        r#"{"alg":null}"#,
        r#"{"alg":256}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":{"name":"HS256"}}"#,
        r#"{"ALG":"HS256"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256"} {"alg":"none"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","crit":["viva"],"viva":1}"#,
        r#"{"alg":"HS256","kid":7}"#,
        r#"{"alg":"HS256","typ":["JWT"]}"#,
    ] {
        cases.push((format!("header {header}"), signed(header, &payload)));
    }
    // A key that the token itself names or brings.
    for header in [
        r#"{"alg":"HS256","kid":"../../../../dev/null"}"#,
        r#"{"alg":"HS256","kid":"/dev/null"}"#,
        r#"{"alg":"HS256","kid":"' UNION SELECT '"}"#,
        r#"{"alg":"HS256","kid":"| cat /etc/passwd"}"#,
        r#"{"alg":"HS256","kid":"http://127.0.0.1/key"}"#,
        r#"{"alg":"HS256","kid":"key"}"#,
        r#"{"alg":"HS256","jku":"http://127.0.0.1:9/jwks.json"}"#,
        r#"{"alg":"HS256","x5u":"http://127.0.0.1:9/cert"}"#,
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AA"}}"#,
        r#"{"alg":"HS256","x5c":["AA=="]}"#,
    ] {
        for secret in ["", "\0"] {
            let token = signed_with(secret.as_bytes(), Algorithm::HS256, header, &payload);
            cases.push((format!("header {header}, signed with {secret:?}"), token));
        }
    }
}

fn times(cases: &mut Cases) {
    let never = ["exp"].map(|key| (format!("no {key}"), without(key)));
    cases.extend(never);
    for (key, values) in [
        (
            "exp",
            vec![
                json!(0),
                json!(1),
                json!(now() - 61),
                json!(now() - 3600),
                json!(-1),
                json!(null),
                json!(true),
                json!("9999999999"),
                json!([now() + 600]),
                json!({}),
                json!(1e12 + 0.5),
                json!(1e300),
                json!(""),
            ],
        ),
        (
            "nbf",
            vec![
                json!(now() + 3600),
                json!(now() + 90),
                json!(u64::MAX),
                json!(-1),
                json!("0"),
                json!(null),
                json!(false),
                json!([0]),
                json!(1.5),
            ],
        ),
    ] {
        for value in values {
            cases.push((format!("{key} {value}"), with(key, value)));
        }
    }
    for exp in ["18446744073709551616", "1e400", "NaN", "Infinity", "0x7fffffff", "09999999999"] {
        let payload = good().to_string().replace(&format!("\"exp\":{}", good()["exp"]), &format!("\"exp\":{exp}"));
        cases.push((format!("exp {exp}"), signed(HS256, &payload)));
    }
}

fn issuers(cases: &mut Cases) {
    cases.push(("no iss".into(), without("iss")));
    for iss in [
        json!(""),
        json!("nokey"),
        json!("KEY"),
        json!("key "),
        json!(" key"),
        json!("key\0"),
        json!("k\u{435}y"),
        json!("other"),
        json!(null),
        json!(1),
        json!(["key"]),
        json!({"key": "key"}),
        json!("../key"),
        json!("k".repeat(10_000)),
    ] {
        cases.push((format!("iss {iss:.40}"), with("iss", iss)));
    }
    let other = signed_with(OTHER_SECRET.as_bytes(), Algorithm::HS256, HS256, &good().to_string());
    cases.push(("another key's secret".into(), other));
}

fn types(cases: &mut Cases) {
    for (key, values) in [
        ("sub", vec![json!(1), json!(["ada"]), json!({}), json!(null), json!(true)]),
        ("jti", vec![json!(1), json!([]), json!(null)]),
        ("name", vec![json!(1), json!(["Ada"]), json!({})]),
        ("metadata", vec![json!({}), json!(1), json!([])]),
        ("attributes", vec![json!([]), json!("a"), json!({"a": 1}), json!({"a": null}), json!({"a": {}})]),
        ("kind", vec![json!(1), json!([]), json!({})]),
        ("video", vec![json!(null), json!("all"), json!(["roomJoin"]), json!(1), json!(true)]),
    ] {
        for value in values {
            cases.push((format!("{key} {value}"), with(key, value)));
        }
    }
    for (key, values) in [
        ("roomJoin", vec![json!("true"), json!(1), json!(null), json!([true]), json!({})]),
        ("room", vec![json!(1), json!(null), json!(["room"]), json!({})]),
        ("canPublish", vec![json!("yes"), json!(1), json!([])]),
        ("canPublishSources", vec![json!("camera"), json!([1]), json!({})]),
        ("hidden", vec![json!("no"), json!(0)]),
        ("roomAdmin", vec![json!("true"), json!(1)]),
    ] {
        for value in values {
            cases.push((format!("video.{key} {value}"), granting(key, value)));
        }
    }
}

fn doubles(cases: &mut Cases) {
    let payload = good().to_string();
    let inside = payload.strip_prefix('{').expect("an object");
    for twice in [
        r#""exp":1"#,
        r#""iss":"other""#,
        r#""iss":"key""#,
        r#""sub":"root""#,
        r#""nbf":0"#,
        r#""video":{"roomJoin":true,"room":"other"}"#,
        r#""name":"x","name":"y""#,
    ] {
        cases.push((format!("{twice} twice, before"), signed(HS256, &format!("{{{twice},{inside}"))));
        let after = payload.strip_suffix('}').expect("an object");
        cases.push((format!("{twice} twice, after"), signed(HS256, &format!("{after},{twice}}}"))));
    }
    let grants = payload.replace("\"roomJoin\":true", "\"roomJoin\":false,\"roomJoin\":true");
    cases.push(("roomJoin twice".into(), signed(HS256, &grants)));
}

fn shapes(cases: &mut Cases) {
    let token = signed(HS256, &good().to_string());
    let parts: Vec<&str> = token.split('.').collect();
    let payload = good().to_string();
    let mut add = |name: &str, token: String| cases.push((name.to_owned(), token));
    add("nothing", String::new());
    for text in [".", "..", "...", "a", "a.b", "a.b.c", "null", "undefined", "{}", "Bearer", "devkey:secret"] {
        add(&format!("{text:?}"), text.to_owned());
    }
    add("four parts", format!("{token}.x"));
    add("four parts, the first empty", format!(".{token}"));
    add("five parts, as JWE", format!("{}.a.b.c.d", parts[0]));
    add("parts swapped", format!("{}.{}.{}", parts[1], parts[0], parts[2]));
    add("two tokens", format!("{token},{token}"));
    add("a token in quotes", format!("%22{token}%22"));
    add("a token behind another scheme", format!("Bearer%20{token}"));
    add("a NUL behind it", format!("{token}%00"));
    add("a line end in it", token.replacen('.', "%0a.", 1));
    add("a space in it", token.replacen('.', "%20.", 1));
    add("padded header", format!("{}%3D.{}.{}", parts[0], parts[1], parts[2]));
    add(
        "header in standard base64",
        format!("{}.{}.{}", STANDARD.encode("{\"alg\":\"HS256\"}??>"), parts[1], parts[2]),
    );
    add("letters that are none", format!("%E2%80%8B{token}"));
    add("too long", "x".repeat(48 * 1024 + 1));
    add("too long, signed", with("metadata", json!("m".repeat(48 * 1024))));
    add("much too long", "x".repeat(300 * 1024));
    for (name, payload) in [
        ("an array", "[]".to_owned()),
        ("null", "null".to_owned()),
        ("a number", "1".to_owned()),
        ("a text", "\"key\"".to_owned()),
        ("nothing", String::new()),
        ("cut", payload[..payload.len() - 1].to_owned()),
        ("followed by something", format!("{payload}x")),
        ("followed by another", format!("{payload}{payload}")),
        ("behind a byte order mark", format!("\u{feff}{payload}")),
        ("nested deeply", format!("{{\"iss\":\"key\",\"x\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000))),
        ("with a comment", payload.replacen('{', "{/* */", 1)),
        ("in single quotes", payload.replace('"', "'")),
    ] {
        add(&format!("payload is {name}"), signed(HS256, &payload));
    }
}

/// Each door, knocked at with this token.
async fn knock(door: &Door, token: &str, offer: &str) -> Vec<(&'static str, Answer)> {
    let query = format!("access_token={token}");
    let join = join_request();
    // What stands in the query encoded is plain in a header.
    let plain = token.replace("%22", "\"").replace("%20", " ").replace("%3D", "=");
    let bearer = format!("Bearer {}", if plain.contains('%') { "" } else { &plain });
    let auth = ("Authorization", bearer.as_str());
    let (sdp, json) = (("Content-Type", "application/sdp"), ("Content-Type", "application/json"));
    let twirp = |method: &str| format!("/twirp/livekit.RoomService/{method}");
    vec![
        ("/rtc", door.upgrade(&format!("/rtc?{query}&protocol=17"), &[]).await),
        ("/rtc/v1", door.upgrade(&format!("/rtc/v1?{query}&join_request={join}"), &[]).await),
        ("/rtc/v1 by header", door.upgrade(&format!("/rtc/v1?join_request={join}"), &[auth]).await),
        ("/rtc/validate", door.get(&format!("/rtc/validate?{query}")).await),
        ("/whip/v1", door.ask("POST", "/whip/v1", &[auth, sdp], offer).await),
        ("/whep/v1", door.ask("POST", "/whep/v1", &[auth, sdp], &offer.replace("sendonly", "recvonly")).await),
        ("ListRooms", door.ask("POST", &twirp("ListRooms"), &[auth, json], "{}").await),
        ("CreateRoom", door.ask("POST", &twirp("CreateRoom"), &[auth, json], r#"{"name":"room"}"#).await),
        ("REST", door.ask("GET", "/v1/interviews/01NOTHING", &[auth], "").await),
    ]
}

fn offer() -> String {
    let seeds = (viva::fuzzing::target("whip_sdp").expect("is there").seeds)();
    let text = String::from_utf8(seeds[1].clone()).expect("text");
    // One section of the three.
    let parts: Vec<&str> = text.split("m=audio").collect();
    format!("{}m=audio{}", parts[0].replace("BUNDLE 0 1 2 3 4 5 6", "BUNDLE 0"), parts[1])
}

#[tokio::test(flavor = "multi_thread")]
async fn no_forged_broken_or_expired_token_opens_any_door() {
    let limits = viva::http::guard::Config {
        joins_per_address_per_sec: 0,
        requests_per_address_per_sec: 0,
        ..Default::default()
    };
    let keys = vec![("key", SECRET), ("other", OTHER_SECRET)];
    let door = Door::open(Setup { limits, keys, ..Setup::default() }).await;
    let mut cases = Cases::new();
    for add in [signatures, algorithms, headers, times, issuers, types, doubles, shapes] {
        add(&mut cases);
    }
    assert!(cases.len() >= 200, "{}", cases.len());
    let offer = offer();
    for (name, token) in &cases {
        for (path, answer) in knock(&door, token, &offer).await {
            let refused = [400, 401, 414, 431].contains(&answer.status);
            assert!(refused, "{path} answered {} to a token with {name}: {}", answer.status, answer.body);
            assert!(!answer.body.contains(SECRET) && !answer.head.contains(SECRET));
        }
    }
    assert_eq!(door.rooms.count(), 0, "nothing was opened");
    println!("{} tokens at 9 doors, none let in", cases.len());
    // The doors do open.
    let statuses: Vec<_> = knock(&door, &signed(HS256, &good().to_string()), &offer).await;
    let statuses: Vec<u16> = statuses.iter().map(|(_, answer)| answer.status).collect();
    assert_eq!(statuses, [101, 101, 101, 200, 201, 201, 200, 200, 404]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_its_grants_name_and_nothing_else() {
    let door = Door::open(Setup::default()).await;
    door.rooms.open(&"room".into()).expect("opens");
    let offer = offer();
    let joins = Grants::participant(&"room".into());
    let none = Grants { room_join: false, ..joins.clone() };
    let nameless = Grants { room: String::new(), ..joins.clone() };
    let admin = Grants { room_admin: true, room: "room".into(), ..Grants::default() };
    let elsewhere = Grants { room_admin: true, room: "other".into(), ..Grants::default() };
    let creates = Grants { room_create: true, ..Grants::default() };
    let lists = Grants { room_list: true, ..Grants::default() };
    // Upgrade, WHIP, ListRooms, CreateRoom, ListParticipants, DeleteRoom, UpdateRoomMetadata.
    for (name, grants, wanted) in [
        ("nothing", Grants::default(), [401, 403, 403, 403, 403, 403, 403]),
        ("roomJoin", joins, [101, 201, 403, 403, 403, 403, 403]),
        ("a room without roomJoin", none, [401, 403, 403, 403, 403, 403, 403]),
        ("roomJoin without a room", nameless, [401, 403, 403, 403, 403, 403, 403]),
        ("roomAdmin", admin, [401, 403, 403, 403, 200, 403, 200]),
        ("roomAdmin elsewhere", elsewhere, [401, 403, 403, 403, 403, 403, 403]),
        ("roomList", lists, [401, 403, 200, 403, 403, 403, 403]),
        ("roomCreate", creates, [401, 403, 403, 200, 403, 200, 403]),
    ] {
        let token = door.mint("ada", grants);
        let bearer = format!("Bearer {token}");
        let whip = [("Authorization", bearer.as_str()), ("Content-Type", "application/sdp")];
        let mut got = vec![door.join(&token).await.status, door.ask("POST", "/whip/v1", &whip, &offer).await.status];
        for (method, body) in [
            ("ListRooms", "{}"),
            ("CreateRoom", r#"{"name":"new"}"#),
            ("ListParticipants", r#"{"room":"room"}"#),
            ("DeleteRoom", r#"{"room":"new"}"#),
            ("UpdateRoomMetadata", r#"{"room":"room","metadata":"m"}"#),
        ] {
            got.push(door.twirp(method, &token, body).await.status);
        }
        assert_eq!(got, wanted, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_stays_out_with_the_tokens_that_they_have() {
    let door = Door::open(Setup { keys: vec![("key", SECRET)], ..Setup::default() }).await;
    let claims = |identity: &str, room: &str, nbf: u64| {
        let grants = json!({ "roomJoin": true, "room": room });
        let claims = json!({ "iss": "key", "sub": identity, "nbf": nbf, "exp": now() + 600, "video": grants });
        signed(HS256, &claims.to_string())
    };
    let old = claims("eve", "room", now() - 5);
    let url = format!("ws://{}/rtc/v1?access_token={old}&join_request={}", door.address, join_request());
    let (mut eve, _) = tokio_tungstenite::connect_async(&url).await.expect("let in");
    let admin = door.mint("", Grants { room_admin: true, room: "room".into(), ..Grants::default() });
    // Tokens that were made until in ten seconds: clocks differ.
    let revoked = json!({ "room": "room", "identity": "eve", "revokeTokenTs": (now() + 10).to_string() }).to_string();
    assert_eq!(door.twirp("RemoveParticipant", &admin, &revoked).await.status, 200);
    let gone = async { while futures::StreamExt::next(&mut eve).await.is_some_and(|frame| frame.is_ok()) {} };
    tokio::time::timeout(door::PATIENCE, gone).await.expect("her socket is closed");
    let offer = offer();
    for (path, answer) in knock(&door, &old, &offer).await.into_iter().take(6) {
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.body.contains("revoked"), "{path}: {}", answer.body);
    }
    assert_eq!(door.join(&claims("eve", "other-room", now() - 5)).await.status, 101, "another room");
    assert_eq!(door.join(&claims("ada", "room", now() - 5)).await.status, 101, "somebody else");
    assert_eq!(door.join(&claims("eve", "room", now() + 11)).await.status, 101, "a newer token");
    // Without a time, all tokens until in a minute are void, also those of somebody who is not there.
    let absent = r#"{"room":"room","identity":"bob"}"#;
    assert_eq!(door.twirp("RemoveParticipant", &admin, absent).await.status, 404);
    assert_eq!(door.join(&claims("bob", "room", now())).await.status, 401);
    assert!(door.metrics.limited.with_label_values(&["revoked"]).get() >= 7);
}
