//! One bot: a str0m client with a socket of its own, as a browser has. Driven by its thread ([`crate::driver`]).

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng, rngs::StdRng};
use str0m::{
    Candidate, Event, Input, Output, Rtc,
    change::{SdpAnswer, SdpPendingOffer},
    channel::{ChannelConfig, Reliability},
    format::Codec,
    media::{Direction, MediaKind, Mid, Pt, Rid, Simulcast, SimulcastLayer},
    net::{Protocol, Receive},
    rtp::{ExtensionValues, RtpWrite},
};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    flow::{Sent, Tally, Window},
    media::{Media, Pace},
    signal::Say,
    stamp::{Frame, Stamp, now_ns, ns_of},
};

/// Sections that the first offer brings for each kind; more come when the server asks. Large first offers are refused.
pub const FIRST_SECTIONS_MAX: usize = 8;
/// How loud the microphones are (RFC 6464).
const DBOV: i8 = -30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Audio,
    Video,
}

/// Who a bot is and what it does.
#[derive(Clone, Debug)]
pub struct BotSpec {
    pub id: u32,
    pub room: String,
    pub publishes: Option<Arc<Media>>,
    pub receives: bool,
    /// Tracks of each kind that it will get, if that is known.
    pub expects: usize,
    /// Otherwise it counts what comes, by the headers of RTP.
    pub decrypts: bool,
    /// Where its socket is: an address of this machine that reaches the server.
    pub local: std::net::IpAddr,
    pub started: Instant,
}

impl BotSpec {
    pub fn identity(&self) -> String {
        format!("bot-{}", self.id)
    }

    pub fn cid(&self, kind: Kind) -> String {
        format!("cid-{}", self.track(kind))
    }

    /// The number in its stamps.
    pub fn track(&self, kind: Kind) -> u32 {
        self.id * 2 + u32::from(kind == Kind::Video)
    }
}

#[derive(Debug)]
pub enum BotEvent {
    Connected { bot: u32, after: Duration },
    Failed { bot: u32, why: String },
}

/// What all bots share.
#[derive(Debug, Default)]
pub struct Shared {
    pub window: Window,
    /// Media packets that came to receivers.
    pub arrived: AtomicU64,
    /// The part of media that receivers throw away, in millionths.
    pub loss_ppm: AtomicU64,
}

/// What became of a bot.
#[derive(Clone, Debug)]
pub struct BotReport {
    pub spec: BotSpec,
    pub sent: HashMap<u32, Sent>,
    pub tally: Tally,
    /// Of its socket.
    pub port: u16,
}

struct Uplink {
    mid: Mid,
    kind: Kind,
    pt: Pt,
    track: u32,
    pace: Pace,
    /// Stamped packets so far.
    seq: u64,
    rtp_seq: Vec<u64>,
    picture: u16,
    key_wanted: Vec<bool>,
    muted: bool,
    sent: Sent,
}

pub struct Bot {
    pub spec: BotSpec,
    pub deadline: Instant,
    pub socket: mio::net::UdpSocket,
    pub tally: Tally,
    local: SocketAddr,
    rtc: Rtc,
    shared: Arc<Shared>,
    say: UnboundedSender<Say>,
    events: UnboundedSender<BotEvent>,
    pending: Option<SdpPendingOffer>,
    offer_id: u32,
    wants_offer: bool,
    /// Sections for audio and video that the next offer adds.
    wanted: [usize; 2],
    down: Vec<Mid>,
    up: Vec<Uplink>,
    pts: [Pt; 2],
    connected: bool,
    wants_muted: bool,
    rng: StdRng,
}

impl Bot {
    pub fn new(
        spec: BotSpec,
        shared: Arc<Shared>,
        say: UnboundedSender<Say>,
        events: UnboundedSender<BotEvent>,
    ) -> Result<Self> {
        let now = Instant::now();
        let mut rtc =
            Rtc::builder().set_rtp_mode(true).clear_codecs().enable_opus(true, false).enable_vp8(true).build(now);
        let socket = socket(SocketAddr::new(spec.local, 0))?;
        let local = socket.local_addr()?;
        let candidate = Candidate::host(local, "udp").context("no address for media")?;
        rtc.add_local_candidate(candidate);
        let pt = |codec| {
            let params = rtc.codec_config().params();
            params.iter().find(|params| params.spec().codec == codec).map(|params| params.pt()).context("no codec")
        };
        let pts = [pt(Codec::Opus)?, pt(Codec::Vp8)?];
        let sections = if spec.receives { spec.expects.min(FIRST_SECTIONS_MAX) } else { 0 };
        let rng = StdRng::seed_from_u64(spec.id.into());
        Ok(Self {
            spec,
            deadline: now,
            socket,
            tally: Tally::default(),
            local,
            rtc,
            shared,
            say,
            events,
            pending: None,
            offer_id: 0,
            wants_offer: false,
            wanted: [sections; 2],
            down: Vec::new(),
            up: Vec::new(),
            pts,
            connected: false,
            wants_muted: false,
            rng,
        })
    }

