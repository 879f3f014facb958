//! What one connection sends of media: numbers, header extensions, SRTP, retransmissions, pacing. str0m keeps ICE, DTLS, SDP, SCTP
//! and what is received; its own way out costs two copies, an allocation and a look at all its timers for each packet.
//!
//! A packet that is forwarded waits here until the end of the tick ([`Egress::flush`]): so all that goes to one receiver
//! is written side by side, and the kernel takes it in one call. Sound leaves at once. Video keeps to the pacing rate.
//!
//! Two things are shared with str0m, which believes that it sends media: the streams that it names in its descriptions, and
//! reports. It writes sender reports for streams of which it knows nothing; they are opened on their way out, told what
//! was sent, and sealed anew ([`Egress::fill_report`]).

mod history;
mod keying;
mod pacer;
pub mod rtcp;
pub mod srtp;
mod stream;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

pub use keying::{Agreed, Keying, provider, watched};
use str0m::media::Mid;
pub use stream::{StreamKey, StreamOptions};

use self::{
    pacer::Pacer,
    rtcp::Report,
    srtp::Keys,
    stream::{Shape, Stream},
};
use super::{
    estimator::{Estimator, Probe},
    extensions::{Block, MediaExtensions},
    losses::Losses,
    munger::Vp8Patch,
    path::Path,
    transport::{Notice, Sink},
};

/// What waits for the pacer, bytes. Beyond, packets are dropped as they come: the receiver asks for a keyframe.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// Packets to be sent again at a time; who asks for more asks again.
const AGAIN_MAX: usize = 512;
/// How soon a packet is sent again for a second time, where the round trip is not known, and at the least and most.
const AGAIN_SPACING: Duration = Duration::from_millis(20);
const AGAIN_SPACING_MIN: Duration = Duration::from_millis(5);
const AGAIN_SPACING_MAX: Duration = Duration::from_millis(100);
/// How often losses are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of headers and tag, about: for estimates.
const OVERHEAD_BYTES: usize = 40;
/// An estimate is told where it differs by this part.
const TOLD_PART: u64 = 50;
/// The largest padding of a packet without payload.
const PADDING_BYTES: u8 = 224;

/// A packet as one receiver gets it.
#[derive(Clone)]
pub struct Outgoing {
    pub stream: StreamKey,
    pub pt: u8,
    /// In which it is sent again; `None`: it is not.
    pub rtx: Option<u8>,
    pub marker: bool,
    /// Extended; below 65,536 at the start of a stream.
    pub seq: u64,
    pub time: u32,
    pub captured: Instant,
    pub payload: Arc<[u8]>,
    pub patch: Option<Vp8Patch>,
    pub extensions: MediaExtensions,
}

impl Outgoing {
    /// Without anything in it.
    fn empty(stream: StreamKey, time: u32, captured: Instant) -> Self {
        Self {
            stream,
            pt: 0,
            rtx: None,
            marker: false,
            seq: 0,
            time,
            captured,
            payload: Arc::default(),
            patch: None,
            extensions: MediaExtensions::default(),
        }
    }
}

/// What a report of the receiver leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    Done,
    /// There is something in it for str0m.
    PassOn,
    /// It is not the receiver's.
    Forged,
}

pub struct Egress {
    /// Zero of the send times that are told.
    epoch: Instant,
    keys: Option<Keys>,
    streams: Vec<Option<Stream>>,
    /// What leaves at the end of the tick, come what may.
    prompt: Vec<Outgoing>,
    again: VecDeque<Outgoing>,
    waiting: VecDeque<Outgoing>,
    waiting_bytes: usize,
    pacer: Pacer,
    estimator: Option<Estimator>,
    /// A probe that runs, and how much of it is left to send.
    probe: Option<(Probe, usize)>,
    told: Option<u64>,
    losses: Losses,
    /// The worst share of packets that the receiver reported lost since the last look.
    reported_loss: Option<f32>,
    look_at: Option<Instant>,
    round_trip: Option<Duration>,
    scratch: Vec<u8>,
}

impl Egress {
    /// `initial_bps` is what the network is taken to carry before anything is known; `None`: whatever comes.
    pub fn new(now: Instant, initial_bps: Option<u64>) -> Self {
        Self {
            epoch: now,
            keys: None,
            streams: Vec::new(),
            prompt: Vec::new(),
            again: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            pacer: Pacer::new(now),
            estimator: initial_bps.map(|bps| Estimator::new(now, bps)),
            probe: None,
            told: None,
            losses: Losses::default(),
            reported_loss: None,
            look_at: None,
            round_trip: None,
            scratch: Vec::new(),
        }
    }

