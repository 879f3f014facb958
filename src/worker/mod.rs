//! Threads and sockets around [`crate::sfu`]: one thread per worker, each with its own UDP port, its own rooms and
//! nothing shared. A room, or its part, never leaves its worker, so forwarding needs no lock. TCP connections for media come from
//! listeners that all workers share ([`IceTcp`]) and then belong to one of them. Tracks that are shown in a room of
//! another worker go there by channels (`lanes`).

mod addresses;
mod framing;
mod handle;
mod intake;
mod lanes;
mod outbox;
mod publisher;
mod socket;
mod tcp;

use std::{
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

pub use addresses::AdvertisedIp;
pub use handle::{WorkerClosed, WorkerHandle};
pub use intake::IceTcp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::{
    addresses::Addresses,
    intake::{Door, Newcomer},
    lanes::Lanes,
    outbox::{EVENTS_MAX, Outbox},
    publisher::Publisher,
    socket::{DATAGRAM_BYTES_MAX, UdpBatch},
    tcp::TcpConnections,
};
use crate::{
    sfu::{Certificate, CertificateError, Command, Event, Path, Protocol, Sfu},
    telemetry::Metrics,
};

/// Commands on their way to a worker. Control waits where it is full; the interviewer's voice is dropped.
const COMMANDS_MAX: usize = 1_024;
/// Commands taken per tick, so that a burst of them cannot hold up media.
const COMMANDS_PER_TICK_MAX: usize = 64;
/// Reads per tick (of 32 datagrams or GRO runs each), so that a flood cannot hold up timers.
const READS_PER_TICK_MAX: usize = 8;
/// How soon events that found no room are tried again.
const OUTBOX_RETRY: Duration = Duration::from_millis(5);
/// Errors of the socket come in floods; one line in so many is enough.
const SOCKET_ERRORS_LOGGED_EVERY: u64 = 1_000;

/// TCP connections taken per tick.
const NEWCOMERS_PER_TICK_MAX: usize = 16;
/// What one wake-up may learn of; more stays with the kernel until the next.
const EVENTS_PER_TICK_MAX: usize = 256;

const SOCKET: mio::Token = mio::Token(0);
const WAKER: mio::Token = mio::Token(1);
const FIRST_CONNECTION: mio::Token = mio::Token(2);

/// The media plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Media threads; 0 means one per core. Each takes one UDP port.
    pub workers: usize,
    /// UDP port of the first worker; the others follow. Clients must reach them.
    pub udp_port_base: u16,
    /// TCP port for media of clients whose UDP does not get through, one for all workers; absent: none.
    pub tcp_port: Option<u16>,
    /// Whether such clients may also use the port of HTTP.
    pub tcp_on_http_port: bool,
    /// Ports that clients are told for media by TCP, where they are mapped to the above. Empty means those.
    pub tcp_advertise_ports: Vec<u16>,
    /// IP addresses that clients are told to send media to. Empty means all of this machine's own. Behind address
    /// translation (cloud, container) set the public one; where there are several, each with the local one behind it.
    pub advertise_ips: Vec<AdvertisedIp>,
    /// Whether video follows what each receiver's network carries. Off: all gets all, which costs less and suits networks
    /// that are never full.
    pub congestion_control: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 0,
            udp_port_base: 7882,
            tcp_port: Some(7881),
            tcp_on_http_port: true,
            tcp_advertise_ports: Vec::new(),
            advertise_ips: Vec::new(),
            congestion_control: true,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "UDP port {port} for media is in use: stop the process that holds it (`ss -lunp 'sport = :{port}'` names it), \
         or set rtc.udp_port_base to another port"
    )]
    PortInUse { port: u16 },
    #[error("UDP port {port} for media could not be opened: {source}")]
    Socket { port: u16, source: io::Error },
    #[error("rtc.udp_port_base {base} leaves no room for {workers} workers: the last port would be above 65535")]
    PortRange { base: u16, workers: usize },
    #[error("the addresses of this machine could not be read ({0}): set rtc.advertise_ips")]
    Interfaces(io::Error),
    #[error("this machine has no IP address for media: set rtc.advertise_ips")]
    NoAddress,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("a media thread could not be started: {0}")]
    Thread(io::Error),
}

