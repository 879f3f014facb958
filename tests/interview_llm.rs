//! The client of language models against a local endpoint that speaks the wire format, well and badly.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use viva::{
    interview::{
        LlmConfig, LlmKind,
        llm::{self, LlmProvider, Prompt, PromptRole},
    },
    model::Personal,
    speech::{ProviderError, ProviderErrorKind},
    telemetry::Metrics,
};

#[derive(Clone)]
struct Endpoint {
    mode: &'static str,
    requests: Arc<AtomicUsize>,
    /// Counts the bodies that were dropped, as a closed connection does.
    dropped: mpsc::Sender<()>,
    asked: mpsc::Sender<(HeaderMap, Value)>,
}

fn chunk(content: Option<&str>, finish: Option<&str>) -> String {
    let delta = content.map_or(json!({}), |c| json!({ "content": c }));
    let chunk = json!({
        "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
    });
    format!("data: {chunk}\n\n")
}

/// The last chunk of a counted reply.
fn usage() -> String {
    let usage = json!({ "prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37 });
    let chunk = json!({
        "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage,
    });
    format!("data: {chunk}\n\n")
}

/// Tells when it is dropped.
struct Told(mpsc::Sender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

async fn complete(State(endpoint): State<Endpoint>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    endpoint.requests.fetch_add(1, Ordering::SeqCst);
    let counted = body["stream_options"]["include_usage"] == true;
    let _ = endpoint.asked.try_send((headers, body));
    let events: Vec<String> = match endpoint.mode {
        "ok" => vec![
            chunk(Some(""), None),
            chunk(Some("Thank you."), None),
            chunk(Some(" What next?"), None),
            chunk(None, Some("stop")),
            usage(),
            "data: [DONE]\n\n".into(),
        ],
        "cut" => vec![chunk(Some("Thank you. What"), None), chunk(None, Some("length")), usage()],
        "filtered" => vec![chunk(Some("Thank you."), Some("content_filter")), "data: [DONE]\n\n".into()],
        "endless" => vec![chunk(Some("la "), None); 3000],
        "strict" if counted => {
            let error = json!({ "error": { "message": "what is that?", "type": "x", "param": null, "code": null } });
            return (StatusCode::BAD_REQUEST, Json(error)).into_response();
        }
        "strict" => vec![chunk(Some("Thank you."), Some("stop")), "data: [DONE]\n\n".into()],
        "half" => vec![chunk(Some("Thank you. And"), None)],
        "garbage" => vec!["data: {\"choices\": 7}\n\n".into()],
        "empty" => vec![chunk(None, Some("stop")), "data: [DONE]\n\n".into()],
        "hang" => {
            std::future::pending::<()>().await;
            vec![]
        }
        "slow" => vec![chunk(Some("Well."), None)],
        "429" => {
            let error =
                json!({ "error": { "message": "slow down", "type": "rate_limit", "param": null, "code": null } });
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "30")], Json(error)).into_response();
        }
        "500" => return (StatusCode::INTERNAL_SERVER_ERROR, "the secret prompt").into_response(),
        "401" => {
            let error = json!({ "error": { "message": "bad key", "type": "auth", "param": null, "code": null } });
            return (StatusCode::UNAUTHORIZED, Json(error)).into_response();
        }
        other => unreachable!("{other}"),
    };
    let told = Told(endpoint.dropped.clone());
    let body = stream::iter(events).map(|e| Ok::<_, std::io::Error>(Bytes::from(e)));
    let body = if endpoint.mode == "slow" { body.chain(stream::pending()).boxed() } else { body.boxed() };
    let body = body.inspect(move |_| {
        let _ = &told;
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(body)).into_response()
}

struct Server {
    llm: Arc<dyn LlmProvider>,
    requests: Arc<AtomicUsize>,
    dropped: mpsc::Receiver<()>,
    asked: mpsc::Receiver<(HeaderMap, Value)>,
    metrics: Metrics,
}

impl Server {
    fn tokens(&self, kind: &str) -> u64 {
        self.metrics.llm_tokens.with_label_values(&["openai", "m", kind]).get()
    }

    /// Waits until a reply is counted, for which nobody else waits.
    async fn counts(&self) {
        let counted = async {
            while self.tokens("prompt") == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), counted).await.expect("is counted");
    }
}

async fn server(mode: &'static str) -> Server {
    let (dropped_tx, dropped) = mpsc::channel(16);
    let (asked_tx, asked) = mpsc::channel(16);
    let requests = Arc::new(AtomicUsize::new(0));
    let endpoint = Endpoint { mode, requests: requests.clone(), dropped: dropped_tx, asked: asked_tx };
    let app = Router::new().route("/v1/chat/completions", post(complete)).with_state(endpoint);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let config = LlmConfig {
        provider: LlmKind::Openai,
        url,
        model: "m".into(),
        api_key: "key".into(),
        timeout_ms: 500,
        total_timeout_ms: 900,
        ..LlmConfig::default()
    };
    let metrics = Metrics::new();
    Server { llm: llm::from_config(&config, &metrics).unwrap().unwrap(), requests, dropped, asked, metrics }
}

