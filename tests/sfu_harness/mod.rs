//! str0m clients and a media core on a simulated network, in virtual time. Every run of a seed is the same.
#![allow(dead_code, reason = "each test file uses its part")]

mod wire;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use str0m::{
    Candidate, Event as RtcEvent, Input, Output, Rtc,
    change::{SdpAnswer, SdpPendingOffer},
    channel::{ChannelConfig, ChannelId, Reliability},
    format::Codec,
    media::{Direction, KeyframeRequestKind, MediaKind as RtcKind, Mid, Rid, Simulcast, SimulcastLayer},
    net::{Protocol as RtcProtocol, Receive, TcpType},
    rtp::{Extension, ExtensionValues, RtpWrite},
};
use viva::{
    id::{ParticipantSid, RoomSid, TrackSid},
    media::TapWriter,
    sfu::{
        Certificate, Command, Connections, DataChannel, Event, EventKind, MediaKind, Path, PendingTrack, Protocol, Sfu,
        Transmit, View,
    },
};

#[allow(unused_imports, reason = "each test file uses its part")]
pub use wire::{DEPENDENCY_URI, Dependency, Link, Received, Spent, vp8};
use wire::{InFlight, To};

pub const SFU_ADDRESS: &str = "192.0.2.1:7882";
pub const SFU_TCP_ADDRESS: &str = "192.0.2.1:7881";

struct Uplink {
    mid: Mid,
    kind: MediaKind,
    rid: Option<Rid>,
    seq: u64,
}

pub struct Client {
    pub rtc: Rtc,
    pub sid: ParticipantSid,
    pub address: SocketAddr,
    pub received: Vec<Received>,
    pub data: Vec<(DataChannel, Vec<u8>)>,
    /// Packets of data tracks.
    pub track_data: Vec<Vec<u8>>,
    pub connected: bool,
    /// Keyframes that the server asked us for.
    pub keyframe_requests: Vec<(Mid, Instant)>,
    /// What the last answer said that sections carry.
    pub tracks: HashMap<Mid, TrackSid>,
    pub answers: Vec<String>,
    /// It subscribes to every track, as the control plane does for nearly all.
    takes_all: bool,
    channels: HashMap<ChannelId, DataChannel>,
    track_channel: Option<ChannelId>,
    downlinks: Vec<(Mid, MediaKind)>,
    uplinks: HashMap<TrackSid, Vec<Uplink>>,
    pending: Option<SdpPendingOffer>,
    offer_id: u32,
    wants_offer: bool,
    todo: Vec<Change>,
    deadline: Instant,
    /// The codec of its next video packet.
    pub sends: Codec,
}

/// What the next offer brings.
enum Change {
    Downlink(MediaKind),
    Uplink { kind: MediaKind, track: TrackSid, cid: String, rids: Vec<String> },
    Inactive(Mid),
    RestartIce,
    Channels,
}

pub struct Sim {
    pub now: Instant,
    pub start: Instant,
    pub sfu: Sfu,
    pub room: RoomSid,
    pub clients: Vec<Client>,
    pub events: Vec<Event>,
    /// Part of all datagrams that the network loses.
    pub loss: f64,
    pub delay: Duration,
    /// Added to single datagrams, at random up to this.
    pub jitter: Duration,
    /// Datagrams that arrive within this are handed in together.
    pub batch: Duration,
    /// What the network towards a client carries, bits per second; what waits longer than [`QUEUE`] is dropped.
    pub links: HashMap<usize, Link>,
    pub negotiations: usize,
    /// Nothing of this protocol gets through.
    pub blocked: Option<Protocol>,
    /// Datagrams that reached a client, `[udp, tcp]`.
    pub delivered: [usize; 2],
    /// The client with this address reaches nobody, and is reached by nobody.
    cut: Option<IpAddr>,
    /// Datagrams of the core to the one who is cut off, and when it said that somebody is lost.
    pub sent_to_nobody: usize,
    pub lost_at: Option<Instant>,
    tcp: bool,
    /// The largest data message that clients who join from now on take.
    pub message_bytes_max: u32,
    /// Codecs that clients who join from now on know; they send in the first.
    pub codecs: Vec<Codec>,
    /// All tracks so far, with their owners.
    tracks: Vec<(ParticipantSid, TrackSid)>,
    rng: StdRng,
    wire: BinaryHeap<Reverse<InFlight>>,
    order: u64,
}