    /// The handshake is done: from now on there is something to seal with.
    pub fn handle_connected(&mut self, now: Instant, agreed: Option<&Agreed>) {
        if self.keys.is_none() {
            self.keys = agreed.and_then(|it| Keys::new(it.profile, &it.material, it.is_client));
            self.losses.handle_connected(now);
            self.look_at = Some(now + LOOK_INTERVAL);
        }
    }

    pub fn is_keyed(&self) -> bool {
        self.keys.is_some()
    }

    pub fn open(&mut self, options: StreamOptions) -> StreamKey {
        let at = self.streams.iter().position(Option::is_none).unwrap_or_else(|| {
            self.streams.push(None);
            self.streams.len() - 1
        });
        let ssrc = options.ssrc;
        let known = self.streams.iter().position(|it| it.as_ref().is_some_and(|it| it.ssrc() == ssrc));
        let at = known.unwrap_or(at);
        match &mut self.streams[at] {
            Some(stream) => stream.renegotiate(options),
            free => *free = Some(Stream::new(options)),
        }
        StreamKey::new(at, ssrc)
    }

    /// Nothing goes by this section any more.
    pub fn close(&mut self, mid: Mid) {
        let ended = self.streams.iter().position(|it| it.as_ref().is_some_and(|it| it.mid() == mid));
        let Some((at, ended)) = ended.and_then(|at| Some((at, self.streams[at].take()?))) else { return };
        let ended = StreamKey::new(at, ended.ssrc());
        let stays = |packet: &Outgoing| packet.stream != ended;
        self.prompt.retain(stays);
        self.again.retain(stays);
        self.waiting.retain(stays);
        self.waiting_bytes = self.waiting.iter().map(|packet| packet.payload.len()).sum();
    }

    /// Queues a packet. False where there is nowhere to send it.
    pub fn push(&mut self, packet: Outgoing, paced: bool, sink_full: &mut u64) -> bool {
        if self.keys.is_none() || packet.stream.of(&mut self.streams).is_none() {
            return false;
        }
        if !paced || self.estimator.is_none() {
            self.prompt.push(packet);
        } else if self.waiting_bytes + packet.payload.len() > WAITING_BYTES_MAX {
            *sink_full += 1;
        } else {
            self.waiting_bytes += packet.payload.len();
            self.waiting.push_back(packet);
        }
        true
    }

    /// Sends what may leave now; where there is no path nothing is kept.
    pub fn flush(&mut self, now: Instant, path: Option<Path>, sink: &mut Sink<'_>) {
        if let Some(estimator) = &mut self.estimator
            && estimator.poll_timeout().is_some_and(|at| at <= now)
        {
            estimator.handle_timeout(now);
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.look(now);
        }
        let Some(path) = path else {
            sink.stats.dropped_no_consent += self.drop_queued();
            return;
        };
        let mut prompt = std::mem::take(&mut self.prompt);
        for packet in prompt.drain(..) {
            self.send(now, packet, Shape::Media, path, sink);
        }
        self.prompt = prompt;
        self.flush_paced(now, path, sink);
        self.tell(sink);
    }

    /// Returns how much it was.
    fn drop_queued(&mut self) -> u64 {
        let queued = self.prompt.len() + self.again.len() + self.waiting.len();
        self.prompt.clear();
        self.again.clear();
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.probe = None;
        queued as u64
    }

    fn flush_paced(&mut self, now: Instant, path: Path, sink: &mut Sink<'_>) {
        self.start_probe(now);
        let Some(rate) = self.estimator.as_ref().map(|estimator| estimator.rate_bps(now)) else {
            while let Some(packet) = self.again.pop_front() {
                self.send(now, packet, Shape::Again, path, sink);
            }
            return;
        };
        let rate = self.probe.as_ref().map_or(rate, |(probe, _)| probe.bps.max(rate));
        self.pacer.handle_time(now, rate, self.waiting_bytes);
        while self.pacer.is_open() {
            let sent = if let Some(packet) = self.again.pop_front() {
                self.send(now, packet, Shape::Again, path, sink)
            } else if let Some(packet) = self.waiting.pop_front() {
                self.waiting_bytes -= packet.payload.len();
                self.send(now, packet, Shape::Media, path, sink)
            } else if self.probe.is_some() {
                let padded = self.pad(now, path, sink);
                if padded == 0 {
                    // Nothing to pad with.
                    self.probe = None;
                    break;
                }
                padded
            } else {
                break;
            };
            if let Some((_, left)) = &mut self.probe {
                *left = left.saturating_sub(sent);
            }
            self.probe.take_if(|(_, left)| *left == 0);
        }
    }

    fn start_probe(&mut self, now: Instant) {
        if let Some(estimator) = self.estimator.as_mut().filter(|_| self.probe.is_none() && self.keys.is_some()) {
            self.probe = estimator.poll_probe(now).map(|probe| (probe, probe.bytes));
        }
    }