fn prompt() -> Prompt {
    Prompt {
        messages: vec![
            (PromptRole::System, "Rules.".into()),
            (PromptRole::Interviewer, "A question?".into()),
            (PromptRole::Interviewee, "An answer.".into()),
        ],
        max_tokens: 50,
        temperature: 0.5,
    }
}

async fn collect(mut pieces: mpsc::Receiver<Result<Personal, ProviderError>>) -> (String, Option<ProviderError>) {
    let mut text = String::new();
    while let Some(piece) = pieces.recv().await {
        match piece {
            Ok(piece) => text.push_str(&piece.0),
            Err(error) => return (text, Some(error)),
        }
    }
    (text, None)
}

#[tokio::test]
async fn a_reply_streams_in() {
    let mut server = server("ok").await;
    assert_eq!(collect(server.llm.reply(prompt())).await, ("Thank you. What next?".into(), None));
    let (headers, body) = server.asked.recv().await.unwrap();
    assert_eq!(headers["authorization"], "Bearer key");
    assert_eq!(body["model"], "m");
    assert_eq!(body["stream"], true);
    assert_eq!(body["max_tokens"], 50);
    let roles: Vec<_> = body["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "assistant", "user"]);
    assert_eq!(body["messages"][2]["content"], "An answer.");
    server.counts().await;
    assert_eq!((server.tokens("prompt"), server.tokens("completion")), (30, 7));
}

#[tokio::test]
async fn each_failure_is_told_in_time_and_by_its_kind() {
    let cases = [
        ("hang", "", ProviderErrorKind::Timeout),
        ("slow", "Well.", ProviderErrorKind::Timeout),
        ("429", "", ProviderErrorKind::Unavailable),
        ("500", "", ProviderErrorKind::Unavailable),
        ("401", "", ProviderErrorKind::Rejected),
        ("half", "Thank you. And", ProviderErrorKind::Unavailable),
        ("garbage", "", ProviderErrorKind::Malformed),
        ("empty", "", ProviderErrorKind::Malformed),
        ("cut", "Thank you. What", ProviderErrorKind::Malformed),
        ("filtered", "Thank you.", ProviderErrorKind::Rejected),
    ];
    for (mode, text, kind) in cases {
        let server = server(mode).await;
        let started = Instant::now();
        let (got, error) = collect(server.llm.reply(prompt())).await;
        let error = error.unwrap_or_else(|| panic!("{mode} is an error"));
        assert_eq!((got.as_str(), error.kind), (text, kind), "{mode}");
        assert!(started.elapsed() < Duration::from_secs(3), "{mode} took {:?}", started.elapsed());
        assert!(!error.message.contains("secret"), "{mode}: what the endpoint says is not passed on");
        assert_eq!(server.requests.load(Ordering::SeqCst), 1, "{mode}: the script is ready, a second try is not");
    }
}

#[tokio::test]
async fn a_reply_that_was_cut_off_is_counted_too() {
    let server = server("cut").await;
    assert!(collect(server.llm.reply(prompt())).await.1.is_some());
    server.counts().await;
    assert_eq!(server.tokens("completion"), 7);
}

#[tokio::test]
async fn a_reply_without_an_end_is_taken_up_to_a_length_and_never_waits_for_its_reader() {
    let server = server("endless").await;
    let pieces = server.llm.reply(prompt());
    // Nobody reads until the end.
    tokio::time::timeout(Duration::from_secs(5), async {
        while !pieces.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("stopped by its length");
    let (text, error) = collect(pieces).await;
    assert_eq!((text.len(), error.unwrap().kind), (3999, ProviderErrorKind::Malformed));
}

#[tokio::test]
async fn an_endpoint_that_cannot_count_tokens_is_asked_without_that() {
    let server = server("strict").await;
    let (_, error) = collect(server.llm.reply(prompt())).await;
    assert_eq!(error.unwrap().kind, ProviderErrorKind::Rejected);
    assert_eq!(collect(server.llm.reply(prompt())).await, ("Thank you.".into(), None));
}

#[tokio::test]
async fn dropping_the_reply_closes_the_connection() {
    let mut server = server("slow").await;
    let mut pieces = server.llm.reply(prompt());
    assert_eq!(pieces.recv().await.unwrap().unwrap().0, "Well.");
    drop(pieces);
    tokio::time::timeout(Duration::from_secs(2), server.dropped.recv()).await.expect("closed").unwrap();
}

#[tokio::test]
async fn settings_that_cannot_work_are_told_at_the_start() {
    let config = |url: &str, model: &str| LlmConfig {
        provider: LlmKind::Openai,
        url: url.into(),
        model: model.into(),
        ..LlmConfig::default()
    };
    let metrics = Metrics::new();
    let error = |config: LlmConfig| llm::from_config(&config, &metrics).err().unwrap();
    assert!(error(config("", "m")).contains("interview.llm.url"));
    assert!(error(config("localhost:11434", "m")).contains("interview.llm.url"));
    assert!(error(config("http://localhost/v1", "")).contains("interview.llm.model"));
    assert!(llm::from_config(&LlmConfig::default(), &metrics).unwrap().is_none());
}