impl Sim {
    pub fn new(seed: u64) -> Self {
        Self::on(seed, false)
    }

    /// A core that takes TCP too, and clients that open connections to it.
    pub fn with_tcp(seed: u64) -> Self {
        Self::on(seed, true)
    }

    fn on(seed: u64, tcp: bool) -> Self {
        let now = Instant::now();
        let certificate = Certificate::generate().unwrap();
        let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let tcp_addresses: Vec<_> = tcp.then(|| address(SFU_TCP_ADDRESS)).into_iter().collect();
        Self {
            now,
            start: now,
            sfu: Sfu::with_tcp(certificate, &[address(SFU_ADDRESS)], &tcp_addresses),
            room: RoomSid::from("RM_test"),
            clients: Vec::new(),
            events: Vec::new(),
            loss: 0.0,
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            batch: Duration::ZERO,
            links: HashMap::new(),
            negotiations: 0,
            blocked: None,
            delivered: [0; 2],
            cut: None,
            sent_to_nobody: 0,
            lost_at: None,
            tcp,
            message_bytes_max: 65_536,
            codecs: vec![Codec::Vp8],
            tracks: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            wire: BinaryHeap::new(),
            order: 0,
        }
    }

    /// Joins with the offer that LiveKit's clients make: three sections of each kind and the data channels.
    pub fn join(&mut self) -> usize {
        self.join_with(true, 3)
    }

    pub fn join_with(&mut self, takes_all: bool, sections: usize) -> usize {
        self.join_by(Connections::One, takes_all, sections)
    }

    pub fn join_by(&mut self, connections: Connections, takes_all: bool, sections: usize) -> usize {
        let index = self.clients.len();
        let sid = ParticipantSid::from(format!("PA_{index}"));
        let command = Command::Join { room: self.room.clone(), participant: sid.clone(), connections };
        self.sfu.handle_command(self.now, command);
        let (tcp, codecs) = (self.tcp, &self.codecs[..]);
        let mut client = Client::new(self.now, sid, index, sections, self.message_bytes_max, (tcp, codecs));
        client.takes_all = takes_all;
        self.clients.push(client);
        for (owner, track) in self.tracks.clone() {
            self.subscribe_if_wanted(index, &owner, &track);
        }
        self.offer(index);
        index
    }

    /// A track is there: whoever takes everything gets it.
    fn add_track(&mut self, owner: &ParticipantSid, track: &TrackSid) {
        self.tracks.push((owner.clone(), track.clone()));
        for index in 0..self.clients.len() {
            self.subscribe_if_wanted(index, owner, track);
        }
    }

    fn subscribe_if_wanted(&mut self, client: usize, owner: &ParticipantSid, track: &TrackSid) {
        let client = &self.clients[client];
        if client.takes_all && client.sid != *owner {
            let (room, subscriber) = (self.room.clone(), client.sid.clone());
            let command = Command::Subscribe { room, subscriber, track: track.clone(), subscribed: true };
            self.sfu.handle_command(self.now, command);
        }
    }

    pub fn join_agent(&mut self) -> ParticipantSid {
        let sid = ParticipantSid::from("PA_agent");
        let command =
            Command::Join { room: self.room.clone(), participant: sid.clone(), connections: Connections::None };
        self.sfu.handle_command(self.now, command);
        sid
    }

    pub fn command(&mut self, command: Command) {
        let injected = match &command {
            Command::PublishInjected { participant, track, .. } => Some((participant.clone(), track.clone())),
            _ => None,
        };
        self.sfu.handle_command(self.now, command);
        if let Some((owner, track)) = injected {
            self.add_track(&owner, &track);
        }
        self.settle();
    }

