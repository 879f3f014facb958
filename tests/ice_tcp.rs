//! ICE-TCP by real sockets and threads: one listener for several workers, a client that has no UDP at all, and what
//! becomes of connections that are nobody's.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use str0m::{
    Candidate, Event as RtcEvent, Input, Output, Rtc,
    change::SdpAnswer,
    media::{Direction, MediaKind as RtcKind},
    net::{Protocol, Receive, TcpType},
};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc};
use tokio_util::sync::CancellationToken;
use viva::{
    front::{self, Crowd, Front, handler},
    id::{ParticipantSid, RoomSid, TrackSid},
    media::OpusFrame,
    sfu::{Command, Connections, Event, EventKind},
    telemetry::Metrics,
    worker::{self, Config, IceTcp, WorkerHandle},
};

/// Long enough for a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(20);

/// Workers behind one TCP port.
struct Server {
    workers: Vec<(WorkerHandle, mpsc::Receiver<Event>)>,
    address: SocketAddr,
    metrics: Arc<Metrics>,
    _runtime: Runtime,
}

fn server(workers: usize) -> Server {
    server_for(workers, Crowd::default())
}

fn server_for(workers: usize, crowd: Crowd) -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let metrics = Arc::new(Metrics::new());
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config { workers, udp_port_base: 0, advertise_ips: vec![[127, 0, 0, 1].into()], ..Config::default() };
    let (workers, ice_tcp) = worker::start_with_tcp(&config, &[address], metrics.clone()).unwrap();
    let take = move |stream: front::Stream, ice_tcp: IceTcp| async move {
        let (stream, head, admission) = stream.into_plain().expect("no TLS here");
        ice_tcp.admit(stream, head, Box::new(admission)).await;
    };
    let ice = Some(handler(move |stream| take(stream, ice_tcp.clone())));
    runtime.spawn(front::serve(listener, Front { crowd, ice, ..Front::default() }, CancellationToken::new()));
    Server { workers, address, metrics, _runtime: runtime }
}

impl Server {
    fn until(&self, line: &str) {
        let give_up = Instant::now() + PATIENCE;
        while !self.metrics.render().contains(line) {
            assert!(Instant::now() < give_up, "no `{line}` in\n{}", self.metrics.render());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// A client with nothing but a TCP connection.
struct Client {
    rtc: Rtc,
    socket: TcpStream,
    read: Vec<u8>,
    connected: bool,
    packets: Vec<Vec<u8>>,
}

impl Client {
    fn new(server: SocketAddr) -> Self {
        let socket = TcpStream::connect(server).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(Instant::now());
        let active = Candidate::builder().tcp().host(socket.local_addr().unwrap()).tcptype(TcpType::Active).build();
        rtc.add_local_candidate(active.unwrap());
        Self { rtc, socket, read: Vec::new(), connected: false, packets: Vec::new() }
    }

    fn run(&mut self, until: impl Fn(&Self) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        while !until(self) {
            assert!(Instant::now() < give_up, "out of patience");
            let deadline = self.drain();
            let wait = deadline.saturating_duration_since(Instant::now());
            let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(20));
            self.socket.set_read_timeout(Some(wait)).unwrap();
            let mut buffer = [0; 4_096];
            match self.socket.read(&mut buffer) {
                Ok(0) => panic!("the server closed the connection"),
                Ok(length) => self.read.extend(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("{error}"),
            }
            self.handle_frames();
            self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
        }
    }

    fn drain(&mut self) -> Instant {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => return at,
                Output::Transmit(transmit) => {
                    assert_eq!(transmit.proto, Protocol::Tcp);
                    let length = (transmit.contents.len() as u16).to_be_bytes();
                    self.socket.write_all(&[&length, &transmit.contents[..]].concat()).unwrap();
                }
                Output::Event(RtcEvent::Connected) => self.connected = true,
                Output::Event(RtcEvent::RtpPacket(packet)) => self.packets.push(packet.payload.to_vec()),
                Output::Event(_) => {}
            }
        }
    }

    fn handle_frames(&mut self) {
        let (source, destination) = (self.socket.peer_addr().unwrap(), self.socket.local_addr().unwrap());
        while let Some((length, rest)) = self.read.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some(frame) = rest.get(..length) else { return };
            let receive = Receive::new(Protocol::Tcp, source, destination, frame).unwrap();
            self.rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
            self.read.drain(..2 + length);
            self.drain();
        }
    }
}

fn send(worker: &WorkerHandle, command: Command) {
    assert!(worker.try_send(command).unwrap());
}

