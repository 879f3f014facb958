//! Serves HTTP/1.1 on connections that [`crate::front`] accepted, within bounds: of header size, of the time that a
//! client may take to send its headers. Drains when told: no new requests, running ones end.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, Uri, header, uri::Authority},
    middleware::{Next, from_fn},
    response::{IntoResponse, Redirect, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::{ApiError, peer::Peer};
use crate::front::{self, Front, Handler, Stream, handler};

/// Time for a request's headers to arrive: a slow phone needs 1 s, a slowloris wants for ever.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Request line and headers together. A join carries a token and a compressed offer in its address, up to 64 kB.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Served without TLS too: who asks these has no certificate to check, and they tell nothing.
const PLAIN_PATHS: [&str; 2] = ["/livez", "/readyz"];

/// Serves nothing but this until `stop` is cancelled, then waits for the connections that are left.
pub async fn serve(listener: TcpListener, app: Router, stop: CancellationToken) {
    let http = Some(http(app, false, stop.clone()));
    front::serve(listener, Front { http, ..Front::default() }, stop).await;
}

/// What serves HTTP. With `tls_only`, who comes without TLS is sent to where there is.
pub fn http(app: Router, tls_only: bool, stop: CancellationToken) -> Handler {
    let plain = if tls_only { app.clone().layer(from_fn(to_tls)) } else { app.clone() };
    handler(move |stream| {
        let app = if stream.is_tls() { &app } else { &plain };
        connection(stream, app.clone(), stop.clone())
    })
}

async fn connection(stream: Stream, app: Router, stop: CancellationToken) {
    let peer = Peer(stream.peer().ip());
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut app = app.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        async move { Ok::<_, Infallible>(app.call(request).await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

/// Pages are found again under `https`. Everything else may carry tokens, which nobody should get used to sending so.
async fn to_tls(request: Request, next: Next) -> Response {
    if PLAIN_PATHS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let upgrades = request.headers().contains_key(header::UPGRADE);
    match secure_address(request.uri(), request.headers()) {
        Some(address) if reads && !upgrades => Redirect::permanent(&address).into_response(),
        _ => ApiError::invalid("This port speaks TLS: use https:// or wss:// instead of http:// or ws://.")
            .into_response(),
    }
}

/// The same address under `https`; `None` where the client did not say how it calls this host.
fn secure_address(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let host: Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Some(format!("https://{host}{path}"))
}