    pub fn open_tap(&mut self, client: usize, track: &TrackSid, id: u64, tap: TapWriter) {
        let participant = self.clients[client].sid.clone();
        self.command(Command::OpenTap { room: self.room.clone(), participant, track: track.clone(), id, tap });
    }

    pub fn leave(&mut self, client: usize) {
        let participant = self.clients[client].sid.clone();
        self.command(Command::Leave { room: self.room.clone(), participant });
    }

    /// Announces a track and offers a section for it.
    pub fn publish(&mut self, client: usize, kind: MediaKind, name: &str) -> TrackSid {
        let (track, cid) = (TrackSid::from(format!("TR_{name}")), format!("cid-{name}"));
        self.announce(client, kind, &track, &cid);
        self.add_uplink(client, kind, &track, &cid, &[]);
        self.offer(client);
        track
    }

    pub fn announce(&mut self, client: usize, kind: MediaKind, track: &TrackSid, cid: &str) {
        let track = PendingTrack {
            track: track.clone(),
            kind,
            cids: vec![cid.to_owned()],
            codec: String::new(),
            backup: false,
            screen: false,
        };
        let participant = self.clients[client].sid.clone();
        self.command(Command::Publish { room: self.room.clone(), participant, track });
    }

    /// Adds a section that sends, to be offered next.
    pub fn add_uplink(&mut self, client: usize, kind: MediaKind, track: &TrackSid, cid: &str, rids: &[&str]) {
        self.clients[client].add_uplink(kind, track, cid, rids);
    }

    pub fn offer(&mut self, client: usize) {
        self.clients[client].wants_offer = true;
        self.settle();
    }

    /// Stops sending a track: its section is offered inactive.
    pub fn stop(&mut self, client: usize, track: &TrackSid) {
        let client_ref = &mut self.clients[client];
        let mid = client_ref.uplinks[track][0].mid;
        client_ref.uplinks.remove(track);
        client_ref.inactive(mid);
        self.offer(client);
    }

    pub fn mute(&mut self, client: usize, track: &TrackSid, muted: bool) {
        let participant = self.clients[client].sid.clone();
        let (room, track) = (self.room.clone(), track.clone());
        self.command(Command::Mute { room, participant, track, muted });
    }

    /// Sends one packet of a published track.
    pub fn send(&mut self, client: usize, track: &TrackSid, time: u32, marker: bool, payload: &[u8]) {
        self.send_layer(client, track, 0, time, marker, payload, None);
    }

    pub fn send_audio(&mut self, client: usize, track: &TrackSid, time: u32, payload: &[u8], dbov: i8) {
        self.send_layer(client, track, 0, time, false, payload, Some(dbov));
    }

    #[allow(clippy::too_many_arguments)]
    pub fn send_layer(
        &mut self,
        client: usize,
        track: &TrackSid,
        layer: usize,
        time: u32,
        marker: bool,
        payload: &[u8],
        dbov: Option<i8>,
    ) {
        let now = self.now;
        let ext = ExtensionValues { audio_level: dbov, voice_activity: dbov.map(|_| true), ..Default::default() };
        self.clients[client].write(now, track, layer, time, marker, payload, ext);
        self.drain(client);
    }

    /// Sends a video packet of a layer with a dependency descriptor.
    pub fn send_with_dependency(&mut self, client: usize, track: &TrackSid, time: u32, payload: &[u8], bytes: &[u8]) {
        let now = self.now;
        let mut ext = ExtensionValues::default();
        ext.user_values.set(Dependency(bytes.to_vec()));
        self.clients[client].write(now, track, 0, time, false, payload, ext);
        self.drain(client);
    }

    /// How much of a track a client wants to see.
    pub fn view(&mut self, client: usize, track: &TrackSid, view: View) {
        let (room, subscriber) = (self.room.clone(), self.clients[client].sid.clone());
        self.command(Command::View { room, subscriber, track: track.clone(), view });
    }

