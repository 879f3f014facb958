//! The HTTP surface, asked through the router without a socket, and once over loopback for what only a socket shows.

mod whole;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use viva::{
    auth::{ApiKeys, Claims, Grants},
    http::{Readiness, listener},
    model::{Role, TranscriptLine},
    store::Store,
};
use whole::{Parts, Whole, whole};

/// A server without a socket.
struct Rig {
    router: Router,
    keys: Arc<ApiKeys>,
    readiness: Readiness,
    store: Store,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.body))
    }

    fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// Checks that it is a problem of this kind that says what to do.
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.json()["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.header(header::CONTENT_TYPE), "application/problem+json");
        assert!(self.json()["detail"].as_str().is_some_and(|text| text.len() > 20), "{}", self.body);
    }
}

impl Rig {
    async fn new() -> Self {
        Self::with(true).await
    }

    async fn with(public_practice: bool) -> Self {
        let Whole { app, router, folder } = whole(Parts { public_practice, ..Parts::default() }).await;
        Self { router, keys: app.keys, readiness: app.readiness, store: app.store, _folder: folder }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).expect("valid")).await
    }

    async fn get_as(&self, path: &str, token: &str) -> Answer {
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        self.send(request.body(Body::empty()).expect("valid")).await
    }

    async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Answer {
        let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.send(request.body(Body::from(body.to_string())).expect("valid")).await
    }

    fn mint(&self, identity: &str, grants: Grants) -> String {
        self.keys.mint(Claims::new(&identity.into(), grants), Duration::from_secs(60)).expect("has a key")
    }

    /// Starts a practice interview with the first plan and persona.
    async fn practice(&self) -> Value {
        let offered = self.get("/v1/practice").await.json();
        let body = json!({
            "plan": offered["plans"][0]["id"], "persona": offered["personas"][0]["id"], "name": "Ada Lovelace",
        });
        let answer = self.post("/v1/interviews", None, body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        answer.json()
    }
}

