//! A media worker by its real thread, socket and clock: a str0m client on loopback hears an injected voice.

use std::{
    net::UdpSocket,
    sync::Arc,
    time::{Duration, Instant},
};

use str0m::{
    Candidate, Event as RtcEvent, Input, Output, Rtc,
    change::SdpAnswer,
    media::{Direction, MediaKind as RtcKind},
    net::{Protocol, Receive},
};
use tokio::sync::mpsc;
use viva::{
    id::{ParticipantSid, RoomSid, TrackSid},
    media::OpusFrame,
    sfu::{Command, Connections, Event, EventKind},
    telemetry::Metrics,
    worker::{self, Config, WorkerHandle},
};

/// Long enough for a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(20);

struct Client {
    rtc: Rtc,
    socket: UdpSocket,
    connected: bool,
    packets: Vec<Vec<u8>>,
}

impl Client {
    fn run(&mut self, until: impl Fn(&Self) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        let mut buffer = [0; 2_000];
        while !until(self) {
            assert!(Instant::now() < give_up, "out of patience");
            let deadline = loop {
                match self.rtc.poll_output().unwrap() {
                    Output::Timeout(at) => break at,
                    Output::Transmit(transmit) => {
                        self.socket.send_to(&transmit.contents, transmit.destination).unwrap();
                    }
                    Output::Event(RtcEvent::Connected) => self.connected = true,
                    Output::Event(RtcEvent::RtpPacket(packet)) => self.packets.push(packet.payload.to_vec()),
                    Output::Event(_) => {}
                }
            };
            let wait = deadline.saturating_duration_since(Instant::now());
            let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(20));
            self.socket.set_read_timeout(Some(wait)).unwrap();
            let destination = self.socket.local_addr().unwrap();
            match self.socket.recv_from(&mut buffer) {
                Ok((length, source)) => {
                    let receive = Receive::new(Protocol::Udp, source, destination, &buffer[..length]).unwrap();
                    self.rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
                }
                Err(_) => self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap(),
            }
        }
    }
}

fn send(worker: &WorkerHandle, command: Command) {
    assert!(worker.try_send(command).unwrap());
}

fn answer(events: &mut mpsc::Receiver<Event>) -> (String, Vec<(String, TrackSid)>) {
    loop {
        match events.blocking_recv().expect("the worker lives").kind {
            EventKind::Answer { sdp, tracks, .. } => return (sdp, tracks),
            EventKind::OfferRejected { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    }
}

#[test]
fn a_client_on_loopback_connects_and_hears_an_injected_voice() {
    let metrics = Arc::new(Metrics::new());
    let config = Config { workers: 1, udp_port_base: 0, ..Config::default() };
    let (worker, mut events) = worker::start(&config, metrics.clone()).unwrap().pop().unwrap();
    let (room, person, agent) = (RoomSid::random(), ParticipantSid::random(), ParticipantSid::random());
    let voice = TrackSid::random();
    let join = |participant: &ParticipantSid, connections| Command::Join {
        room: room.clone(),
        participant: participant.clone(),
        connections,
    };
    send(&worker, join(&agent, Connections::None));
    send(&worker, Command::PublishInjected { room: room.clone(), participant: agent, track: voice.clone() });
    send(&worker, join(&person, Connections::One));
    let (subscriber, track) = (person.clone(), voice.clone());
    send(&worker, Command::Subscribe { room: room.clone(), subscriber, track, subscribed: true });

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut rtc = Rtc::builder().set_rtp_mode(true).build(Instant::now());
    rtc.add_local_candidate(Candidate::host(socket.local_addr().unwrap(), "udp").unwrap());
    let mut api = rtc.sdp_api();
    api.add_media(RtcKind::Audio, Direction::RecvOnly, None, None, None);
    let (offer, pending) = api.apply().unwrap();
    let (room_of_offer, participant) = (room.clone(), person.clone());
    send(&worker, Command::Offer { room: room_of_offer, participant, offer_id: 1, sdp: offer.to_sdp_string() });
    let (sdp, tracks) = answer(&mut events);
    assert_eq!(tracks.iter().map(|(_, track)| track).collect::<Vec<_>>(), [&voice]);
    assert!(sdp.contains("a=candidate:") && sdp.contains("127.0.0.1"), "{sdp}");
    rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&sdp).unwrap()).unwrap();
    let mut client = Client { rtc, socket, connected: false, packets: Vec::new() };
    client.run(|client| client.connected);

    for n in 0..50u8 {
        let frame = OpusFrame { payload: Box::new([n, 1, 2]), starts_talk_spurt: n == 0, report: None };
        send(&worker, Command::Inject { room: room.clone(), track: voice.clone(), frame });
        let heard = usize::from(n) + 1;
        client.run(|client| client.packets.len() >= heard);
    }
    assert!(client.packets.iter().enumerate().all(|(n, payload)| *payload == [n as u8, 1, 2]));

    // Counters are published once a second.
    let give_up = Instant::now() + PATIENCE;
    while !metrics.render().contains("viva_sfu_injected_packets_total 50") {
        assert!(Instant::now() < give_up, "{}", metrics.render());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(metrics.render().contains("viva_sfu_packets_total{direction=\"out\",kind=\"audio\"} 50"));
    // Each frame was waited for, so each had a wake-up of its own.
    assert_eq!(metrics.sfu_forward_duration.get_sample_count(), 50);
    assert!(metrics.sfu_forward_duration.get_sample_sum() < 50.0);
}