    pub fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        self.run_until_time(until);
    }

    pub fn run_ms(&mut self, ms: u64) {
        self.run_for(Duration::from_millis(ms));
    }

    /// Runs until all clients are connected and all have settled.
    pub fn connect(&mut self) {
        for _ in 0..500 {
            if self.clients.iter().all(|client| client.connected) {
                self.run_ms(300);
                return;
            }
            self.run_ms(20);
        }
        panic!("not connected");
    }

    fn run_until_time(&mut self, until: Instant) {
        self.settle();
        loop {
            let wire = self.wire.peek().map(|Reverse(flying)| flying.at + self.batch);
            let clients = self.clients.iter().map(|client| client.deadline).min();
            let next = [wire, self.sfu.poll_timeout(), clients].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            self.deliver();
            for index in 0..self.clients.len() {
                if self.clients[index].deadline <= self.now {
                    let now = self.now;
                    let _ = self.clients[index].rtc.handle_input(Input::Timeout(now));
                    self.drain(index);
                }
            }
            self.settle();
        }
        self.now = until;
    }

    fn deliver(&mut self) {
        while self.wire.peek().is_some_and(|Reverse(flying)| flying.at <= self.now) {
            let Some(Reverse(flying)) = self.wire.pop() else { break };
            match flying.to {
                To::Sfu => {
                    self.sfu.handle_datagram(self.now, flying.path, &flying.bytes);
                }
                To::Client(index) => {
                    self.delivered[flying.path.protocol.index()] += 1;
                    self.clients[index].receive(self.now, flying.path, &flying.bytes);
                    self.drain(index);
                }
            }
        }
    }

    /// Lets the core do what is due, and clients negotiate.
    pub fn settle(&mut self) {
        loop {
            self.sfu.handle_timeout(self.now);
            while let Some(transmit) = self.sfu.poll_transmit() {
                if let Some(index) = self.client_at(transmit.path) {
                    self.fly(transmit.path, To::Client(index), transmit.payload);
                }
            }
            let mut negotiated = false;
            while let Some(event) = self.sfu.poll_event() {
                negotiated |= self.handle_event(&event);
                self.events.push(event);
            }
            for index in 0..self.clients.len() {
                negotiated |= self.send_offer(index);
            }
            if !negotiated {
                return;
            }
        }
    }

    fn handle_event(&mut self, event: &Event) -> bool {
        let Some(index) = self.clients.iter().position(|client| client.sid == event.participant) else { return false };
        match &event.kind {
            EventKind::TrackLive { track, .. } => {
                self.add_track(&event.participant, track);
                true
            }
            EventKind::Answer { offer_id, sdp, tracks } => {
                self.clients[index].accept(*offer_id, sdp, tracks);
                self.drain(index);
                true
            }
            EventKind::MediaSectionsRequired { audios, videos } => {
                let client = &mut self.clients[index];
                client.add_downlinks(MediaKind::Audio, *audios as usize);
                client.add_downlinks(MediaKind::Video, *videos as usize);
                client.wants_offer = true;
                true
            }
            EventKind::OfferRejected { reason, .. } => panic!("offer rejected: {reason}"),
            EventKind::Disconnected => {
                self.lost_at.get_or_insert(self.now);
                false
            }
            _ => false,
        }
    }

    fn send_offer(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        if !client.wants_offer || client.pending.is_some() {
            return false;
        }
        client.wants_offer = false;
        let Some((offer_id, sdp)) = client.offer() else { return false };
        let participant = client.sid.clone();
        self.negotiations += 1;
        let command = Command::Offer { room: self.room.clone(), participant, offer_id, sdp };
        self.sfu.handle_command(self.now, command);
        self.drain(index);
        true
    }

    pub fn drain(&mut self, index: usize) {
        for (path, bytes) in self.clients[index].drain(self.now) {
            self.fly(path, To::Sfu, bytes);
        }
    }

    fn client_at(&self, path: Path) -> Option<usize> {
        self.clients.iter().position(|client| client.address.ip() == path.remote.ip())
    }

    fn fly(&mut self, path: Path, to: To, bytes: Vec<u8>) {
        if self.blocked == Some(path.protocol) {
            return;
        }
        if self.cut == Some(path.remote.ip()) {
            self.sent_to_nobody += usize::from(matches!(to, To::Client(_)));
            return;
        }
        if self.loss > 0.0 && self.rng.random_bool(self.loss) {
            return;
        }
        let jitter = self.jitter.as_micros() as u64;
        let jitter = if jitter > 0 { self.rng.random_range(0..jitter) } else { 0 };
        let at = self.now + self.delay + Duration::from_micros(jitter);
        let at = match (&to, self.links.get_mut(&client_index(&to))) {
            (To::Client(_), Some(link)) => match link.pass(self.now, bytes.len()) {
                Some(free) => at + (free - self.now),
                None => return,
            },
            _ => at,
        };
        self.order += 1;
        self.wire.push(Reverse(InFlight { at, order: self.order, path, to, bytes }));
    }

    pub fn cut(&mut self, client: IpAddr) {
        self.cut = Some(client);
    }

    pub fn heal(&mut self) {
        self.cut = None;
    }

    /// Bytes from an address that may be anybody's.
    pub fn attack(&mut self, source: SocketAddr, bytes: &[u8]) {
        self.sfu.handle_datagram(self.now, Path::udp(SFU_ADDRESS.parse().unwrap(), source), bytes);
    }

    /// Sends packets of one track at once and runs the core by the real clock, without a network between. Clients
    /// answer with their feedback as they would.
    pub fn burst(&mut self, client: usize, track: &TrackSid, packets: &[(u32, bool, Vec<u8>)]) -> Spent {
        let mut datagrams = Vec::new();
        for (time, marker, payload) in packets {
            let now = self.now;
            self.clients[client].write(now, track, 0, *time, *marker, payload, ExtensionValues::default());
            datagrams.extend(self.clients[client].drain(now));
        }
        let mut spent = Spent::default();
        let (transmits, media) = self.run_core(datagrams);
        (spent.media, spent.datagrams) = (media, transmits.len());
        let mut feedback = self.hand_out(transmits);
        self.now += Duration::from_millis(20);
        for index in 0..self.clients.len() {
            let now = self.now;
            let _ = self.clients[index].rtc.handle_input(Input::Timeout(now));
            feedback.extend(self.clients[index].drain(now));
        }
        let (transmits, took) = self.run_core(feedback);
        spent.feedback = took;
        self.hand_out(transmits);
        spent
    }

    fn run_core(&mut self, datagrams: Vec<(Path, Vec<u8>)>) -> (Vec<Transmit>, Duration) {
        let mut transmits = Vec::with_capacity(4_096);
        let started = Instant::now();
        for (path, bytes) in &datagrams {
            self.sfu.handle_datagram(self.now, *path, bytes);
        }
        self.sfu.handle_timeout(self.now);
        while let Some(transmit) = self.sfu.poll_transmit() {
            transmits.push(transmit);
        }
        (transmits, started.elapsed())
    }

    fn hand_out(&mut self, transmits: Vec<Transmit>) -> Vec<(Path, Vec<u8>)> {
        let mut answers = Vec::new();
        for transmit in transmits {
            let index = self.client_at(transmit.path).unwrap();
            let (now, client) = (self.now, &mut self.clients[index]);
            client.receive(now, transmit.path, &transmit.payload);
            answers.extend(client.drain(now));
        }
        answers
    }

    pub fn send_data(&mut self, client: usize, channel: DataChannel, payload: &[u8]) -> bool {
        let sent = self.clients[client].send_data(channel, payload);
        self.drain(client);
        sent
    }

    /// Sends a packet on the channel for data tracks.
    pub fn send_track_data(&mut self, client: usize, packet: &[u8]) -> bool {
        let sent = self.clients[client].send_track_data(packet);
        self.drain(client);
        sent
    }

    pub fn route_data(&mut self, to: &[usize], channel: DataChannel, payload: &[u8]) {
        let to = to.iter().map(|client| self.clients[*client].sid.clone()).collect();
        let payload = Bytes::copy_from_slice(payload);
        self.command(Command::SendData { room: self.room.clone(), to, channel, payload });
    }

    pub fn request_keyframe(&mut self, client: usize, track: &TrackSid) {
        let client_ref = &mut self.clients[client];
        let mid = *client_ref.tracks.iter().find(|(_, carried)| *carried == track).unwrap().0;
        let mut api = client_ref.rtc.direct_api();
        api.stream_rx_by_mid(mid, None).unwrap().request_keyframe(KeyframeRequestKind::Pli);
        self.drain(client);
    }

    pub fn received(&self, client: usize, track: &TrackSid) -> Vec<&Received> {
        let is_its = |packet: &&Received| packet.track.as_ref() == Some(track);
        self.clients[client].received.iter().filter(is_its).collect()
    }

    pub fn count(&self, kind: impl Fn(&EventKind) -> bool) -> usize {
        self.events.iter().filter(|event| kind(&event.kind)).count()
    }
}