#[tokio::test]
async fn the_root_answers_get_and_head_and_the_pages_own_routes_are_the_page() {
    let rig = Rig::new().await;
    for path in ["/", "/ready", "/room/01ABC", "/join/01ABC?invite=x"] {
        for method in [Method::GET, Method::HEAD] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("valid");
            let answer = rig.send(request).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            assert!(answer.header(header::CONTENT_TYPE).starts_with("text/html"), "{path}");
        }
    }
    for path in ["/assets/nothing.js", "/rtc", "/v1/nothing", "/favicon.nothing"] {
        assert_eq!(rig.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(rig.post("/", None, json!({})).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_page_is_guarded_and_may_use_camera_and_microphone() {
    let rig = Rig::new().await;
    let answer = rig.get("/").await;
    let policy = answer.header(header::CONTENT_SECURITY_POLICY);
    assert!(policy.contains("wss:") && policy.contains("worker-src 'self' blob:"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"));
    let permissions = answer.header("permissions-policy");
    assert!(permissions.contains("camera=(self)") && permissions.contains("microphone=(self)"));
    assert_eq!(answer.header(header::REFERRER_POLICY), "no-referrer", "an invite is in the address");
    assert_eq!(answer.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert_eq!(rig.get("/v1/practice").await.header(header::CACHE_CONTROL), "no-store");
}

#[tokio::test]
async fn a_doubled_slash_in_front_is_one() {
    let rig = Rig::new().await;
    assert_eq!(rig.get("//livez").await.body, "ok\n");
    assert_eq!(rig.get("//rtc/v1/validate?access_token=nonsense").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn any_origin_may_ask() {
    let rig = Rig::new().await;
    let preflight = Request::options("/v1/interviews")
        .header(header::ORIGIN, "https://elsewhere.example")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type")
        .body(Body::empty())
        .expect("valid");
    let answer = rig.send(preflight).await;
    assert!(answer.status.is_success());
    assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
    assert!(answer.header(header::ACCESS_CONTROL_ALLOW_HEADERS).contains("authorization"));
    let validate = Request::get("/rtc/v1/validate").header(header::ORIGIN, "https://elsewhere.example");
    let answer = rig.send(validate.body(Body::empty()).expect("valid")).await;
    assert_eq!(answer.headers.get_all(header::ACCESS_CONTROL_ALLOW_ORIGIN).iter().count(), 1);
}

#[tokio::test]
async fn readiness_follows_the_servers_life() {
    let rig = Rig::new().await;
    assert_eq!(rig.get("/livez").await.status, StatusCode::OK);
    let starting = rig.get("/readyz").await;
    assert_eq!((starting.status, starting.body.trim()), (StatusCode::SERVICE_UNAVAILABLE, "starting"));
    rig.readiness.set_ready();
    assert_eq!(rig.get("/readyz").await.status, StatusCode::OK);
    rig.readiness.set_draining();
    let draining = rig.get("/readyz").await;
    assert_eq!(draining.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(draining.body.contains("draining"));
}

#[tokio::test]
async fn requests_are_measured_by_route_and_never_by_path() {
    let rig = Rig::new().await;
    rig.get("/v1/interviews/01SECRETID").await;
    rig.get("/room/01SECRETID").await;
    let metrics = rig.get("/metrics").await;
    assert!(metrics.header(header::CONTENT_TYPE).starts_with("text/plain; version=0.0.4"));
    assert!(metrics.body.contains("route=\"/v1/interviews/{id}\""), "{}", metrics.body);
    assert!(metrics.body.contains("route=\"page\""));
    assert!(!metrics.body.contains("01SECRETID"));
    assert!(metrics.body.contains("viva_uptime_seconds") && metrics.body.contains("viva_process_cpu_seconds_total"));
}

#[tokio::test]
async fn a_practice_interview_is_made_and_its_tokens_open_what_they_should() {
    let rig = Rig::new().await;
    let created = rig.practice().await;
    let (id, token) = (created["id"].as_str().expect("an id"), created["token"].as_str().expect("a token"));
    let claims = rig.keys.verify(token).expect("ours");
    assert_eq!(claims.grants.joins().map(|room| room.as_str().to_owned()).as_deref(), created["room"].as_str());
    assert_eq!(claims.attributes["viva.role"], "interviewee");
    assert_eq!(
        (claims.name.as_str(), claims.sub.as_str()),
        ("Ada Lovelace", created["identity"].as_str().expect("one"))
    );
    assert_eq!(created["url"], "");

    let path = format!("/v1/interviews/{id}");
    assert_eq!(rig.get_as(&path, token).await.json()["state"], "open");
    assert_eq!(rig.get_as(&format!("{path}/transcript"), token).await.json()["lines"], json!([]));
    assert_eq!(rig.get_as(&format!("{path}/turns"), token).await.json()["turns"], json!([]));

    rig.get(&path).await.is_problem(401, "unauthorized");
    rig.get_as(&path, "nonsense").await.is_problem(401, "unauthorized");
    let stranger = rig.mint("eve", Grants::participant(&"another-room".into()));
    rig.get_as(&format!("{path}/transcript"), &stranger).await.is_problem(403, "wrong_room");
    let service = rig.mint("", Grants { room_list: true, ..Grants::default() });
    assert_eq!(rig.get_as(&path, &service).await.status, StatusCode::OK);
    rig.get_as("/v1/interviews/01NOTHING", token).await.is_problem(404, "interview_not_found");

    rig.post(&format!("{path}/end"), Some(&stranger), json!({})).await.is_problem(403, "wrong_room");
    assert_eq!(rig.post(&format!("{path}/end"), Some(token), json!({})).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn of_the_interviews_of_a_room_people_read_those_that_they_were_part_of() {
    let rig = Rig::new().await;
    let admin = rig.mint("service", Grants { room_admin: true, room: "office".into(), ..Grants::default() });
    let metadata = json!({ "plan": "backend-engineer" }).to_string();
    let asked = json!({ "room": "office", "agentName": "viva-interviewer", "metadata": metadata });
    let made = rig.post("/twirp/livekit.AgentDispatchService/CreateDispatch", Some(&admin), asked).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.body);
    let begun = async {
        loop {
            match rig.store.unfinished().await.expect("answers").pop() {
                Some(interview) => break interview,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let id = tokio::time::timeout(Duration::from_secs(20), begun).await.expect("begins").id;
    let path = format!("/v1/interviews/{id}");
    let of_room = |identity: &str| rig.mint(identity, Grants::participant(&"office".into()));
    let consent = json!({ "purpose": "transcription", "granted": true });

    for part in ["", "/transcript", "/turns"] {
        let path = format!("{path}{part}");
        rig.get_as(&path, &of_room("sam")).await.is_problem(403, "not_your_interview");
        assert_eq!(rig.get_as(&path, &admin).await.status, StatusCode::OK);
    }
    // The interviewee, somebody who spoke, and somebody who decided on consent.
    rig.store.set_interviewee(&id, &"sam".into(), &"Sam".into()).await.expect("stored");
    let line = TranscriptLine {
        interview: id.clone(),
        seq: 0,
        identity: "max".into(),
        name: "Max".into(),
        role: Role::Interviewer,
        start_ms: 0,
        end_ms: 1,
        text: "Hello.".into(),
        question_id: None,
        interrupted: false,
    };
    rig.store.put_line(&line).await.expect("stored");
    let consents = format!("{path}/consents");
    assert_eq!(rig.post(&consents, Some(&of_room("kim")), consent.clone()).await.status, StatusCode::NO_CONTENT);
    let transcript = format!("{path}/transcript");
    for identity in ["sam", "max", "kim"] {
        assert_eq!(rig.get_as(&transcript, &of_room(identity)).await.status, StatusCode::OK, "{identity}");
    }
    rig.get_as(&transcript, &of_room("eve")).await.is_problem(403, "not_your_interview");
    let elsewhere = rig.mint("sam", Grants::participant(&"hall".into()));
    rig.get_as(&transcript, &elsewhere).await.is_problem(403, "wrong_room");

    // Who comes to the room later was no part of it, and cannot become one.
    assert_eq!(rig.post(&format!("{path}/end"), Some(&admin), json!({})).await.status, StatusCode::NO_CONTENT);
    let over = async { while rig.get_as(&path, &admin).await.json()["state"] != "ended" {} };
    tokio::time::timeout(Duration::from_secs(20), over).await.expect("ends");
    rig.post(&consents, Some(&of_room("eve")), consent.clone()).await.is_problem(403, "not_your_interview");
    rig.get_as(&transcript, &of_room("eve")).await.is_problem(403, "not_your_interview");
    assert_eq!(rig.post(&consents, Some(&of_room("sam")), consent).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_second_person_comes_by_the_link_and_not_without() {
    let rig = Rig::new().await;
    let created = rig.practice().await;
    let id = created["id"].as_str().expect("an id");
    let (_, invite) = created["invite_path"].as_str().expect("a path").split_once("?invite=").expect("an invite");
    let seen = rig.get(&format!("/v1/interviews/{id}/invite?invite={invite}")).await.json();
    assert_eq!(seen["interviewee_waiting"], false);
    assert!(seen["plan_title"].is_string() && seen["notice"]["version"].is_string());
    let path = format!("/v1/interviews/{id}/join");
    let joined = rig.post(&path, None, json!({ "invite": invite, "name": "Grace" })).await.json();
    let claims = rig.keys.verify(joined["token"].as_str().expect("a token")).expect("ours");
    assert_eq!(claims.attributes["viva.role"], "interviewer");
    assert_ne!(joined["identity"], created["identity"]);
    rig.post(&path, None, json!({ "invite": "wrong", "name": "Eve" })).await.is_problem(403, "bad_invite");
    rig.get(&format!("/v1/interviews/{id}/invite")).await.is_problem(403, "bad_invite");
}

#[tokio::test]
async fn consent_is_each_persons_own() {
    let rig = Rig::new().await;
    let created = rig.practice().await;
    let token = created["token"].as_str().expect("a token");
    let path = format!("/v1/interviews/{}/consents", created["id"].as_str().expect("an id"));
    assert_eq!(rig.get_as(&path, token).await.json(), json!([]));
    let version = rig.get("/v1/practice").await.json()["notice"]["version"].clone();
    let yes = json!({ "purpose": "ai_interviewer", "granted": true, "notice_version": version });
    let old = json!({ "purpose": "ai_interviewer", "granted": true, "notice_version": "an old one" });
    rig.post(&path, Some(token), old).await.is_problem(409, "notice_changed");
    assert_eq!(rig.post(&path, Some(token), yes.clone()).await.status, StatusCode::NO_CONTENT);
    let own = rig.get_as(&path, token).await.json();
    assert_eq!((own[0]["purpose"].as_str(), own[0]["granted"].as_bool()), (Some("ai_interviewer"), Some(true)));
    let wrong = json!({ "purpose": "everything", "granted": true });
    rig.post(&path, Some(token), wrong).await.is_problem(400, "invalid_request");
    rig.post(&path, None, yes.clone()).await.is_problem(401, "unauthorized");
    let admin = rig.mint("boss", Grants { room_admin: true, ..Grants::default() });
    rig.post(&path, Some(&admin), yes).await.is_problem(403, "wrong_room");
}

#[tokio::test]
async fn a_page_elsewhere_may_ask_for_all_of_it_before_it_asks() {
    let rig = Rig::new().await;
    let preflight = async |path: &str| {
        let request = Request::options(path)
            .header(header::ORIGIN, "https://a.example")
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization");
        rig.send(request.body(Body::empty()).expect("valid")).await
    };
    for path in ["/v1/interviews", "/v1/no-such", "/rtc/v1/validate", "/whip/v1", "/whep/v1/PA_x", "/livez", "/metrics"]
    {
        let answer = preflight(path).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.status);
        assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*", "{path}");
        assert_eq!(answer.header(header::ACCESS_CONTROL_ALLOW_HEADERS), "authorization", "{path}");
    }
    // Not a preflight like the others: it says what is taken there.
    let answer = preflight("/whip/v1").await;
    assert_eq!((answer.status, answer.header("accept-post")), (StatusCode::NO_CONTENT, "application/sdp"));
}

#[tokio::test]
async fn where_practice_is_not_public_an_api_token_is_needed() {
    let rig = Rig::with(false).await;
    let offered = rig.get("/v1/practice").await.json();
    let body = json!({ "plan": offered["plans"][0]["id"], "persona": offered["personas"][0]["id"], "name": "Ada" });
    rig.post("/v1/interviews", None, body.clone()).await.is_problem(401, "unauthorized");
    let participant = rig.mint("ada", Grants::participant(&"room".into()));
    rig.post("/v1/interviews", Some(&participant), body.clone()).await.is_problem(403, "forbidden");
    let service = rig.mint("", Grants { room_create: true, ..Grants::default() });
    assert_eq!(rig.post("/v1/interviews", Some(&service), body).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn unfit_requests_are_told_what_is_wrong() {
    let rig = Rig::new().await;
    let create = |body: Value| rig.post("/v1/interviews", None, body);
    create(json!({ "plan": "x" })).await.is_problem(400, "invalid_request");
    create(json!({ "plan": "no-such-plan", "persona": "x", "name": "Ada" })).await.is_problem(400, "unknown_plan");
    create(json!({ "plan": "x".repeat(100_000), "persona": "x", "name": "A" })).await.is_problem(413, "too_large");
    let not_json = Request::post("/v1/interviews").body(Body::from("{}")).expect("valid");
    rig.send(not_json).await.is_problem(415, "not_json");
    let put = Request::put("/v1/practice").body(Body::empty()).expect("valid");
    rig.send(put).await.is_problem(405, "wrong_method");
}

/// The surface behind a real socket.
async fn listen(rig: &Rig) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("bound");
    let stop = CancellationToken::new();
    let serving = tokio::spawn(listener::serve(socket, rig.router.clone(), stop.clone()));
    (address, stop, serving)
}

async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("listens");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("reads");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn long_request_lines_are_read_and_endless_ones_refused() {
    let rig = Rig::new().await;
    let (address, stop, serving) = listen(&rig).await;
    let request =
        |bytes: usize| format!("GET /livez?{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "x".repeat(bytes));
    assert!(exchange(address, &request(65_000)).await.starts_with("HTTP/1.1 200"));
    assert!(!exchange(address, &request(400_000)).await.starts_with("HTTP/1.1 200"));
    stop.cancel();
    serving.await.expect("ends");
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let rig = Rig::new().await;
    let (address, stop, serving) = listen(&rig).await;
    let mut idle = TcpStream::connect(address).await.expect("listens");
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sends");
    let mut some = [0; 64];
    assert!(idle.read(&mut some).await.expect("answers") > 0);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), serving).await.expect("drains").expect("ends");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