    /// The server let it in: its first offer, with everything that it publishes.
    pub fn handle_joined(&mut self, now: Instant) {
        let mut api = self.rtc.sdp_api();
        for label in ["_lossy", "_data_track"] {
            let reliability = Reliability::MaxRetransmits { retransmits: 0 };
            let config = ChannelConfig { label: label.into(), ordered: false, reliability, ..Default::default() };
            api.add_channel_with_config(config);
        }
        api.add_channel_with_config(ChannelConfig { label: "_reliable".into(), ..Default::default() });
        if let Some(media) = self.spec.publishes.clone() {
            for (kind, per_sec) in [(Kind::Audio, media.audio_pps), (Kind::Video, media.video_pps / media.burst as f64)]
            {
                if per_sec <= 0.0 {
                    continue;
                }
                let rids: Vec<_> = media.layers().iter().filter_map(|layer| layer.rid).collect();
                let simulcast = (kind == Kind::Video && media.simulcast).then(|| Simulcast {
                    send: rids.iter().map(|rid| SimulcastLayer::new(rid)).collect(),
                    recv: Vec::new(),
                });
                let layers = if kind == Kind::Video { media.layers().len() } else { 1 };
                let stream = Some("stream".to_owned());
                let cid = Some(self.spec.cid(kind));
                let mid = api.add_media(rtc_kind(kind), Direction::SendOnly, stream, cid, simulcast);
                self.up.push(Uplink {
                    mid,
                    kind,
                    pt: self.pts[kind as usize],
                    track: self.spec.track(kind),
                    pace: Pace::new(now, per_sec, self.rng.random()),
                    seq: 0,
                    rtp_seq: vec![1; layers],
                    picture: 0,
                    key_wanted: vec![true; layers],
                    muted: false,
                    sent: Sent::default(),
                });
            }
        }
        self.down.extend(add_sections(&mut api, self.wanted));
        self.wanted = [0; 2];
        let offer = api.apply();
        self.say_offer(offer);
    }

    /// The server wants more sections, or to be offered the idle ones again.
    pub fn handle_sections(&mut self, audios: usize, videos: usize) {
        self.wanted = [self.wanted[0] + audios, self.wanted[1] + videos];
        self.wants_offer = true;
        self.offer_again();
    }

    fn offer_again(&mut self) {
        if !self.wants_offer || self.pending.is_some() {
            return;
        }
        self.wants_offer = false;
        let mut api = self.rtc.sdp_api();
        for mid in &self.down {
            // A browser keeps offering what was answered inactive.
            api.set_direction(*mid, Direction::RecvOnly);
        }
        self.down.extend(add_sections(&mut api, self.wanted));
        self.wanted = [0; 2];
        let offer = api.apply();
        self.say_offer(offer);
    }

    fn say_offer(&mut self, offer: Option<(str0m::change::SdpOffer, SdpPendingOffer)>) {
        let Some((offer, pending)) = offer else { return };
        self.pending = Some(pending);
        self.offer_id += 1;
        // Without its task the bot is on its way out.
        let _ = self.say.send(Say::Offer { id: self.offer_id, sdp: offer.to_sdp_string() });
    }

    pub fn handle_answer(&mut self, now: Instant, id: u32, sdp: &str) {
        if id != self.offer_id {
            return;
        }
        let Some(pending) = self.pending.take() else { return };
        let accepted = SdpAnswer::from_sdp_string(sdp)
            .map_err(anyhow::Error::from)
            .and_then(|answer| Ok(self.rtc.sdp_api().accept_answer(pending, answer)?));
        if let Err(error) = accepted {
            self.fail(format!("the server's answer cannot be used: {error:#}"));
        }
        self.drain(now);
        self.offer_again();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = self.rtc.handle_input(Input::Timeout(now));
        self.drain(now);
    }

    /// Reads until there is nothing more.
    pub fn handle_readable(&mut self, buffer: &mut [u8]) {
        let loss = self.shared.loss_ppm.load(Ordering::Relaxed);
        while let Ok((length, source)) = self.socket.recv_from(buffer) {
            let now = Instant::now();
            let datagram = &buffer[..length];
            if let Some(rtp) = Rtp::parse(datagram) {
                if !self.spec.decrypts {
                    self.count(now, rtp);
                    continue;
                }
                if loss > 0 && self.rng.random_range(0..1_000_000) < loss {
                    continue;
                }
            }
            let Ok(receive) = Receive::new(Protocol::Udp, source, self.local, datagram) else { continue };
            let _ = self.rtc.handle_input(Input::Receive(now, receive));
            self.drain(now);
        }
    }

