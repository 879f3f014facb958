//! The task of one client: its wire on one side, its allocation's socket on the other, the session between them.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UdpSocket,
    sync::mpsc,
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    framing::{Frames, pad},
    session::{Now, Output, Policy, Session},
};
use crate::telemetry::Metrics;

/// Largest datagram that is relayed: above any that media is sent in.
const DATAGRAM_BYTES_MAX: usize = 2048;
/// Longest that a stream may take no bytes; then its client is gone.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// A byte stream of a client, with or without TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How messages come from a client and go to it.
pub enum Wire {
    Datagrams { inbox: mpsc::Receiver<Vec<u8>>, socket: Arc<UdpSocket>, client: SocketAddr },
    Stream { stream: Box<dyn Stream>, frames: Frames },
}

impl Wire {
    pub fn stream(stream: impl Stream + 'static) -> Self {
        Self::Stream { stream: Box::new(stream), frames: Frames::default() }
    }

    /// The next message; `None` where the client is gone or talks nonsense. May be dropped while it waits.
    async fn receive(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Datagrams { inbox, .. } => inbox.recv().await,
            Self::Stream { stream, frames } => loop {
                if let Some(message) = frames.next().ok()? {
                    return Some(message.into());
                }
                if stream.read_buf(&mut frames.buffer).await.ok()? == 0 {
                    return None;
                }
            },
        }
    }

    /// Whether the client may still be there.
    async fn send(&mut self, message: Vec<u8>) -> bool {
        match self {
            // A datagram that cannot be sent is a lost one.
            Self::Datagrams { socket, client, .. } => {
                let _ = socket.try_send_to(&message, *client);
                true
            }
            // While this waits, the kernel drops what comes to the allocation: the client cannot take it anyway.
            Self::Stream { stream, .. } => {
                let written = async {
                    stream.write_all(&pad(message)).await?;
                    stream.flush().await
                };
                matches!(timeout(WRITE_MAX, written).await, Ok(Ok(())))
            }
        }
    }
}

/// What clients' tasks share.
#[derive(Clone)]
pub struct Context {
    pub policy: Arc<Policy>,
    pub metrics: Arc<Metrics>,
    pub stop: CancellationToken,
    /// The label of metrics: `udp`, `tcp` or `tls`.
    pub transport: &'static str,
}

/// Runs until the client is gone, has asked for nothing for long, or the server stops.
pub async fn run(context: Context, mut wire: Wire, client: SocketAddr) {
    let mut session = Session::new(now(), client, context.policy.clone());
    let mut relay: Option<Relay> = None;
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    let bytes = |direction| context.metrics.turn_server_bytes.with_label_values(&[direction]);
    let (up, down) = (bytes("up"), bytes("down"));
    loop {
        tokio::select! {
            message = wire.receive() => match message {
                Some(message) => session.handle_client(now(), &message),
                None => return,
            },
            got = receive(relay.as_ref(), &mut datagram) => if let Ok((length, from)) = got {
                down.inc_by(length as u64);
                session.handle_target(now(), from, datagram.get(..length).unwrap_or_default());
            },
            () = sleep_until(session.poll_timeout().into()) => session.handle_timeout(now()),
            () = context.stop.cancelled() => return,
        }
        while let Some(output) = session.poll_output() {
            match output {
                Output::ToClient(message) => {
                    if !wire.send(message).await {
                        return;
                    }
                }
                Output::ToTarget(target, datagram) => {
                    up.inc_by(datagram.len() as u64);
                    if let Some(relay) = &relay {
                        let _ = relay.socket.try_send_to(&datagram, target);
                    }
                }
                Output::Open { ipv6 } => {
                    relay = Relay::open(ipv6, &context).await.ok();
                    session.opened(now(), relay.as_ref().map(|relay| relay.port));
                }
                Output::Close => relay = None,
                Output::Refused(reason) => context.metrics.turn_server_refused.with_label_values(&[reason]).inc(),
            }
        }
        if session.is_over(now()) {
            return;
        }
    }
}

async fn receive(relay: Option<&Relay>, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match relay {
        Some(relay) => relay.socket.recv_from(datagram).await,
        None => std::future::pending().await,
    }
}

/// An allocation's socket. It is on loopback: only this machine, and so only our media, can reach it.
struct Relay {
    socket: UdpSocket,
    port: u16,
    gauge: prometheus::IntGauge,
}

impl Relay {
    async fn open(ipv6: bool, context: &Context) -> io::Result<Self> {
        let socket = match ipv6 {
            true => UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await?,
            false => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?,
        };
        let port = socket.local_addr()?.port();
        let gauge = context.metrics.turn_server_allocations.with_label_values(&[context.transport]);
        gauge.inc();
        Ok(Self { socket, port, gauge })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

pub fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Now { at: Instant::now(), unix }
}
