//! What holds for every request: measuring, security headers, cross-origin rules, odd paths.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, Uri, header},
    middleware::Next,
    response::Response,
};
use tower_http::cors::{AllowHeaders, AllowMethods, Any, CorsLayer};

use crate::telemetry::Metrics;

/// What the page may load and talk to. `ws:`/`wss:` because signalling may be on another host than the page;
/// `blob:` because livekit-client makes its timers' worker from one, and shows local media from such addresses.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob: mediastream:; worker-src 'self' blob:; \
connect-src 'self' ws: wss: http: https:; object-src 'none'; base-uri 'none'; form-action 'self'; \
frame-ancestors 'none'";

/// The page needs these; whatever it embeds does not get them.
const PERMISSIONS_POLICY: &str = "camera=(self), microphone=(self), display-capture=(self), screen-wake-lock=(self), autoplay=(self), geolocation=()";

/// Set where the response has none of its own. Links to a room carry an invite, so no referrer leaves.
const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (HeaderName::from_static("permissions-policy"), PERMISSIONS_POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// SDKs run on any page: tokens, not origins, say who may do what. No cookies are used anywhere.
pub fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(AllowMethods::list([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
        ]))
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(std::time::Duration::from_secs(24 * 60 * 60))
}

pub async fn security_headers(request: Request, next: Next) -> Response {
    let api = request.uri().path().starts_with("/v1/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if api {
        // Answers hold tokens and transcripts.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Counts and times requests by route pattern, so that the number of label values stays bounded.
pub async fn measure(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = match request.extensions().get::<MatchedPath>() {
        Some(path) => path.as_str().to_owned(),
        None => "page".to_owned(),
    };
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let response = next.run(request).await;
    metrics
        .http_request_duration
        .with_label_values(&[&route, method, response.status().as_str()])
        .observe(started.elapsed().as_secs_f64());
    response
}

/// Clients join a base address that ends in `/` with a path that begins with `/`: both forms are the same path here.
pub async fn collapse_slashes(mut request: Request, next: Next) -> Response {
    if request.uri().path().starts_with("//") {
        let path_and_query = request.uri().path_and_query().map_or("/", |all| all.as_str());
        let collapsed = format!("/{}", path_and_query.trim_start_matches('/'));
        if let Ok(uri) = collapsed.parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    next.run(request).await
}