fn client_index(to: &To) -> usize {
    match to {
        To::Client(index) => *index,
        To::Sfu => usize::MAX,
    }
}

impl Client {
    fn new(
        now: Instant,
        sid: ParticipantSid,
        index: usize,
        sections: usize,
        message_bytes_max: u32,
        (tcp, codecs): (bool, &[Codec]),
    ) -> Self {
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(codecs.contains(&Codec::Vp8))
            .enable_vp9(codecs.contains(&Codec::Vp9))
            .enable_h264(codecs.contains(&Codec::H264))
            .enable_av1(codecs.contains(&Codec::Av1))
            .set_extension(12, Extension::with_serializer(DEPENDENCY_URI, Dependency::default()))
            .set_sctp_max_message_size(message_bytes_max)
            .build(now);
        let address = SocketAddr::from(([198, 51, 100, index as u8 + 1], 40_000));
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        if tcp {
            let address = SocketAddr::new(address.ip(), 40_001);
            let active = Candidate::builder().tcp().host(address).tcptype(TcpType::Active).build();
            rtc.add_local_candidate(active.unwrap());
        }
        let mut client = Self {
            rtc,
            sid,
            address,
            received: Vec::new(),
            data: Vec::new(),
            track_data: Vec::new(),
            connected: false,
            keyframe_requests: Vec::new(),
            tracks: HashMap::new(),
            answers: Vec::new(),
            takes_all: true,
            channels: HashMap::new(),
            track_channel: None,
            downlinks: Vec::new(),
            uplinks: HashMap::new(),
            pending: None,
            offer_id: 0,
            wants_offer: false,
            todo: Vec::new(),
            deadline: now,
            sends: codecs[0],
        };
        client.add_downlinks(MediaKind::Audio, sections);
        client.add_downlinks(MediaKind::Video, sections);
        client.todo.push(Change::Channels);
        client
    }