    /// A packet that stays sealed; those of retransmissions have other payload types.
    fn count(&mut self, now: Instant, rtp: Rtp) {
        if self.pts.iter().any(|pt| **pt == rtp.pt) {
            self.shared.arrived.fetch_add(1, Ordering::Relaxed);
            if self.shared.window.holds(ns_of(now)) {
                self.tally.handle_raw(rtp.ssrc, rtp.seq);
            }
        }
    }

    fn drain(&mut self, now: Instant) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.deadline = at;
                    return;
                }
                Ok(Output::Transmit(transmit)) => {
                    // A full buffer is loss on the way, as anywhere.
                    let _ = self.socket.send_to(&transmit.contents, transmit.destination);
                }
                Ok(Output::Event(event)) => self.handle_event(now, event),
                Err(error) => {
                    self.fail(format!("its connection broke: {error}"));
                    self.deadline = now + Duration::from_secs(3_600);
                    return;
                }
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected if !self.connected => {
                self.connected = true;
                for up in &mut self.up {
                    let (media, phase) = (self.spec.publishes.as_deref(), self.rng.random());
                    up.pace = Pace::new(now, media.map_or(1.0, |media| per_sec(media, up.kind)), phase);
                }
                let after = now.saturating_duration_since(self.spec.started);
                let _ = self.events.send(BotEvent::Connected { bot: self.spec.id, after });
            }
            Event::RtpPacket(packet) => {
                if let Some(stamp) = Stamp::read(&packet.payload) {
                    self.shared.arrived.fetch_add(1, Ordering::Relaxed);
                    if self.shared.window.holds(stamp.sent_ns) {
                        self.tally.handle(stamp, ns_of(now));
                    }
                }
            }
            Event::KeyframeRequest(request) => {
                if let Some(up) = self.up.iter_mut().find(|up| up.mid == request.mid) {
                    let layers = self.spec.publishes.as_deref().map_or(&[][..], Media::layers);
                    for (layer, wanted) in layers.iter().zip(&mut up.key_wanted) {
                        *wanted |= request.rid.is_none() || request.rid.as_deref() == layer.rid;
                    }
                }
            }
            _ => {}
        }
    }

    fn fail(&self, why: String) {
        let _ = self.events.send(BotEvent::Failed { bot: self.spec.id, why });
    }

    /// When it has something to send next.
    pub fn next_send(&self) -> Option<Instant> {
        if !self.connected {
            return None;
        }
        self.up.iter().map(|up| up.pace.next()).min()
    }

    /// Sends what is due.
    pub fn send_due(&mut self, now: Instant) {
        let Some(media) = self.spec.publishes.clone() else { return };
        let mut sent = false;
        for index in 0..self.up.len() {
            while self.up[index].pace.take(now) {
                sent |= !self.up[index].muted;
                match self.up[index].kind {
                    _ if self.up[index].muted => {}
                    Kind::Audio => self.send_audio(now, index, &media),
                    Kind::Video => self.send_frame(now, index, &media),
                }
            }
        }
        if sent {
            self.handle_timeout(now);
        }
    }

    fn send_audio(&mut self, now: Instant, index: usize, media: &Media) {
        let stamp = self.stamp(index);
        let ext = ExtensionValues { audio_level: Some(DBOV), voice_activity: Some(true), ..Default::default() };
        self.write(now, index, 0, None, false, stamp.audio(media.audio_bytes), ext);
    }

    fn send_frame(&mut self, now: Instant, index: usize, media: &Media) {
        let picture = self.up[index].picture;
        self.up[index].picture = picture.wrapping_add(1);
        let keys: Vec<bool> = self.up[index].key_wanted.iter_mut().map(std::mem::take).collect();
        for n in 0..media.burst {
            // All layers bear the same stamp: whichever is forwarded, the packet came.
            let stamp = self.stamp(index);
            for (at, layer) in media.layers().iter().enumerate() {
                let frame = Frame { key: keys[at], picture, width: layer.width };
                let payload = stamp.video(media.bytes_of(layer), frame, n == 0);
                let last = n + 1 == media.burst;
                self.write(now, index, at, layer.rid.map(Rid::from), last, payload, ExtensionValues::default());
            }
        }
    }

    fn stamp(&mut self, index: usize) -> Stamp {
        let up = &mut self.up[index];
        let stamp = Stamp { track: up.track, seq: up.seq, sent_ns: now_ns() };
        up.seq += 1;
        if self.shared.window.holds(stamp.sent_ns) {
            up.sent.note(stamp.seq);
        }
        stamp
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a packet")]
    fn write(
        &mut self,
        now: Instant,
        index: usize,
        layer: usize,
        rid: Option<Rid>,
        marker: bool,
        payload: Vec<u8>,
        ext: ExtensionValues,
    ) {
        let up = &mut self.up[index];
        let seq = up.rtp_seq[layer];
        up.rtp_seq[layer] += 1;
        let hz = if up.kind == Kind::Audio { 48_000 } else { 90_000 };
        let time = (u128::from(ns_of(now)) * hz / 1_000_000_000) as u32;
        let packet = RtpWrite::new(up.pt, seq.into(), time, now, payload)
            .marker(marker)
            .ext_vals(ext)
            .nackable(up.kind == Kind::Video);
        if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(up.mid, rid) {
            stream.write_rtp(packet);
        }
    }

    /// Shuts the microphone at once, or asks to open it.
    pub fn mute(&mut self, muted: bool) {
        self.wants_muted = muted;
        if muted {
            self.set_muted(true);
        }
        let _ = self.say.send(Say::MuteAudio(muted));
    }

    /// The server knows that it may forward again; what was sent before it would count as lost.
    pub fn handle_microphone_open(&mut self) {
        if !self.wants_muted {
            self.set_muted(false);
        }
    }

    fn set_muted(&mut self, muted: bool) {
        self.up.iter_mut().filter(|up| up.kind == Kind::Audio).for_each(|up| up.muted = muted);
    }

    pub fn set_video_pps(&mut self, pps: f64) {
        let burst = self.spec.publishes.as_ref().map_or(1, |media| media.burst);
        self.up.iter_mut().filter(|up| up.kind == Kind::Video).for_each(|up| up.pace.set_rate(pps / burst as f64));
    }

    /// Forgets what it counted.
    pub fn reset(&mut self) {
        self.tally = Tally::default();
        self.up.iter_mut().for_each(|up| up.sent = Sent::default());
    }

    pub fn leave(&mut self) {
        let _ = self.say.send(Say::Leave);
    }

    pub fn report(&self) -> BotReport {
        let sent = self.up.iter().map(|up| (up.track, up.sent)).collect();
        BotReport { spec: self.spec.clone(), sent, tally: self.tally.clone(), port: self.local.port() }
    }
}

