//! The embedded web page: files of `web/dist`, in the binary in release builds and read from disk in debug builds.
//!
//! Paths without an extension are the page's own routes and get `index.html`. Files under `assets/` have a hash in
//! their name and never change; everything else is asked for anew each time.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

#[derive(rust_embed::RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Files;

/// Shown where the server was built without its page. Everything else works then too.
const NO_PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Viva</title>\
<body style=\"font:16px/1.5 system-ui;max-width:36rem;margin:15vh auto;padding:0 1rem\">\
<h1>Viva is running</h1><p>This build holds no web page. Run <code>make web</code> in the source tree and start the \
server again; LiveKit SDKs and the REST interface work without it.</p>";

/// `/assets/index-BxYz123.js` and the like.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const REVALIDATE: &str = "no-cache";

/// Whether the page was built.
pub fn is_built() -> bool {
    Files::get("index.html").is_some()
}

/// Any path that no route has.
pub async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response();
    }
    let path = uri.path().trim_start_matches('/');
    if let Some(file) = Files::get(path) {
        return respond(path, file, &headers);
    }
    let has_extension = path.rsplit('/').next().is_some_and(|name| name.contains('.'));
    // `rtc` is a path of older clients, which must see a true 404 to fall back; `v1` is REST.
    let is_ours = path == "rtc" || path.starts_with("rtc/") || path == "v1" || path.starts_with("v1/");
    if has_extension || is_ours {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    }
    match Files::get("index.html") {
        Some(file) => respond("index.html", file, &headers),
        None => ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], NO_PAGE)
            .into_response(),
    }
}

fn respond(path: &str, file: rust_embed::EmbeddedFile, request: &HeaderMap) -> Response {
    let hash = file.metadata.sha256_hash();
    let etag = format!("\"{}\"", hash[..12].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let known = request.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let unchanged = known.is_some_and(|value| value.split(',').any(|one| one.trim().trim_start_matches("W/") == etag));
    let mut response = match unchanged {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Body::from(file.data).into_response(),
    };
    let headers = response.headers_mut();
    let cache = if path.starts_with("assets/") { IMMUTABLE } else { REVALIDATE };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    let mime = match file.metadata.mimetype() {
        "text/html" => "text/html; charset=utf-8",
        "text/javascript" => "text/javascript; charset=utf-8",
        other => other,
    };
    if let (false, Ok(mime)) = (unchanged, HeaderValue::from_str(mime)) {
        headers.insert(header::CONTENT_TYPE, mime);
    }
    response
}
