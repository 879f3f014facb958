//! Fetching from a server of this test's own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::Body,
    extract::Path as UrlPath,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{download::pull_from, *};

/// A voice's description: the smallest file that is checked by structure.
fn content() -> Vec<u8> {
    let mut text = br#"{"phoneme_id_map": {"_": [0]}, "filler": ""#.to_vec();
    text.extend(std::iter::repeat_n(b'x', 200_000));
    text.extend(b"\"}");
    text
}

fn model(name: &str, content: &[u8]) -> Model {
    Model {
        name: name.into(),
        about: String::new(),
        files: vec![ModelFile {
            name: format!("{name}.onnx.json"),
            path: format!("some/where/{name}"),
            bytes: content.len() as u64,
            checksum: Checksum::Sha256(hex(&Sha256::digest(content))),
        }],
    }
}

/// Serves `content` by the name that is asked for: `good`, `cut` (breaks off the first time), `garbage` (other bytes of
/// the same length), `short`, `plain` (knows no ranges), else 404.
async fn serve() -> (String, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    let app = Router::new().route(
        "/some/where/{name}",
        get(move |UrlPath(name): UrlPath<String>, headers: HeaderMap| {
            let nth = counter.fetch_add(1, Ordering::SeqCst);
            async move { answer(&name, &headers, nth) }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, requests)
}

fn answer(name: &str, headers: &HeaderMap, nth: usize) -> Response {
    let content = content();
    let from: usize = headers
        .get(header::RANGE)
        .and_then(|r| r.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    match name {
        "good" | "cut" => {
            let rest = content[from..].to_vec();
            let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
            let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            let mut response = Response::builder().status(status).header(header::CONTENT_RANGE, range);
            if name == "cut" && nth == 0 {
                response = response.header(header::CONTENT_LENGTH, rest.len());
                let first = futures::stream::iter([Ok(rest[..90_000].to_vec())]);
                let cut = futures::stream::once(async {
                    // The first piece must have left before.
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    Err(io::Error::other("the line is cut"))
                });
                return response.body(Body::from_stream(futures::StreamExt::chain(first, cut))).unwrap();
            }
            response.body(Body::from(rest)).unwrap()
        }
        "plain" => content.into_response(),
        "garbage" => vec![b'?'; content.len()].into_response(),
        "short" => content[..1000].to_vec().into_response(),
        "busy" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn names(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_model_is_fetched_checked_and_not_fetched_again() {
    let (dir, (url, requests)) = (tempfile::tempdir().unwrap(), serve().await);
    let target = dir.path().join("models");
    let catalogue = [model("good", &content())];
    let pull = || pull_from(&catalogue, &target, &url, &[]);
    // The usual ones are not in this catalogue.
    assert!(matches!(pull().await.unwrap_err().error, PullError::Unknown { .. }));
    assert_eq!(pull_from(&catalogue, &target, &url, &names("good")).await.unwrap(), [Pulled::Fetched("good".into())]);
    assert_eq!(files(&target), ["good.onnx.json"]);
    assert_eq!(std::fs::read(target.join("good.onnx.json")).unwrap(), content());
    assert_eq!(pull_from(&catalogue, &target, &url, &names("good")).await.unwrap(), [Pulled::Present("good".into())]);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let (dir, (url, _)) = (tempfile::tempdir().unwrap(), serve().await);
    let catalogue = [model("cut", &content())];
    let broken = pull_from(&catalogue, dir.path(), &url, &names("cut")).await.unwrap_err().error;
    assert!(matches!(broken, PullError::Interrupted { .. }), "{broken}");
    assert_eq!(files(dir.path()), ["cut.onnx.json.part"]);
    assert_eq!(presence(&catalogue[0], dir.path()), Presence::Partial);
    pull_from(&catalogue, dir.path(), &url, &names("cut")).await.unwrap();
    assert_eq!(files(dir.path()), ["cut.onnx.json"]);
    assert_eq!(std::fs::read(dir.path().join("cut.onnx.json")).unwrap(), content());
}

#[tokio::test]
async fn a_server_without_ranges_starts_anew_and_a_part_that_is_too_long_is_thrown_away() {
    for begun in [vec![b'z'; 5_000], vec![b'z'; 500_000]] {
        let (dir, (url, _)) = (tempfile::tempdir().unwrap(), serve().await);
        let catalogue = [model("plain", &content())];
        std::fs::write(dir.path().join("plain.onnx.json.part"), begun).unwrap();
        pull_from(&catalogue, dir.path(), &url, &names("plain")).await.unwrap();
        assert_eq!(std::fs::read(dir.path().join("plain.onnx.json")).unwrap(), content());
    }
}

#[tokio::test]
async fn what_is_not_the_file_never_gets_its_name() {
    let (dir, (url, _)) = (tempfile::tempdir().unwrap(), serve().await);
    let pull = async |name: &str, content: &[u8]| {
        let catalogue = [model(name, content)];
        pull_from(&catalogue, dir.path(), &url, &names(name)).await.unwrap_err().error
    };
    let error = pull("garbage", &content()).await;
    assert!(matches!(&error, PullError::Wrong { why, .. } if why.contains("checksum")), "{error}");
    let error = pull("short", &content()).await;
    assert!(matches!(&error, PullError::Wrong { why, .. } if why.contains("1000 bytes")), "{error}");
    // Right by its checksum, but no voice's description: the catalogue itself would be wrong.
    let error = pull("garbage", &vec![b'?'; content().len()]).await;
    assert!(matches!(&error, PullError::Wrong { why, .. } if why.contains("JSON")), "{error}");
    assert!(matches!(pull("none", &content()).await, PullError::NotFound { .. }));
    assert!(matches!(pull("busy", &content()).await, PullError::Refused { .. }));
    assert!(files(dir.path()).is_empty(), "{:?}", files(dir.path()));
}

#[tokio::test]
async fn no_internet_is_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = [model("good", &content())];
    // A port where nobody listens.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("http://{closed}"), "http://no-such-host.invalid".into()] {
        let told = pull_from(&catalogue, dir.path(), &url, &names("good")).await.unwrap_err();
        assert!(matches!(told.error, PullError::Offline { .. }), "{told}");
        assert!(told.to_string().ends_with("; not fetched: good") && !told.to_string().contains('\n'), "{told}");
        println!("{told}");
    }
    assert!(files(dir.path()).is_empty());
}

#[tokio::test]
async fn what_was_fetched_before_an_error_is_told_apart_from_what_was_not() {
    let (dir, (url, _)) = (tempfile::tempdir().unwrap(), serve().await);
    let catalogue = ["plain", "good", "busy", "none"].map(|name| model(name, &content()));
    std::fs::write(dir.path().join("plain.onnx.json"), content()).unwrap();
    let wanted = catalogue.each_ref().map(|model| model.name.clone());
    let told = pull_from(&catalogue, dir.path(), &url, &wanted).await.unwrap_err();
    assert_eq!(told.done, [Pulled::Present("plain".into()), Pulled::Fetched("good".into())]);
    assert_eq!(told.missing, ["busy", "none"]);
    assert!(matches!(told.error, PullError::Refused { .. }), "{told}");
    assert!(told.to_string().ends_with("; not fetched: busy, none"), "{told}");
}

#[test]
fn verify_tells_known_files_from_sound_and_bad_ones() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    let known = model("good", &content()).files;
    put("good.onnx.json", &content());
    put("mine.onnx.json", br#"{"phoneme_id_map": {}}"#);
    put("mine.onnx", b"\x08\x08 and more");
    put("bad.onnx", b"<html>");
    put("ggml-bad.bin", b"lmgg");
    put("readme.txt", b"not a model");
    let verdicts = verify_with(&known, dir.path()).unwrap();
    let of = |name: &str| verdicts.iter().find(|(path, _)| path.ends_with(name)).map(|(_, v)| v.clone());
    assert_eq!(verdicts.len(), 5);
    assert_eq!(of("good.onnx.json"), Some(Verdict::Verified));
    assert_eq!(of("mine.onnx"), Some(Verdict::Sound));
    assert_eq!(of("mine.onnx.json"), Some(Verdict::Sound));
    assert!(matches!(of("bad.onnx"), Some(Verdict::Bad(_))));
    assert!(matches!(of("ggml-bad.bin"), Some(Verdict::Bad(_))));
    put("good.onnx.json", &vec![b'x'; content().len()]);
    let verdicts = verify_with(&known, dir.path()).unwrap();
    assert!(verdicts.iter().any(|(p, v)| p.ends_with("good.onnx.json") && matches!(v, Verdict::Bad(_))));
    assert!(verify(Path::new("/nonexistent")).unwrap().is_empty());
}

#[test]
fn the_catalogue_holds_the_usual_ones_and_well_formed_checksums() {
    let (catalogue, dir) = (catalogue(), tempfile::tempdir().unwrap());
    assert!(DEFAULTS.iter().all(|name| catalogue.iter().any(|model| model.name == *name)));
    for file in catalogue.iter().flat_map(|model| &model.files) {
        let (checksum, length) = match &file.checksum {
            Checksum::Sha256(c) => (c, 64),
            Checksum::Md5(c) => (c, 32),
        };
        assert!(checksum.len() == length && checksum.bytes().all(|b| b.is_ascii_hexdigit()), "{}", file.name);
    }
    assert!(list(dir.path()).iter().all(|(_, presence)| *presence == Presence::Missing));
    // Checksums of nothing, as everybody knows them.
    let empty = tempfile::NamedTempFile::new().unwrap();
    let md5 = Checksum::Md5("d41d8cd98f00b204e9800998ecf8427e".into());
    assert!(matches(empty.path(), &md5).unwrap());
}