fn per_sec(media: &Media, kind: Kind) -> f64 {
    match kind {
        Kind::Audio => media.audio_pps,
        Kind::Video => media.video_pps / media.burst as f64,
    }
}

fn rtc_kind(kind: Kind) -> MediaKind {
    match kind {
        Kind::Audio => MediaKind::Audio,
        Kind::Video => MediaKind::Video,
    }
}

fn add_sections(api: &mut str0m::change::SdpApi, [audios, videos]: [usize; 2]) -> Vec<Mid> {
    let audios = std::iter::repeat_n(MediaKind::Audio, audios);
    let kinds = audios.chain(std::iter::repeat_n(MediaKind::Video, videos));
    kinds.map(|kind| api.add_media(kind, Direction::RecvOnly, None, None, None)).collect()
}

/// Room for what comes while the thread does something else, so that loss is the server's.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

fn socket(at: SocketAddr) -> Result<mio::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(at)
        .with_context(|| format!("no UDP socket on {}; `ulimit -n` says how many there may be", at.ip()))?;
    socket.set_nonblocking(true)?;
    // Beyond the system's limit if we may, else up to it.
    let forced = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES);
    if forced.is_err() {
        socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    }
    Ok(mio::net::UdpSocket::from_std(socket))
}

/// What is readable in a sealed RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rtp {
    pt: u8,
    seq: u16,
    ssrc: u32,
}

impl Rtp {
    /// `None` for STUN, DTLS and RTCP (RFC 7983, RFC 5761).
    fn parse(datagram: &[u8]) -> Option<Self> {
        let [first, second, seq1, seq2, _, _, _, _, ssrc @ ..] = datagram.first_chunk::<12>()?;
        let is_media = (128..192).contains(first) && !(192..224).contains(second);
        is_media.then(|| Self {
            pt: second & 0x7f,
            seq: u16::from_be_bytes([*seq1, *seq2]),
            ssrc: u32::from_be_bytes(*ssrc),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_is_told_from_the_rest_by_two_bytes() {
        let mut datagram = [0x90, 0xe0, 0x12, 0x34, 0, 0, 0, 0, 0, 0, 1, 2, 9];
        assert_eq!(Rtp::parse(&datagram), Some(Rtp { pt: 96, seq: 0x1234, ssrc: 0x102 }));
        datagram[1] = 200;
        assert_eq!(Rtp::parse(&datagram), None, "RTCP");
        datagram[0] = 22;
        assert_eq!(Rtp::parse(&datagram), None, "DTLS");
        assert_eq!(Rtp::parse(&[0x90; 11]), None);
    }
}
