//! Accepts connections and serves HTTP/1.1 on them, within bounds: of connections, of header size, of the time that
//! a client may take to send its headers. Drains when told: no new requests, running ones end.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service;

/// Open HTTP connections at most, signalling sockets included: about 20 kB each. Further ones wait in the backlog.
const CONNECTIONS_MAX: usize = 8192;
/// Time for a request's headers to arrive: a slow phone needs 1 s, a slowloris wants for ever.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Request line and headers together. A join carries a token and a compressed offer in its address, up to 64 kB.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Pause after `accept` failed, for instance for want of file descriptors: each retry costs a log line.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Serves until `stop` is cancelled, then waits for the connections that are left.
pub async fn serve(listener: TcpListener, app: Router, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot,
            () = stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                // Signalling is small messages that somebody waits for.
                let _ = stream.set_nodelay(true);
                let (app, stop) = (app.clone(), stop.clone());
                connections.spawn(async move {
                    let _slot = slot;
                    connection(stream, app, stop).await;
                });
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, app: Router, stop: CancellationToken) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut app = app.clone();
        let request = request.map(Body::new);
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

/// Errors of one connection that was gone before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