    pub fn add_downlinks(&mut self, kind: MediaKind, count: usize) {
        self.todo.extend((0..count).map(|_| Change::Downlink(kind)));
    }

    fn add_uplink(&mut self, kind: MediaKind, track: &TrackSid, cid: &str, rids: &[&str]) {
        let rids = rids.iter().map(|rid| (*rid).to_owned()).collect();
        self.todo.push(Change::Uplink { kind, track: track.clone(), cid: cid.to_owned(), rids });
    }

    fn inactive(&mut self, mid: Mid) {
        self.todo.push(Change::Inactive(mid));
    }

    pub fn restart_ice(&mut self) {
        self.todo.push(Change::RestartIce);
    }

    pub fn downlinks(&self, kind: MediaKind) -> usize {
        self.downlinks.iter().filter(|(_, of)| *of == kind).count()
    }

    fn offer(&mut self) -> Option<(u32, String)> {
        let idle: Vec<Mid> = self.downlinks.iter().map(|(mid, _)| *mid).collect();
        let mut api = self.rtc.sdp_api();
        for mid in idle {
            // A browser keeps offering what was answered inactive.
            api.set_direction(mid, Direction::RecvOnly);
        }
        for change in std::mem::take(&mut self.todo) {
            match change {
                Change::Downlink(kind) => {
                    let mid = api.add_media(rtc_kind(kind), Direction::RecvOnly, None, None, None);
                    self.downlinks.push((mid, kind));
                }
                Change::Uplink { kind, track, cid, rids } => {
                    let simulcast = (!rids.is_empty()).then(|| Simulcast {
                        send: rids.iter().map(|rid| SimulcastLayer::new(rid)).collect(),
                        recv: Vec::new(),
                    });
                    let stream = Some("stream".to_owned());
                    let mid = api.add_media(rtc_kind(kind), Direction::SendOnly, stream, Some(cid), simulcast);
                    let rids: Vec<Option<Rid>> = match rids.is_empty() {
                        true => vec![None],
                        false => rids.iter().map(|rid| Some(Rid::from(rid.as_str()))).collect(),
                    };
                    // Streams start anywhere; a receiver's must not.
                    let layers = rids.into_iter().map(|rid| Uplink { mid, kind, rid, seq: 60_000 }).collect();
                    self.uplinks.insert(track, layers);
                }
                Change::Inactive(mid) => api.set_direction(mid, Direction::Inactive),
                Change::RestartIce => _ = api.ice_restart(true),
                Change::Channels => {
                    let reliability = Reliability::MaxRetransmits { retransmits: 0 };
                    for label in ["_lossy", "_data_track"] {
                        let label = label.into();
                        let config = ChannelConfig { label, ordered: false, reliability, ..Default::default() };
                        api.add_channel_with_config(config);
                    }
                    api.add_channel_with_config(ChannelConfig { label: "_reliable".into(), ..Default::default() });
                }
            }
        }
        if !api.has_changes() {
            // str0m offers only what changed; browsers offer when they are asked.
            let mid = api.add_media(RtcKind::Video, Direction::RecvOnly, None, None, None);
            self.downlinks.push((mid, MediaKind::Video));
        }
        let (offer, pending) = api.apply()?;
        self.offer_id += 1;
        self.pending = Some(pending);
        Some((self.offer_id, offer.to_sdp_string()))
    }