/// A worker's control, and what it tells.
pub type Worker = (WorkerHandle, mpsc::Receiver<Event>);

/// Starts all workers, for clients by UDP alone. They stop when every handle of theirs is dropped.
pub fn start(config: &Config, metrics: Arc<Metrics>) -> Result<Vec<Worker>, StartError> {
    start_with_tcp(config, &[], metrics).map(|(workers, _)| workers)
}

/// Starts all workers. `tcp` is where somebody listens who gives TCP connections for media to the [`IceTcp`].
pub fn start_with_tcp(
    config: &Config,
    tcp: &[SocketAddr],
    metrics: Arc<Metrics>,
) -> Result<(Vec<Worker>, IceTcp), StartError> {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let workers = if config.workers == 0 { cores() } else { config.workers };
    let certificate = Certificate::generate()?;
    // All ports first: a server with half of its ports is no use.
    let mut sockets = Vec::with_capacity(workers);
    for index in 0..workers {
        let out_of_range = || StartError::PortRange { base: config.udp_port_base, workers };
        let offset = u16::try_from(index).map_err(|_| out_of_range())?;
        // Port 0 asks the system for a free one, for each worker.
        let port = match config.udp_port_base {
            0 => 0,
            base => base.checked_add(offset).ok_or_else(out_of_range)?,
        };
        let socket = UdpBatch::bind(port).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::PortInUse { port },
            _ => StartError::Socket { port, source },
        })?;
        sockets.push(socket);
    }
    let mut parts = Vec::with_capacity(workers);
    for socket in sockets {
        let poll = mio::Poll::new().map_err(StartError::Thread)?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER).map_err(StartError::Thread)?);
        let (door, newcomers) = Door::new(waker.clone());
        parts.push((socket, poll, waker, door, newcomers));
    }
    let ice_tcp = IceTcp::new(parts.iter().map(|(_, _, _, door, _)| door.clone()).collect(), &metrics);
    let wakers: Vec<_> = parts.iter().map(|(_, _, waker, _, _)| waker.clone()).collect();
    let started: Result<Vec<_>, _> = parts
        .into_iter()
        .zip(lanes::between(&wakers))
        .enumerate()
        .map(|(index, ((socket, poll, waker, _, newcomers), lanes))| {
            let intake = (newcomers, ice_tcp.clone(), lanes);
            MediaWorker::start(index, (poll, waker), socket, intake, &certificate, (config, tcp), metrics.clone())
        })
        .collect();
    Ok((started?, ice_tcp))
}

struct MediaWorker {
    index: usize,
    poll: mio::Poll,
    events: mio::Events,
    socket: UdpBatch,
    tcp: TcpConnections,
    newcomers: mpsc::Receiver<Newcomer>,
    ice_tcp: IceTcp,
    lanes: Lanes,
    addresses: Addresses,
    commands: mpsc::Receiver<Command>,
    /// There may be more to read than the last tick took.
    more: bool,
    outbox: Outbox,
    sfu: Sfu,
    publisher: Publisher,
    socket_errors: u64,
}

