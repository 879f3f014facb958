//! What receivers notice: in virtual time against a receiver without a network, and over HTTP.

use std::{collections::BTreeMap, net::SocketAddr, sync::Mutex, time::Duration};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use tokio::{io::AsyncReadExt, net::TcpListener, time::Instant};

use super::{post::Post, retry::Attempt, *};
use crate::auth::Secret;

fn event(name: &str, room: &str, id: &str) -> Box<proto::WebhookEvent> {
    let room = proto::Room { sid: room.into(), ..Default::default() };
    Box::new(proto::WebhookEvent { event: name.into(), id: id.into(), room: Some(room), ..Default::default() })
}

/// A receiver without a network: what it saw, and what it answers.
#[derive(Clone)]
struct Script {
    seen: Arc<Mutex<Vec<(usize, String, Instant)>>>,
    answer: fn(usize, &str, usize) -> Answer,
}

enum Answer {
    Ok,
    Refused,
    Failed,
    /// Nothing until the attempt is over.
    Hang,
}

const HANG: Duration = Duration::from_secs(5);

impl Post for Script {
    async fn post(&self, address: usize, hook: &Hook) -> Attempt {
        let nth = {
            let mut seen = self.seen.lock().unwrap();
            seen.push((address, hook.id.clone(), Instant::now()));
            seen.iter().filter(|(a, id, _)| (*a, id) == (address, &hook.id)).count()
        };
        let failed = |reason: &str| Attempt::Failed { reason: reason.into(), after: None };
        match (self.answer)(address, &hook.id, nth) {
            Answer::Ok => Attempt::Delivered,
            Answer::Refused => Attempt::Refused { reason: "status 401".into() },
            Answer::Failed => failed("status 500"),
            Answer::Hang => {
                tokio::time::sleep(HANG).await;
                failed("no answer in time")
            }
        }
    }
}

impl Script {
    fn ids(&self, address: usize) -> Vec<String> {
        self.seen.lock().unwrap().iter().filter(|(a, ..)| *a == address).map(|(_, id, _)| id.clone()).collect()
    }
}

struct Story {
    script: Script,
    events: mpsc::Sender<Box<proto::WebhookEvent>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    metrics: Arc<Metrics>,
}

impl Story {
    fn new(addresses: usize, limits: Limits, answer: fn(usize, &str, usize) -> Answer) -> Self {
        let script = Script { seen: Arc::default(), answer };
        let metrics = Arc::new(Metrics::new());
        let (events, intake) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let deliveries = Deliveries::new(script.clone(), addresses, limits, 6, metrics.clone());
        let task = tokio::spawn(deliveries.run(intake, stop.clone()));
        Self { script, events, stop, task, metrics }
    }

    fn tell(&self, room: &str, id: &str) {
        self.events.try_send(event("room_started", room, id)).unwrap();
    }

    fn count(&self, result: &str) -> u64 {
        self.metrics.webhooks.with_label_values(&["room_started", result]).get()
    }