    fn accept(&mut self, offer_id: u32, sdp: &str, tracks: &[(String, TrackSid)]) {
        assert_eq!(offer_id, self.offer_id);
        self.answers.push(sdp.to_owned());
        let answer = SdpAnswer::from_sdp_string(sdp).expect("our answers are SDP");
        let pending = self.pending.take().expect("an answer to an offer");
        self.rtc.sdp_api().accept_answer(pending, answer).expect("our answers are accepted");
        self.tracks = tracks.iter().map(|(mid, track)| (Mid::from(mid.as_str()), track.clone())).collect();
    }

    #[allow(clippy::too_many_arguments)]
    fn write(
        &mut self,
        now: Instant,
        track: &TrackSid,
        layer: usize,
        time: u32,
        marker: bool,
        payload: &[u8],
        ext: ExtensionValues,
    ) {
        let uplink = &mut self.uplinks.get_mut(track).expect("a published track")[layer];
        uplink.seq += 1;
        let (mid, rid, seq, kind) = (uplink.mid, uplink.rid, uplink.seq, uplink.kind);
        let wanted = match kind {
            MediaKind::Audio => Codec::Opus,
            MediaKind::Video => self.sends,
        };
        let params = self.rtc.codec_config().params();
        let pt = params.iter().find(|params| params.spec().codec == wanted).unwrap().pt();
        let packet = RtpWrite::new(pt, seq.into(), time, now, payload)
            .marker(marker)
            .ext_vals(ext)
            .nackable(kind == MediaKind::Video);
        self.rtc.direct_api().stream_tx_by_mid(mid, rid).expect("a negotiated section").write_rtp(packet);
        let _ = self.rtc.handle_input(Input::Timeout(now));
    }

