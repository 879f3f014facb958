//! str0m clients and a media core on a simulated network, in virtual time. Every run of a seed is the same.
#![allow(dead_code, reason = "each test file uses its part")]

mod client;
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
        Certificate, Command, Connections, DataChannel, Event, EventKind, MediaKind, OpusOptions, Path, PendingTrack,
        Protocol, Sfu, View,
    },
};

#[allow(unused_imports, reason = "each test file uses its part")]
pub use client::Client;
#[allow(unused_imports, reason = "each test file uses its part")]
pub use wire::{DEPENDENCY_URI, Dependency, Link, Received, Spent, vp8};
use wire::{InFlight, To};

pub const SFU_ADDRESS: &str = "192.0.2.1:7882";
pub const SFU_TCP_ADDRESS: &str = "192.0.2.1:7881";

pub struct Sim {
    pub now: Instant,
    pub start: Instant,
    /// Counts something of this thread: allocations, say.
    pub meter: Option<fn() -> u64>,
    /// Of the datagrams of [`Self::burst`], one in so many does not arrive; 0: all do.
    pub lose_one_in: usize,
    lost_of_bursts: usize,
    unheard: Vec<(Path, Vec<u8>)>,
    pub sfu: Sfu,
    pub room: RoomSid,
    pub clients: Vec<Client>,
    pub events: Vec<Event>,
    /// Part of all datagrams that the network loses.
    pub loss: f64,
    /// Part of the datagrams that it loses on their way from a client, and to it, beside that.
    pub loss_from: HashMap<usize, f64>,
    pub loss_to: HashMap<usize, f64>,
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
    /// Whether they know redundancy. Those who do send what they are given as sound by its payload type.
    pub red: bool,
    /// How tracks that are announced from now on are to be sent.
    pub opus: OpusOptions,
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
            meter: None,
            lose_one_in: 0,
            lost_of_bursts: 0,
            unheard: Vec::new(),
            sfu: Sfu::with_tcp(certificate, &[address(SFU_ADDRESS)], &tcp_addresses),
            room: RoomSid::from("RM_test"),
            clients: Vec::new(),
            events: Vec::new(),
            loss: 0.0,
            loss_from: HashMap::new(),
            loss_to: HashMap::new(),
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
            red: false,
            opus: OpusOptions::default(),
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
        let knows = (self.tcp, &self.codecs[..], self.red);
        let mut client = Client::new(self.now, sid, index, sections, self.message_bytes_max, knows);
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
            opus: self.opus,
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
            for (path, datagram) in take_transmits(&mut self.sfu) {
                if let Some(index) = self.client_at(path) {
                    self.fly(path, To::Client(index), datagram);
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
        let own = match to {
            To::Client(index) => self.loss_to.get(&index),
            To::Sfu => self.client_at(path).and_then(|index| self.loss_from.get(&index)),
        };
        for loss in [self.loss, own.copied().unwrap_or(0.0)] {
            if loss > 0.0 && self.rng.random_bool(loss) {
                return;
            }
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
        let packets: Vec<_> = packets.iter().map(|(time, marker, it)| (0, *time, *marker, it)).collect();
        self.burst_of(client, track, &packets)
    }

    /// The same with a packet in each of these layers.
    pub fn burst_layers(&mut self, client: usize, track: &TrackSid, packets: &[(usize, u32, Vec<u8>)]) -> Spent {
        let packets: Vec<_> = packets.iter().map(|(layer, time, it)| (*layer, *time, true, it)).collect();
        self.burst_of(client, track, &packets)
    }

    fn burst_of(&mut self, client: usize, track: &TrackSid, packets: &[(usize, u32, bool, &Vec<u8>)]) -> Spent {
        let mut datagrams = std::mem::take(&mut self.unheard);
        for (layer, time, marker, payload) in packets {
            let now = self.now;
            self.clients[client].write(now, track, *layer, *time, *marker, payload, ExtensionValues::default());
            datagrams.extend(self.clients[client].drain(now));
        }
        let mut spent = Spent::default();
        let (transmits, media, metered) = self.run_core(datagrams);
        (spent.media, spent.datagrams, spent.metered) = (media, transmits.len(), metered);
        let mut feedback = self.hand_out(transmits);
        // The frame's time passes: receivers report, and what waited for the pacer leaves.
        for _ in 0..10 {
            self.now += Duration::from_millis(2);
            for index in 0..self.clients.len() {
                let now = self.now;
                let _ = self.clients[index].rtc.handle_input(Input::Timeout(now));
                feedback.extend(self.clients[index].drain(now));
            }
            let (transmits, took, _) = self.run_core(feedback);
            spent.feedback += took;
            spent.datagrams += transmits.len();
            feedback = self.hand_out(transmits);
        }
        self.unheard = feedback;
        spent
    }

    fn run_core(&mut self, datagrams: Vec<(Path, Vec<u8>)>) -> (Vec<(Path, Vec<u8>)>, Duration, u64) {
        let meter = || self.meter.map_or(0, |meter| meter());
        let (before, started) = (meter(), Instant::now());
        for (path, bytes) in &datagrams {
            self.sfu.handle_datagram(self.now, *path, bytes);
        }
        self.sfu.handle_timeout(self.now);
        let (took, metered) = (started.elapsed(), meter() - before);
        (take_transmits(&mut self.sfu), took, metered)
    }

    fn hand_out(&mut self, transmits: Vec<(Path, Vec<u8>)>) -> Vec<(Path, Vec<u8>)> {
        let mut answers = Vec::new();
        for (path, datagram) in transmits {
            self.lost_of_bursts += 1;
            if self.lose_one_in > 0 && self.lost_of_bursts.is_multiple_of(self.lose_one_in) {
                continue;
            }
            let index = self.client_at(path).unwrap();
            let (now, client) = (self.now, &mut self.clients[index]);
            client.receive(now, path, &datagram);
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

fn take_transmits(sfu: &mut Sfu) -> Vec<(Path, Vec<u8>)> {
    let transmits = sfu.transmits();
    let taken = transmits.iter().map(|(path, datagram)| (path, datagram.to_vec())).collect();
    transmits.clear();
    taken
}

fn client_index(to: &To) -> usize {
    match to {
        To::Client(index) => *index,
        To::Sfu => usize::MAX,
    }
}