    /// Sends something that nobody waits for; returns how much.
    fn pad(&mut self, now: Instant, path: Path, sink: &mut Sink<'_>) -> usize {
        let streams = self.streams.iter().enumerate();
        let mut filling = streams.filter_map(|(at, stream)| {
            let stream = stream.as_ref()?;
            stream.filling(StreamKey::new(at, stream.ssrc()), now)
        });
        let Some((packet, shape)) = filling.next() else { return 0 };
        self.send(now, packet, shape, path, sink)
    }

    /// Writes and seals one packet; returns its length, 0 where it could not be sent.
    fn send(&mut self, now: Instant, packet: Outgoing, shape: Shape, path: Path, sink: &mut Sink<'_>) -> usize {
        let Some(Keys { sealer, .. }) = &self.keys else { return 0 };
        let Some(stream) = packet.stream.of(&mut self.streams) else { return 0 };
        let Some(header) = stream.header(&packet, shape) else { return 0 };
        let mut block = match shape {
            Shape::Padding => Block::of(&MediaExtensions::default(), stream.ids()),
            _ => Block::of(&packet.extensions, stream.ids()),
        };
        if let Some((id, mid)) = stream.name_to_tell(shape) {
            block.push(id, mid.as_bytes());
        }
        if let (Some(estimator), Some(id)) = (&mut self.estimator, stream.ids().transport_seq) {
            let body = if shape == Shape::Padding { usize::from(PADDING_BYTES) } else { packet.payload.len() };
            let number = estimator.handle_sent(now, body + OVERHEAD_BYTES, self.probe.is_some());
            block.push(id, &number.to_be_bytes());
        } else if let Some(id) = stream.ids().send_time {
            block.push(id, &send_time(now.saturating_duration_since(self.epoch)));
        }
        let out = sink.transmits.buffer();
        let start = out.len();
        header.write(out, block.finish());
        let header_length = out.len() - start;
        write_payload(out, &packet, shape);
        let sealed = sealer.seal_rtp(out, start, header_length, header.ssrc, header.seq);
        let length = out.len() - start;
        if !sealed {
            sink.transmits.roll_back();
            return 0;
        }
        sink.transmits.commit(path);
        sink.stats.datagrams_out += 1;
        sink.stats.retransmitted_out += u64::from(shape == Shape::Again);
        self.losses.handle_sent(shape == Shape::Again);
        self.pacer.handle_sent(length);
        if shape == Shape::Media {
            stream.handle_sent(now, packet);
        }
        length
    }

    /// A report of the receiver, as it came.
    pub fn handle_report(&mut self, now: Instant, datagram: &[u8], sink: &mut Sink<'_>) -> Reported {
        let Some(Keys { opener, .. }) = &mut self.keys else { return Reported::PassOn };
        let mut compound = std::mem::take(&mut self.scratch);
        let mut reported = Reported::Forged;
        if opener.open_rtcp(datagram, &mut compound) {
            reported = Reported::Done;
            for report in rtcp::read(&compound) {
                if self.handle(now, report, sink) {
                    reported = Reported::PassOn;
                }
            }
            self.tell(sink);
        }
        self.scratch = compound;
        reported
    }

    /// Returns whether there is something in it for str0m.
    fn handle(&mut self, now: Instant, report: Report<'_>, sink: &mut Sink<'_>) -> bool {
        match report {
            Report::ReceptionReport { ssrc, fraction_lost, last_sr, delay_since_last_sr, .. } => {
                let stream = self.streams.iter_mut().flatten().find(|it| it.is_named(ssrc));
                let Some(stream) = stream else { return false };
                let round_trip = stream.handle_reception(now, ssrc, last_sr, delay_since_last_sr);
                self.reported_loss = Some(self.reported_loss.unwrap_or(0.0).max(fraction_lost));
                self.round_trip = round_trip.or(self.round_trip);
                if let Some(estimator) = &mut self.estimator {
                    estimator.handle_reported_loss(fraction_lost);
                    round_trip.into_iter().for_each(|round_trip| estimator.handle_round_trip(round_trip));
                }
            }
            Report::Nack { media_ssrc, lost } => {
                sink.stats.nacks_in += 1;
                let round_trip = self.estimator.as_ref().and_then(Estimator::round_trip).or(self.round_trip);
                // Receivers ask again about once in a round trip; what they ask sooner crossed with the answer.
                let spacing = round_trip.map_or(AGAIN_SPACING, |it| it / 2).clamp(AGAIN_SPACING_MIN, AGAIN_SPACING_MAX);
                let stream = self.streams.iter_mut().flatten().find(|it| it.ssrc() == media_ssrc);
                let Some(stream) = stream else { return false };
                for seq in lost.numbers() {
                    if self.again.len() < AGAIN_MAX
                        && let Some(packet) = stream.again(now, seq, spacing)
                    {
                        self.again.push_back(packet);
                    }
                }
            }
            Report::TransportFeedback(feedback) => {
                if let Some(estimator) = &mut self.estimator {
                    estimator.handle_feedback(now, feedback.packets());
                    self.start_probe(now);
                }
            }
            Report::Remb { bps } => {
                if let Some(estimator) = &mut self.estimator {
                    estimator.handle_remb(now, bps);
                }
            }
            Report::KeyframeRequest { media_ssrc } => {
                if let Some(stream) = self.streams.iter().flatten().find(|it| it.ssrc() == media_ssrc) {
                    sink.stats.keyframe_requests_in += 1;
                    sink.notices.push(Notice::KeyframeRequest(stream.mid()));
                }
            }
            Report::Other { payload_type } => {
                return matches!(payload_type, rtcp::SENDER_REPORT | rtcp::GOODBYE | rtcp::EXTENDED_REPORT);
            }
        }
        false
    }

