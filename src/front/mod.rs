//! One port for everything: accepts TCP connections, sees by their first bytes what they speak, takes TLS off, and hands
//! each to whoever serves it. Within bounds: of connections, and of the time in which a client must say something.
//!
//! | first bytes | is | goes to |
//! |---|---|---|
//! | a letter | HTTP | `http` |
//! | a TLS handshake | TLS, if there is a certificate | the same look once more, at what is inside |
//! | STUN in a frame of RFC 4571 | ICE-TCP | `ice` |
//! | STUN | TURN | `turn` |
//!
//! Knows nothing of what its handlers do.

mod crowd;
mod opening;
mod stream;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    crowd::{Crowd, Place},
    opening::{Opening, opening},
    stream::{Admission, Replay, Stream},
};
use crate::tls::Tls;

/// Open connections at most, signalling sockets and media included: about 20 kB each. Further ones wait in the backlog.
const CONNECTIONS_MAX: usize = 8192;
/// Time until a client has said what it speaks. Browsers open connections ahead of need; they open them again.
const OPENING_TIMEOUT: Duration = Duration::from_secs(5);
/// What one read may bring while it is looked at.
const HEAD_BYTES: usize = 1_024;
/// Pause after `accept` failed, for instance for want of file descriptors: each retry costs a log line.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Serves a connection, or hands it on. The [`Stream`] holds one of the port's places for as long as it is open.
pub type Handler = Arc<dyn Fn(Stream) -> BoxFuture<'static, ()> + Send + Sync>;

/// Makes a handler of an async function.
pub fn handler<F, R>(serve: F) -> Handler
where
    F: Fn(Stream) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |stream| Box::pin(serve(stream)))
}

/// Who serves what. What nobody serves is closed.
#[derive(Clone, Default)]
pub struct Front {
    /// How many connections one source may have.
    pub crowd: Crowd,
    pub tls: Option<Tls>,
    pub http: Option<Handler>,
    pub ice: Option<Handler>,
    pub turn: Option<Handler>,
}

/// Serves until `stop` is cancelled, then waits for the connections that are left. Handlers learn of `stop` by
/// themselves.
pub async fn serve(listener: TcpListener, front: Front, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot,
            () = stop.cancelled() => break,
        };
        // The semaphore is never closed.
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Signalling is small messages that somebody waits for; media more so.
                let _ = stream.set_nodelay(true);
                // One source must not take the places of all others. It is closed without a word: a word costs more.
                let Some(place) = front.crowd.enter(peer.ip().to_canonical()) else { continue };
                let admission = Admission { _slot: slot, _place: place };
                let (front, stop) = (front.clone(), stop.clone());
                connections.spawn(async move {
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    let found = tokio::select! {
                        found = front.find(stream, peer, admission) => found,
                        () = stop.cancelled() => return,
                    };
                    match found {
                        Ok(Some((handler, stream))) => handler(stream).await,
                        Ok(None) => tracing::debug!("closed a connection that speaks nothing that is served here"),
                        Err(error) => tracing::debug!(%error, "a connection ended before it was clear what it speaks"),
                    }
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

impl Front {
    /// Who serves this connection; `None` where nobody does.
    async fn find(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        admission: Admission,
    ) -> io::Result<Option<(Handler, Stream)>> {
        let (opening, head) = read_opening(&mut stream).await?;
        let tls = match (opening, &self.tls) {
            (Opening::Tls, Some(tls)) => tls,
            _ => {
                let handler = self.handler(opening);
                return Ok(handler.map(|handler| (handler, Stream::plain(head, stream, peer, admission))));
            }
        };
        let mut stream = tls.accept(Replay::new(head, stream)).await?;
        let (opening, head) = read_opening(&mut stream).await?;
        // ICE has no TLS of its own: its media is encrypted.
        let handler = self.handler(opening).filter(|_| opening != Opening::Ice);
        Ok(handler.map(|handler| (handler, Stream::tls(head, stream, peer, admission))))
    }

    fn handler(&self, opening: Opening) -> Option<Handler> {
        match opening {
            Opening::Http => self.http.clone(),
            Opening::Ice => self.ice.clone(),
            Opening::Turn => self.turn.clone(),
            Opening::Tls | Opening::Unknown => None,
        }
    }
}

/// Reads until it is clear what is spoken; returns that and all that was read.
async fn read_opening(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Opening, Bytes)> {
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    let read = async {
        loop {
            if let Some(opening) = opening(&head) {
                return Ok(opening);
            }
            if stream.read_buf(&mut head).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    match timeout(OPENING_TIMEOUT, read).await {
        Ok(found) => found.map(|opening| (opening, head.freeze())),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "said nothing for too long")),
    }
}

/// Errors of one connection that was gone before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