    /// Stops and waits for everything; returns how long that took.
    async fn end(self) -> (Script, Arc<Metrics>, Duration) {
        let begun = Instant::now();
        self.stop.cancel();
        self.task.await.unwrap();
        (self.script, self.metrics, begun.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_with_the_same_id_and_the_rooms_order_is_kept() {
    let story = Story::new(1, Limits::default(), |_, id, nth| match (id, nth) {
        ("a1", 1..=3) => Answer::Failed,
        _ => Answer::Ok,
    });
    ["a1", "a2", "a3"].iter().for_each(|id| story.tell("a", id));
    story.tell("b", "b1");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(story.script.ids(0), ["a1", "b1"], "another room does not wait");
    assert_eq!(story.metrics.webhooks_waiting.get(), 3);
    let (script, metrics, took) = story.end().await;
    assert_eq!(script.ids(0), ["a1", "b1", "a1", "a1", "a1", "a2", "a3"]);
    assert!((Duration::from_millis(1700)..=Duration::from_millis(3500)).contains(&took), "{took:?}");
    assert_eq!(metrics.webhooks.with_label_values(&["room_started", "delivered"]).get(), 4);
    assert_eq!(metrics.webhooks_waiting.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn after_the_last_attempt_the_event_counts_as_failed_and_the_next_one_goes() {
    let story = Story::new(1, Limits::default(), |_, id, _| if id == "a1" { Answer::Hang } else { Answer::Ok });
    story.tell("a", "a1");
    story.tell("a", "a2");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(story.script.ids(0), ["a1", "a1", "a1", "a1", "a1", "a1", "a2"]);
    assert_eq!((story.count("failed"), story.count("delivered")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_receiver_does_not_want_is_not_repeated() {
    let story = Story::new(1, Limits::default(), |_, _, _| Answer::Refused);
    story.tell("a", "a1");
    story.tell("a", "a2");
    let (script, metrics, took) = story.end().await;
    assert_eq!(script.ids(0), ["a1", "a2"]);
    assert_eq!((metrics.webhooks.with_label_values(&["room_started", "failed"]).get(), took), (2, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_dead_receiver_holds_up_neither_the_rooms_nor_another_receiver() {
    let limits = Limits { events: 5, ..Limits::default() };
    let story = Story::new(2, limits, |address, _, _| if address == 0 { Answer::Hang } else { Answer::Ok });
    for at in 0..50 {
        story.tell("a", &format!("a{at}"));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(story.script.ids(1).len(), 50);
    assert_eq!(story.script.ids(0), ["a0"]);
    assert_eq!((story.count("delivered"), story.count("dropped")), (50, 44), "one is under way, five wait");
    // Those that were kept are the newest.
    let (script, ..) = story.end().await;
    let mut dead = script.ids(0);
    dead.dedup();
    assert_eq!(dead, ["a0", "a45", "a46", "a47", "a48", "a49"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_delivers_what_came_before_it_and_takes_nothing_more() {
    let story = Story::new(1, Limits::default(), |_, _, nth| if nth == 1 { Answer::Failed } else { Answer::Ok });
    (0..20).for_each(|at| story.tell("a", &at.to_string()));
    story.stop.cancel();
    story.events.closed().await;
    assert!(story.events.try_send(event("room_started", "a", "late")).is_err());
    let (script, metrics, _) = story.end().await;
    assert_eq!(metrics.webhooks.with_label_values(&["room_started", "delivered"]).get(), 20);
    assert_eq!(script.ids(0).len(), 40);
}

/// A receiver over HTTP that answers by the path.
async fn receiver(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn keys() -> Arc<ApiKeys> {
    let pairs = [("first", "one"), ("second", "two")];
    Arc::new(ApiKeys::new(pairs.map(|(key, secret)| (key.to_owned(), Secret::from(secret))).into()))
}

fn http(urls: &[String], timeout_ms: u64) -> HttpPost {
    let urls = urls.iter().map(|url| Address::from(url.as_str())).collect();
    HttpPost::new(&Config { urls, api_key: "second".into(), timeout_ms, ..Config::default() }, keys()).unwrap()
}

#[tokio::test]
async fn t4_what_arrives_is_signed_by_a_token_over_the_very_bytes_and_by_no_header_of_our_own() {
    type Request = (HeaderMap, Bytes);
    let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
    let kept = seen.clone();
    let answer = move |headers: HeaderMap, body: Bytes| async move {
        kept.lock().unwrap().push((headers, body));
    };
    let at = receiver(Router::new().route("/hooks", post(answer))).await;
    let metrics = Arc::new(Metrics::new());
    let urls = vec![Address::from(format!("http://{at}/hooks").as_str())];
    let config = Config { urls, api_key: "second".into(), ..Config::default() };
    let mut webhooks = Webhooks::start(&config, keys(), metrics.clone()).unwrap();
    webhooks.events().try_send(event("room_started", "RM_1", "EV_1")).unwrap();
    webhooks.shutdown().await;
    webhooks.shutdown().await;
    assert_eq!((webhooks.waiting(), metrics.webhooks.with_label_values(&["room_started", "delivered"]).get()), (0, 1));
    let (headers, body) = seen.lock().unwrap().pop().expect("it came");
    assert_eq!(headers["content-type"], "application/webhook+json");
    let claims = keys().verify(headers["authorization"].to_str().unwrap()).expect("no Bearer before it, and valid");
    assert_eq!((claims.iss.as_str(), claims.exp - claims.nbf), ("second", 300));
    assert_eq!(claims.sha256, STANDARD.encode(Sha256::digest(&body)));
    assert!(!headers.keys().any(|name| name.as_str().contains("signature")), "{headers:?}");
    assert_eq!(serde_json::from_slice::<proto::WebhookEvent>(&body).unwrap().id, "EV_1");
}

#[tokio::test]
async fn answers_mean_what_they_should() {
    let busy = || async { (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")]).into_response() };
    let moved = || async { (StatusCode::TEMPORARY_REDIRECT, [("location", "/ok")]).into_response() };
    let hangs = || async { std::future::pending::<Response>().await };
    let router = Router::new()
        .route("/ok", post(|| async { StatusCode::NO_CONTENT }))
        .route("/down", post(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/locked", post(|| async { StatusCode::UNAUTHORIZED }))
        .route("/busy", post(busy))
        .route("/moved", post(moved))
        .route("/hangs", post(hangs));
    let at = receiver(router).await;
    let closes = closing().await;
    let nobody = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let failed = |reason: &str, after: Option<u64>| Attempt::Failed {
        reason: reason.into(),
        after: after.map(Duration::from_secs),
    };
    let refused = |reason: &str| Attempt::Refused { reason: reason.into() };
    let expected = BTreeMap::from([
        (format!("http://{at}/ok"), Attempt::Delivered),
        (format!("http://{at}/down"), failed("status 500", None)),
        (format!("http://{at}/locked"), refused("status 401")),
        (format!("http://{at}/busy"), failed("status 429", Some(7))),
        (format!("http://{at}/moved"), refused("status 307")),
        (format!("http://{at}/hangs"), failed("no answer in time", None)),
        (format!("http://{closes}/"), failed("the connection broke off", None)),
        (format!("http://{nobody}/"), failed("no connection", None)),
    ]);
    let urls: Vec<_> = expected.keys().cloned().collect();
    let hook = json::hook(*event("room_started", "RM_1", "EV_1")).unwrap();
    for (at, (url, expected)) in expected.iter().enumerate() {
        // Short where nothing will come, long where a busy machine may need it.
        let post = http(&urls, if url.ends_with("hangs") { 300 } else { 20_000 });
        assert_eq!(post.post(at, &hook).await, *expected, "{url}");
    }
}

/// A receiver that reads a little and hangs up.
async fn closing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 16]).await;
        }
    });
    address
}

#[tokio::test]
async fn a_receiver_that_comes_back_gets_the_event_after_all() {
    let answers: Arc<Mutex<Vec<StatusCode>>> =
        Arc::new(Mutex::new(vec![StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE]));
    let bodies: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let (left, kept) = (answers.clone(), bodies.clone());
    let answer = move |body: Bytes| async move {
        kept.lock().unwrap().push(body);
        left.lock().unwrap().pop().unwrap_or(StatusCode::OK)
    };
    let at = receiver(Router::new().route("/", post(answer))).await;
    let config = Config { urls: vec![Address::from(format!("http://{at}").as_str())], ..Config::default() };
    let metrics = Arc::new(Metrics::new());
    let mut webhooks = Webhooks::start(&config, keys(), metrics.clone()).unwrap();
    webhooks.events().try_send(event("room_started", "RM_1", "EV_1")).unwrap();
    webhooks.shutdown().await;
    let bodies = bodies.lock().unwrap();
    assert_eq!((bodies.len(), &bodies[0]), (2, &bodies[1]));
    assert_eq!(metrics.webhooks.with_label_values(&["room_started", "delivered"]).get(), 1);
}