impl MediaWorker {
    fn start(
        index: usize,
        (poll, waker): (mio::Poll, Arc<mio::Waker>),
        mut socket: UdpBatch,
        (newcomers, ice_tcp, lanes): (mpsc::Receiver<Newcomer>, IceTcp, Lanes),
        certificate: &Certificate,
        (config, tcp): (&Config, &[SocketAddr]),
        metrics: Arc<Metrics>,
    ) -> Result<Worker, StartError> {
        let port = socket.local_port().map_err(|source| StartError::Socket { port: 0, source })?;
        poll.registry()
            .register(socket.source(), SOCKET, mio::Interest::READABLE)
            .map_err(|source| StartError::Socket { port, source })?;
        let addresses =
            Addresses::new(&config.advertise_ips, port, socket.is_ipv6()).map_err(StartError::Interfaces)?;
        if addresses.udp().is_empty() {
            return Err(StartError::NoAddress);
        }
        let addresses = addresses.with_tcp(tcp, &config.tcp_advertise_ports);
        let candidates = addresses.udp().len() + addresses.tcp().len();
        tracing::info!(worker = index, port, candidates, "media worker listens");
        let registry = poll.registry().try_clone().map_err(StartError::Thread)?;
        let (command_tx, commands) = mpsc::channel(COMMANDS_MAX);
        let (event_tx, event_rx) = mpsc::channel(EVENTS_MAX);
        let handle = WorkerHandle::new(command_tx, waker, addresses.udp());
        let mut sfu = Sfu::with_tcp(certificate.clone(), addresses.udp(), addresses.tcp());
        sfu.set_congestion_control(config.congestion_control);
        let worker = Self {
            index,
            poll,
            events: mio::Events::with_capacity(EVENTS_PER_TICK_MAX),
            socket,
            tcp: TcpConnections::new(Instant::now(), registry, FIRST_CONNECTION),
            newcomers,
            ice_tcp,
            lanes,
            sfu,
            addresses,
            commands,
            more: false,
            outbox: Outbox::new(event_tx),
            publisher: Publisher::new(Instant::now(), index, metrics),
            socket_errors: 0,
        };
        thread::Builder::new()
            .name(format!("media-{index}"))
            .spawn(move || worker.run())
            .map_err(StartError::Thread)?;
        Ok((handle, event_rx))
    }

