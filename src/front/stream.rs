//! A connection of which some bytes were read to see what it is, and which reads as if they were not.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::server::TlsStream;

use super::Place;

/// Gives back `head` first, then what `inner` reads.
#[derive(Debug)]
pub struct Replay<S> {
    head: Bytes,
    inner: S,
}

impl<S> Replay<S> {
    pub(super) fn new(head: Bytes, inner: S) -> Self {
        Self { head, inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let length = self.head.len().min(buf.remaining());
        buf.put_slice(&self.head[..length]);
        self.head.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

type Plain = Replay<TcpStream>;
type Encrypted = Replay<TlsStream<Plain>>;

/// What a connection holds of its port's bounds. Free again when this is dropped, so it goes wherever the socket goes.
#[derive(Debug)]
pub struct Admission {
    pub(super) _slot: OwnedSemaphorePermit,
    pub(super) _place: Place,
}

/// A client's connection, with TLS already taken off where it spoke that. Counts as open until it is dropped, after an
/// upgrade of HTTP too.
#[derive(Debug)]
pub struct Stream {
    kind: Kind,
    peer: SocketAddr,
    admission: Admission,
}

#[derive(Debug)]
enum Kind {
    Plain(Plain),
    Tls(Box<Encrypted>),
}

impl Stream {
    pub(super) fn plain(head: Bytes, inner: TcpStream, peer: SocketAddr, admission: Admission) -> Self {
        Self { kind: Kind::Plain(Replay::new(head, inner)), peer, admission }
    }

    pub(super) fn tls(head: Bytes, inner: TlsStream<Plain>, peer: SocketAddr, admission: Admission) -> Self {
        Self { kind: Kind::Tls(Box::new(Replay::new(head, inner))), peer, admission }
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub fn is_tls(&self) -> bool {
        matches!(self.kind, Kind::Tls(_))
    }

    /// The socket, what was read of it, and what must be kept for as long as it is open. `None` where it speaks TLS.
    pub fn into_plain(self) -> Option<(TcpStream, Bytes, Admission)> {
        match self.kind {
            Kind::Plain(plain) => Some((plain.inner, plain.head, self.admission)),
            Kind::Tls(_) => None,
        }
    }

    fn as_write(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        match &mut self.kind {
            Kind::Plain(stream) => Pin::new(stream),
            Kind::Tls(stream) => Pin::new(stream),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Kind::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.as_write().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.as_write().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            Kind::Plain(stream) => stream.is_write_vectored(),
            Kind::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_write().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_write().poll_shutdown(cx)
    }
}
