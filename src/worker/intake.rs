//! The way of a TCP connection to the worker whose client it is from: its first frame is a STUN request with a user name
//! that one of the workers gave out. They are asked in turn, since only they know.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use prometheus::IntCounter;
use socket2::SockRef;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::mpsc, time::timeout};

use super::framing::{FRAME_BYTES_MAX, LENGTH_BYTES, first_frame};
use crate::{
    sfu::{BindingRequest, binding_request},
    telemetry::Metrics,
};

/// Connections on their way to one worker; what comes beyond is closed, and the client tries again.
const NEWCOMERS_MAX: usize = 256;
/// Time for the first request: the client sends it as soon as it is connected.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// What the kernel may hold for a client. More would be old before it is sent.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// What whoever accepted a connection wants to have dropped when it is closed, and not before.
pub type Guard = Box<dyn Send>;

/// A connection whose first request is there.
pub(super) struct Newcomer {
    pub stream: mio::net::TcpStream,
    pub remote: SocketAddr,
    /// Our address that it was opened to.
    pub local: SocketAddr,
    /// What was read of it: the first frame, and maybe more.
    pub head: Bytes,
    pub guard: Guard,
    /// Workers that do not know it.
    asked: usize,
}

impl Newcomer {
    pub fn new(stream: mio::net::TcpStream, remote: SocketAddr, local: SocketAddr, head: Bytes, guard: Guard) -> Self {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { stream, remote: canonical(remote), local: canonical(local), head, guard, asked: 0 }
    }

    /// What it says first.
    pub fn request(&self) -> Option<BindingRequest<'_>> {
        let (frame, _) = first_frame(&self.head).ok()??;
        binding_request(frame)
    }
}

/// One worker's door.
#[derive(Clone)]
pub(super) struct Door {
    newcomers: mpsc::Sender<Newcomer>,
    waker: Arc<mio::Waker>,
}

impl Door {
    pub fn new(waker: Arc<mio::Waker>) -> (Self, mpsc::Receiver<Newcomer>) {
        let (newcomers, received) = mpsc::channel(NEWCOMERS_MAX);
        (Self { newcomers, waker }, received)
    }
}

/// Takes connections on which ICE-TCP (RFC 6544) is spoken. Cheap clone.
#[derive(Clone)]
pub struct IceTcp {
    doors: Arc<[Door]>,
    full: IntCounter,
    unknown: IntCounter,
}

impl IceTcp {
    pub(super) fn new(doors: Vec<Door>, metrics: &Metrics) -> Self {
        let refused = |reason| metrics.ice_tcp_refused.with_label_values(&[reason]);
        Self { doors: doors.into(), full: refused("full"), unknown: refused("unknown") }
    }

    /// Hands the connection to whose client it is from; closes it where that is nobody. `head` is what was already read;
    /// `guard` is kept until the connection is closed.
    pub async fn admit(&self, stream: TcpStream, head: Bytes, guard: Guard) {
        match timeout(FIRST_REQUEST_TIMEOUT, first_request(stream, head, guard)).await {
            Ok(Ok(newcomer)) => {
                // Anywhere; not the same for all, who would then wake one worker.
                let first = usize::from(newcomer.remote.port()) % self.doors.len().max(1);
                self.ask(first, newcomer);
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TCP connection for media was closed");
                self.unknown.inc();
            }
            Err(_) => self.unknown.inc(),
        }
    }

    /// The worker that was asked does not know this connection.
    pub(super) fn pass_on(&self, worker: usize, mut newcomer: Newcomer) {
        newcomer.asked += 1;
        if newcomer.asked >= self.doors.len() {
            self.unknown.inc();
        } else {
            self.ask((worker + 1) % self.doors.len(), newcomer);
        }
    }

    fn ask(&self, worker: usize, newcomer: Newcomer) {
        let Some(door) = self.doors.get(worker) else { return };
        match door.newcomers.try_send(newcomer) {
            // Fails only where the worker is gone, and the connection with it.
            Ok(()) => _ = door.waker.wake(),
            Err(_) => self.full.inc(),
        }
    }

    /// The worker has as many connections as it may.
    pub(super) fn refuse_full(&self) {
        self.full.inc();
    }
}

async fn first_request(mut stream: TcpStream, head: Bytes, guard: Guard) -> io::Result<Newcomer> {
    let remote = stream.peer_addr()?;
    let local = stream.local_addr()?;
    let mut read = BytesMut::from(head);
    let no_ice = || io::Error::new(io::ErrorKind::InvalidData, "it does not begin with a STUN request");
    loop {
        if let Some((frame, _)) = first_frame(&read).map_err(|_| no_ice())? {
            binding_request(frame).ok_or_else(no_ice)?;
            break;
        }
        read.reserve(FRAME_BYTES_MAX + LENGTH_BYTES);
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let stream = stream.into_std()?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES)?;
    Ok(Newcomer::new(mio::net::TcpStream::from_std(stream), remote, local, read.freeze(), guard))
}