    fn run(mut self) {
        while !self.commands.is_closed() {
            let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.tick())) else { continue };
            // One room's fault must not take the others down.
            if !self.sfu.quarantine() {
                tracing::error!(worker = self.index, "media worker failed outside of any room and stops");
                resume_unwind(panic);
            }
            tracing::error!(worker = self.index, "media worker failed in a room, which was closed");
        }
        self.publisher.publish(self.sfu.stats());
    }

    fn tick(&mut self) {
        self.wait();
        let now = Instant::now();
        self.read_commands(now);
        self.read_datagrams(now);
        self.read_connections(now);
        self.read_lanes(now);
        self.sfu.handle_timeout(now);
        // First, so that the others work while this one sends.
        self.send_by_lanes();
        self.send_datagrams();
        let flushed = Instant::now();
        self.send_events();
        self.publisher.tcp_connections = self.tcp.len();
        self.publisher.handle_tick(now, flushed, Instant::now(), self.sfu.stats());
    }

    fn wait(&mut self) {
        let now = Instant::now();
        let mut until = self.publisher.poll_timeout();
        if let Some(due) = self.sfu.poll_timeout() {
            until = until.min(due);
        }
        if let Some(due) = self.tcp.poll_timeout() {
            until = until.min(due);
        }
        if self.outbox.is_waiting() {
            until = until.min(now + OUTBOX_RETRY);
        }
        let timeout =
            if self.more || self.tcp.has_more() { Duration::ZERO } else { until.saturating_duration_since(now) };
        // Interrupted by a signal, or nothing that we could do about it: go on with what is there.
        let _ = self.poll.poll(&mut self.events, Some(timeout));
        self.more = false;
    }

    fn read_commands(&mut self, now: Instant) {
        for _ in 0..COMMANDS_PER_TICK_MAX {
            match self.commands.try_recv() {
                Ok(command) => self.sfu.handle_command(now, command),
                Err(_) => return,
            }
        }
        self.more = true;
    }

    fn read_datagrams(&mut self, now: Instant) {
        let Self { socket, sfu, addresses, .. } = self;
        for _ in 0..READS_PER_TICK_MAX {
            let read = socket.receive(|source, destination, datagram| {
                if let Some(candidate) = addresses.candidate(destination) {
                    sfu.handle_datagram(now, Path::udp(candidate, source), datagram);
                }
            });
            match read {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    self.socket_errors += 1;
                    if self.socket_errors % SOCKET_ERRORS_LOGGED_EVERY == 1 {
                        tracing::warn!(worker = self.index, %error, "reading media failed");
                    }
                    return;
                }
            }
        }
        self.more = true;
    }

    fn read_connections(&mut self, now: Instant) {
        let Self { tcp, sfu, .. } = self;
        self.events.iter().for_each(|event| tcp.handle_event(event));
        tcp.read(now, |path, frame| sfu.handle_datagram(now, path, frame));
        tcp.sweep(now, |path| sfu.is_bound(path));
        for _ in 0..NEWCOMERS_PER_TICK_MAX {
            let Ok(newcomer) = self.newcomers.try_recv() else { return };
            self.take_newcomer(now, newcomer);
        }
        self.more = true;
    }

    fn take_newcomer(&mut self, now: Instant, newcomer: Newcomer) {
        let Self { tcp, sfu, addresses, ice_tcp, .. } = self;
        if !newcomer.request().is_some_and(|request| sfu.knows_ufrag(request.ufrag)) {
            return ice_tcp.pass_on(self.index, newcomer);
        }
        if tcp.is_full() {
            return ice_tcp.refuse_full();
        }
        if let Some(candidate) = addresses.tcp_candidate(newcomer.local) {
            tcp.adopt(now, newcomer, candidate, |path, frame| sfu.handle_datagram(now, path, frame));
        }
    }

    fn read_lanes(&mut self, now: Instant) {
        let Self { lanes, sfu, .. } = self;
        self.more |= lanes.receive(|relayed| sfu.handle_relay(now, relayed));
    }

    fn send_by_lanes(&mut self) {
        while let Some((worker, relayed)) = self.sfu.poll_relay() {
            self.lanes.send(worker, relayed);
        }
        self.lanes.wake();
        self.publisher.lane_dropped += std::mem::take(&mut self.lanes.dropped);
    }

    fn send_datagrams(&mut self) {
        let Self { socket, tcp, sfu, addresses, .. } = self;
        let transmits = sfu.transmits();
        for run in transmits.runs(socket.run_max(), DATAGRAM_BYTES_MAX) {
            match run.path.protocol {
                Protocol::Udp => self.publisher.dropped += socket.send(addresses, &run),
                Protocol::Tcp => tcp.send(run.path, run.bytes),
            }
        }
        transmits.clear();
        tcp.flush();
        self.publisher.tcp_dropped += std::mem::take(&mut tcp.dropped);
    }

    fn send_events(&mut self) {
        self.outbox.flush();
        while let Some(event) = self.sfu.poll_event() {
            self.outbox.push(event);
        }
        self.publisher.dropped += std::mem::take(&mut self.outbox.dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(udp_port_base: u16, workers: usize) -> Config {
        Config { workers, udp_port_base, advertise_ips: vec!["127.0.0.1".parse().unwrap()], ..Config::default() }
    }

    #[test]
    fn a_port_in_use_is_named_with_what_to_do() {
        let taken = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = start(&config(port, 1), Arc::new(Metrics::new())).err().unwrap().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("rtc.udp_port_base"), "{error}");
        let error = start(&config(65_535, 2), Arc::new(Metrics::new())).err().unwrap();
        assert!(matches!(error, StartError::PortRange { .. }));
    }

    #[tokio::test]
    async fn a_worker_answers_commands_and_stops_with_its_last_handle() {
        let mut workers = start(&config(0, 1), Arc::new(Metrics::new())).unwrap();
        let (handle, mut events) = workers.pop().unwrap();
        let (room, participant) = (crate::id::RoomSid::random(), crate::id::ParticipantSid::random());
        let join = Command::Join {
            room: room.clone(),
            participant: participant.clone(),
            connections: crate::sfu::Connections::One,
        };
        handle.send(join).await.unwrap();
        let offer = Command::Offer { room, participant, offer_id: 7, sdp: "nonsense".to_owned() };
        handle.send(offer).await.unwrap();
        let event = events.recv().await.unwrap();
        assert!(matches!(event.kind, crate::sfu::EventKind::OfferRejected { offer_id: 7, .. }));
        drop(handle);
        assert!(events.recv().await.is_none());
    }
}