fn answer(events: &mut mpsc::Receiver<Event>) -> String {
    loop {
        match events.blocking_recv().expect("the worker lives").kind {
            EventKind::Answer { sdp, .. } => return sdp,
            EventKind::OfferRejected { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    }
}

#[test]
fn a_client_without_udp_reaches_its_worker_by_the_port_of_all_and_hears_the_voice() {
    let mut server = server(3);
    // Each worker in turn: whichever is asked first, the right one gets the connection.
    for index in 0..3 {
        let (worker, events) = &mut server.workers[index];
        let (room, person, agent) = (RoomSid::random(), ParticipantSid::random(), ParticipantSid::random());
        let voice = TrackSid::random();
        let join = |participant: &ParticipantSid, connections| Command::Join {
            room: room.clone(),
            participant: participant.clone(),
            connections,
        };
        send(worker, join(&agent, Connections::None));
        send(worker, Command::PublishInjected { room: room.clone(), participant: agent, track: voice.clone() });
        send(worker, join(&person, Connections::One));
        let (subscriber, track) = (person.clone(), voice.clone());
        send(worker, Command::Subscribe { room: room.clone(), subscriber, track, subscribed: true });

        let mut client = Client::new(server.address);
        let mut api = client.rtc.sdp_api();
        api.add_media(RtcKind::Audio, Direction::RecvOnly, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        let (of, participant) = (room.clone(), person.clone());
        send(worker, Command::Offer { room: of, participant, offer_id: 1, sdp: offer.to_sdp_string() });
        let sdp = answer(events);
        let passive = format!("127.0.0.1 {} typ host tcptype passive", server.address.port());
        assert!(sdp.contains(&passive), "{sdp}");
        client.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&sdp).unwrap()).unwrap();
        client.run(|client| client.connected);

        for n in 0..50u8 {
            let frame = OpusFrame { payload: Box::new([n, 1, 2]), starts_talk_spurt: n == 0, report: None };
            send(worker, Command::Inject { room: room.clone(), track: voice.clone(), frame });
            let heard = usize::from(n) + 1;
            client.run(|client| client.packets.len() >= heard);
        }
        assert!(client.packets.iter().enumerate().all(|(n, payload)| *payload == [n as u8, 1, 2]));

        // With the participant goes its connection, within seconds.
        send(worker, Command::Leave { room, participant: person });
        client.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        client.socket.read_to_end(&mut rest).expect("closed in good order");
    }
    server.until("viva_ice_connections_total{protocol=\"tcp\"} 3");
    server.until("viva_ice_tcp_connections 0");
    assert!(server.metrics.render().contains("viva_ice_connections_total{protocol=\"udp\"} 0"));
}

#[test]
fn a_connection_that_knows_no_user_name_of_ours_is_closed_and_counted() {
    let server = server(2);
    let framed = request("ours");
    // An unknown name; then a frame that only begins like a request.
    let mut nonsense = framed.clone();
    nonsense[22..].fill(0xff);
    for bytes in [&framed, &nonsense] {
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.write_all(bytes).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(socket.read(&mut [0; 10]), Ok(0)), "closed without a word");
    }
    server.until("viva_ice_tcp_refused_total{reason=\"unknown\"} 2");
}

/// A first frame: a STUN request with this user name of ours.
fn request(ufrag: &str) -> Vec<u8> {
    let name = format!("{ufrag}:them");
    let padded = name.len().next_multiple_of(4);
    let mut request = vec![0, 1, 0, 4 + padded as u8, 0x21, 0x12, 0xa4, 0x42];
    request.extend([9; 12]);
    request.extend([0, 6, 0, name.len() as u8]);
    request.extend(name.as_bytes());
    request.resize(24 + padded, 0);
    [&(request.len() as u16).to_be_bytes()[..], &request].concat()
}

#[test]
fn a_connection_for_media_counts_for_as_long_as_it_is_open() {
    let mut server = server_for(1, Crowd::new(1, Some));
    let (worker, events) = &mut server.workers[0];
    let (room, person) = (RoomSid::random(), ParticipantSid::random());
    let (of, participant) = (room.clone(), person.clone());
    send(worker, Command::Join { room: of, participant, connections: Connections::One });
    let mut client = Client::new(server.address);
    let mut api = client.rtc.sdp_api();
    api.add_media(RtcKind::Audio, Direction::RecvOnly, None, None, None);
    let (offer, pending) = api.apply().unwrap();
    let (of, participant) = (room.clone(), person.clone());
    send(worker, Command::Offer { room: of, participant, offer_id: 1, sdp: offer.to_sdp_string() });
    let sdp = answer(events);
    client.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&sdp).unwrap()).unwrap();
    client.run(|client| client.connected);

    // It holds the one place, though it is the worker's now: a second is closed before anybody looks at it.
    let knock = || {
        let mut socket = TcpStream::connect(server.address).unwrap();
        let _ = socket.write_all(&request("ours"));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(socket.read(&mut [0; 10]), Ok(0) | Err(_)), "closed without a word");
    };
    let looked_at = || !server.metrics.render().contains("viva_ice_tcp_refused_total{reason=\"unknown\"} 0");
    knock();
    assert!(!looked_at());

    send(worker, Command::Leave { room, participant: person });
    let give_up = Instant::now() + PATIENCE;
    while !looked_at() {
        assert!(Instant::now() < give_up, "the place is not free again");
        knock();
    }
}