    /// Skips a sequence number, as a packet lost before the first hop.
    pub fn skip(&mut self, track: &TrackSid) {
        self.uplinks.get_mut(track).unwrap()[0].seq += 1;
    }

    fn send_data(&mut self, channel: DataChannel, payload: &[u8]) -> bool {
        let id = self.channels.iter().find(|(_, is)| **is == channel).map(|(id, _)| *id).expect("an open channel");
        self.rtc.channel(id).is_some_and(|mut channel| channel.write(true, payload).unwrap_or(false))
    }

    fn send_track_data(&mut self, packet: &[u8]) -> bool {
        let id = self.track_channel.expect("an open channel");
        self.rtc.channel(id).is_some_and(|mut channel| channel.write(true, packet).unwrap_or(false))
    }

    fn receive(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        let protocol = match path.protocol {
            Protocol::Udp => RtcProtocol::Udp,
            Protocol::Tcp => RtcProtocol::Tcp,
        };
        if let Ok(receive) = Receive::new(protocol, path.local, path.remote, bytes) {
            let _ = self.rtc.handle_input(Input::Receive(now, receive));
        }
    }

    /// What it sends, by the path as the core sees it.
    fn drain(&mut self, now: Instant) -> Vec<(Path, Vec<u8>)> {
        let mut out = Vec::new();
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.deadline = at.max(now + Duration::from_millis(1));
                    return out;
                }
                Ok(Output::Transmit(transmit)) => {
                    let path = match transmit.proto {
                        RtcProtocol::Udp => Path::udp(transmit.destination, transmit.source),
                        _ => Path::tcp(transmit.destination, transmit.source),
                    };
                    out.push((path, transmit.contents.into()));
                }
                Ok(Output::Event(event)) => self.handle(event),
                Err(error) => panic!("client failed: {error}"),
            }
        }
    }

    fn handle(&mut self, event: RtcEvent) {
        match event {
            RtcEvent::Connected => self.connected = true,
            RtcEvent::ChannelOpen(id, label) if label == "_reliable" => {
                _ = self.channels.insert(id, DataChannel::Reliable)
            }
            RtcEvent::ChannelOpen(id, label) if label == "_lossy" => _ = self.channels.insert(id, DataChannel::Lossy),
            RtcEvent::ChannelOpen(id, label) if label == "_data_track" => self.track_channel = Some(id),
            RtcEvent::ChannelData(data) if self.track_channel == Some(data.id) => self.track_data.push(data.data),
            RtcEvent::ChannelData(data) => self.data.push((self.channels[&data.id], data.data)),
            RtcEvent::KeyframeRequest(request) => self.keyframe_requests.push((request.mid, Instant::now())),
            RtcEvent::RtpPacket(packet) => {
                let ssrc = packet.header.ssrc;
                let mid = self.rtc.direct_api().stream_rx(&ssrc).unwrap().mid();
                self.received.push(Received {
                    track: self.tracks.get(&mid).cloned(),
                    mid,
                    ssrc: *ssrc,
                    seq: *packet.seq_no,
                    time: packet.header.timestamp,
                    marker: packet.header.marker,
                    payload: packet.payload.to_vec(),
                    at: packet.timestamp,
                    pt: *packet.header.payload_type,
                    dependency: packet.header.ext_vals.user_values.get().map(|Dependency(bytes)| bytes.clone()),
                    report: packet.last_sender_info.map(|info| (info.ntp_time, info.rtp_time.numer() as u32)),
                });
            }
            _ => {}
        }
    }
}

fn rtc_kind(kind: MediaKind) -> RtcKind {
    match kind {
        MediaKind::Audio => RtcKind::Audio,
        MediaKind::Video => RtcKind::Video,
    }
}
