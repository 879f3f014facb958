//! The providers against the real thing: a transcription endpoint over HTTP, espeak-ng as a process, and the whole way
//! from a clause to words.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Multipart, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use tokio::sync::mpsc;
use viva::{
    auth::Secret,
    media::{AudioPacket, AudioSink, OpusFrame, SinkClosed, TapWrite, TapWriter, tap},
    speech::{
        Config, ProviderErrorKind,
        listener::{self, ListenerConfig, SpeechEvent},
        speaker::{Speaker, SpeakerEvent},
        stt::{
            SttEvent, SttProvider,
            openai::{OpenAiStt, OpenAiSttOptions},
        },
        tts::{TtsProvider, espeak::Espeak},
    },
    telemetry::Metrics,
};

/// What the endpoint was sent.
#[derive(Clone, Debug, Default)]
struct Seen {
    fields: Vec<(String, String)>,
    samples: Vec<i16>,
    key: Option<String>,
}

/// A transcription endpoint that answers by its model's name.
#[derive(Clone, Default)]
struct Endpoint {
    seen: Arc<Mutex<Vec<Seen>>>,
    requests: Arc<AtomicUsize>,
}

async fn transcribe(State(endpoint): State<Endpoint>, headers: HeaderMap, mut form: Multipart) -> Response {
    let nth = endpoint.requests.fetch_add(1, Ordering::SeqCst);
    let key = headers.get("authorization").map(|v| v.to_str().unwrap().to_owned());
    let mut seen = Seen { key, ..Seen::default() };
    while let Some(field) = form.next_field().await.unwrap() {
        let name = field.name().unwrap().to_owned();
        if name == "file" {
            assert_eq!((field.file_name(), field.content_type()), (Some("speech.wav"), Some("audio/wav")));
            let bytes = field.bytes().await.unwrap();
            let mut wav = hound::WavReader::new(&bytes[..]).unwrap();
            assert_eq!((wav.spec().sample_rate, wav.spec().channels, wav.spec().bits_per_sample), (16_000, 1, 16));
            seen.samples = wav.samples::<i16>().map(Result::unwrap).collect();
        } else {
            seen.fields.push((name, field.text().await.unwrap()));
        }
    }
    let model = seen.fields.iter().find(|(n, _)| n == "model").map(|(_, v)| v.clone()).unwrap_or_default();
    let text = format!(" heard {} ms\n", seen.samples.len() / 16);
    endpoint.seen.lock().unwrap().push(seen);
    match (model.as_str(), nth) {
        ("flaky", 0) | ("down", _) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        ("locked", _) => StatusCode::UNAUTHORIZED.into_response(),
        ("nonsense", _) => "words, but no JSON".into_response(),
        ("huge", _) => Json(serde_json::json!({"text": "x".repeat(1 << 20)})).into_response(),
        ("slow", _) => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            StatusCode::OK.into_response()
        }
        _ => Json(serde_json::json!({"text": text, "usage": {"type": "duration"}})).into_response(),
    }
}