    /// Says what the network carries, where that changed.
    fn tell(&mut self, sink: &mut Sink<'_>) {
        let Some(estimator) = &self.estimator else { return };
        let estimate = estimator.estimate();
        let differs = match (estimate, self.told) {
            (Some(now), Some(told)) => now.abs_diff(told) > told / TOLD_PART,
            (now, told) => now != told,
        };
        if differs {
            self.told = estimate;
            sink.notices.push(Notice::Bandwidth(estimate));
        }
    }

    fn look(&mut self, now: Instant) {
        self.look_at = Some(now + LOOK_INTERVAL);
        let fed_back = self.estimator.as_ref().map(Estimator::loss);
        let loss = [fed_back, self.reported_loss.take()].into_iter().flatten().reduce(f32::max);
        self.losses.handle_report(now, loss);
        for stream in self.streams.iter_mut().flatten() {
            stream.expire(now);
        }
    }

    /// A report that str0m sealed with the same keys: its sender reports are made true.
    pub fn fill_report(&mut self, now: Instant, datagram: &mut Vec<u8>) {
        let Some(Keys { sealer, .. }) = &self.keys else { return };
        let Some(index) = sealer.open_own_rtcp(datagram, &mut self.scratch) else { return };
        let streams = &mut self.streams;
        rtcp::for_each_sender_report(&mut self.scratch, |ssrc, ntp| {
            streams.iter_mut().flatten().find(|it| it.ssrc() == ssrc)?.report(now, ntp)
        });
        // The one that str0m made is never sent, so no nonce is used twice.
        if sealer.seal_rtcp(&mut self.scratch, index) {
            std::mem::swap(&mut self.scratch, datagram);
        }
    }

    /// What the receiver is to get, and what it would get if its network carried it.
    pub fn aim(&mut self, now: Instant, minimum_bps: u64, desired_bps: u64) {
        if let Some(estimator) = &mut self.estimator {
            estimator.aim(now, minimum_bps, desired_bps);
            self.start_probe(now);
        }
    }

    /// How many packets before it a packet of sound is to bear for this receiver.
    pub fn redundancy(&self, now: Instant) -> usize {
        self.losses.depth(now)
    }

    /// When [`Self::flush`] must be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let is_waiting = !self.again.is_empty() || !self.waiting.is_empty() || self.probe.is_some();
        let paced = is_waiting.then(|| self.pacer.opens_at());
        let estimator = self.estimator.as_ref().filter(|_| self.keys.is_some()).and_then(Estimator::poll_timeout);
        [paced, estimator, self.look_at].into_iter().flatten().min()
    }
}

fn write_payload(out: &mut Vec<u8>, packet: &Outgoing, shape: Shape) {
    match shape {
        Shape::Padding => {
            out.resize(out.len() + usize::from(PADDING_BYTES) - 1, 0);
            out.push(PADDING_BYTES);
            return;
        }
        // RFC 4588 section 4: the number that it had.
        Shape::Again | Shape::Filler => out.extend_from_slice(&(packet.seq as u16).to_be_bytes()),
        Shape::Media => {}
    }
    let at = out.len();
    out.extend_from_slice(&packet.payload);
    if let Some(patch) = packet.patch {
        patch.apply(&mut out[at..]);
    }
}

/// Seconds with 18 bits after the point, of which 24 bits are sent.
fn send_time(since: Duration) -> [u8; 3] {
    let fixed = (since.as_micros() << 18) / 1_000_000;
    let [.., a, b, c] = fixed.to_be_bytes();
    [a, b, c]
}