async fn endpoint() -> (Endpoint, String) {
    let endpoint = Endpoint::default();
    let app = Router::new()
        .route("/v1/audio/transcriptions", post(transcribe))
        .layer(axum::extract::DefaultBodyLimit::max(8 << 20))
        .with_state(endpoint.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (endpoint, url)
}

fn openai(url: &str, model: &str, api_key: Option<&str>) -> OpenAiStt {
    let options = OpenAiSttOptions {
        url: url.into(),
        model: model.into(),
        api_key: api_key.map(Secret::from),
        timeout: Duration::from_millis(500),
        parallel: 2,
    };
    OpenAiStt::new(options).unwrap()
}

/// Sends a second of silence in packets.
async fn ask(stt: &OpenAiStt) -> SttEvent {
    let mut stream = stt.open("en-GB");
    for _ in 0..50 {
        stream.audio.as_ref().unwrap().send(vec![7; 320].into()).await.unwrap();
    }
    stream.audio = None;
    let event = stream.events.recv().await.expect("one event");
    assert!(stream.events.recv().await.is_none(), "and no more");
    event
}

#[tokio::test]
async fn the_endpoint_gets_a_wave_file_and_gives_the_text() {
    let (endpoint, url) = endpoint().await;
    let SttEvent::Final(transcript) = ask(&openai(&url, "good", Some("hush"))).await else { panic!("no text") };
    assert_eq!(transcript.text.0, "heard 1000 ms");
    let seen = endpoint.seen.lock().unwrap()[0].clone();
    assert_eq!(seen.samples, vec![7; 16_000]);
    assert_eq!(seen.key.as_deref(), Some("Bearer hush"));
    for (name, value) in [("model", "good"), ("language", "en"), ("response_format", "json")] {
        assert!(seen.fields.contains(&(name.into(), value.into())), "{name}: {:?}", seen.fields);
    }
    assert!(matches!(ask(&openai(&url, "", None)).await, SttEvent::Final(_)));
    let seen = endpoint.seen.lock().unwrap()[1].clone();
    assert!(seen.key.is_none() && seen.fields.iter().all(|(name, _)| name != "model"));
}

#[tokio::test]
async fn an_error_that_may_pass_is_tried_once_more_and_others_are_not() {
    for (model, requests, expected) in [
        ("flaky", 2, None),
        ("down", 2, Some(ProviderErrorKind::Unavailable)),
        ("locked", 1, Some(ProviderErrorKind::Rejected)),
        ("nonsense", 1, Some(ProviderErrorKind::Malformed)),
        ("huge", 1, Some(ProviderErrorKind::Malformed)),
        ("slow", 2, Some(ProviderErrorKind::Timeout)),
    ] {
        let (endpoint, url) = endpoint().await;
        let kind = match ask(&openai(&url, model, Some("hush"))).await {
            SttEvent::Failed(error) => {
                assert!(!error.to_string().contains("hush") && !error.to_string().contains("127.0.0.1"), "{error}");
                Some(error.kind)
            }
            _ => None,
        };
        assert_eq!((kind, endpoint.requests.load(Ordering::SeqCst)), (expected, requests), "{model}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let event = ask(&openai(&format!("http://{closed}"), "", None)).await;
    assert!(matches!(event, SttEvent::Failed(error) if error.message.contains("speech.stt.url")));
}

#[tokio::test]
async fn espeak_speaks_at_once_as_a_stream_and_is_killed_when_nobody_listens() {
    let metrics = Arc::new(Metrics::new());
    let espeak = Espeak::new("en-us", metrics.clone()).unwrap();
    let begun = Instant::now();
    let mut stream = espeak.speak("Hello there. [[ This ]] is a test, of a clause.");
    let mut samples = 0;
    let mut first = None;
    while let Some(chunk) = stream.recv().await {
        let chunk = chunk.unwrap();
        first.get_or_insert(begun.elapsed());
        assert_eq!(chunk.sample_rate, 22_050);
        samples += chunk.samples.len();
    }
    println!("first audio after {first:?}, {} ms of it", samples / 22);
    assert!((1.0..8.0).contains(&(samples as f64 / 22_050.0)), "{samples}");
    let counted = metrics.tts_audio_seconds.with_label_values(&["espeak-ng"]).get();
    assert!((counted - samples as f64 / 22_050.0).abs() < 0.01);
    // A long text, of which only the beginning is wanted.
    let mut stream = espeak.speak(&"This goes on and on. ".repeat(500));
    assert!(stream.recv().await.unwrap().is_ok());
    drop(stream);
    let gone = async {
        while children() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("the process was killed");
    let why = Espeak::new("zz-nobody", metrics).err().unwrap();
    assert!(why.contains("--voices"), "{why}");
}

/// Children of this process that are espeak-ng and still run.
fn children() -> usize {
    let me = std::process::id().to_string();
    let stats = std::fs::read_dir("/proc").unwrap().flatten();
    stats
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            let rest = stat.rsplit(')').next().unwrap_or_default();
            let mut fields = rest.split_whitespace();
            stat.contains("(espeak-ng)") && fields.next() != Some("Z") && fields.next() == Some(me.as_str())
        })
        .count()
}

/// What the speaker says goes straight into a tap.
struct Loop {
    tap: TapWriter,
    seq: AtomicUsize,
}

impl AudioSink for Loop {
    fn inject(&self, frame: OpusFrame) -> Result<(), SinkClosed> {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) as u64;
        let packet = AudioPacket {
            source: 1,
            seq,
            rtp_time: seq * 960,
            arrived: tokio::time::Instant::now().into_std(),
            payload: frame.payload,
        };
        match self.tap.write(packet) {
            TapWrite::Taken => Ok(()),
            TapWrite::Full | TapWrite::Closed => Err(SinkClosed),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_voice_says_reaches_the_endpoint_through_opus_and_voice_activity() {
    let (endpoint, url) = endpoint().await;
    let metrics = Arc::new(Metrics::new());
    let espeak: Arc<dyn TtsProvider> = Arc::new(Espeak::new("en-us", metrics.clone()).unwrap());
    let (tap, reader) = tap(500);
    let sink = Arc::new(Loop { tap, seq: AtomicUsize::new(0) });
    let (speaker, mut said) = Speaker::spawn(espeak, sink, metrics.clone());
    let stt: Arc<dyn SttProvider> = Arc::new(openai(&url, "good", None));
    let config = ListenerConfig::from(&Config::default());
    let mut heard = listener::spawn(reader, Some(stt), config, metrics.clone());
    speaker.say(1, "I would begin with the logs, and then I would look at the graphs.".into());
    speaker.end(1);
    let played = finished(&mut said).await;
    let text = loop {
        match heard.recv().await.expect("the tap is open") {
            SpeechEvent::Final { transcript, failed: false, .. } => break transcript.text.0,
            SpeechEvent::Final { .. } => panic!("recognition failed"),
            _ => continue,
        }
    };
    assert!(played.starts_with("I would begin"));
    let ms: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    let samples = endpoint.seen.lock().unwrap()[0].samples.clone();
    assert!((2_000..8_000).contains(&ms) && samples.iter().any(|s| s.unsigned_abs() > 3000), "{text}");
}

async fn finished(events: &mut mpsc::Receiver<SpeakerEvent>) -> String {
    loop {
        if let SpeakerEvent::Finished { heard, .. } = events.recv().await.expect("the speaker lives") {
            return heard.0;
        }
    }
}
