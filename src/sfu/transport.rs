//! One peer connection: the only file that knows `str0m::Rtc`.
//!
//! Invariant: whatever changes the `Rtc` goes through [`Transport::drive`], which drains it down to its next
//! timeout before anything else can happen. str0m keeps one received packet per `Rtc`; a second datagram handed in
//! without a drain between loses the first, with no error. The one exception is [`Transport::write_rtp`], which only
//! without a drain between loses the first, with no error.
//!
//! What is sent of media does not go through it at all (`egress`): [`Transport::write_rtp`] only queues, and any number of
//! writes may precede one [`Transport::flush`].
//!
//! Not here: what the sections of an SDP mean, who gets which packet.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use str0m::{
    Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig,
    change::{SdpAnswer, SdpOffer, SdpPendingOffer},
    channel::{ChannelConfig, ChannelId, Reliability},
    config::DtlsCert,
    format::{CodecConfig, PayloadParams},
    media::{Direction, KeyframeRequestKind, Mid, Pt, Rid},
    net::{Protocol as RtcProtocol, Receive, TcpType},
    rtp::{Extension, RtpPacket, Ssrc},
};

use super::{
    DataChannel, MediaKind, SfuStats,
    demux::{binding_request, is_answer_to},
    dependency,
    egress::{self, Egress, Keying, Outgoing, Reported, StreamKey, StreamOptions},
    extensions::ExtensionIds,
    formats::Formats,
    offers::OfferPlan,
    path::{Path, Protocol, Selected},
    sdp,
    silence::Silence,
    transmits::Transmits,
};

/// The largest data packet that we take and make; LiveKit's clients refuse to send more than 64,000 bytes.
const DATA_MESSAGE_BYTES_MAX: u32 = 65_536;
/// What SCTP may hold for a receiver that has not acknowledged it. Caps data at this much per round trip.
const SCTP_BUFFER_BYTES: usize = 512 * 1024;
/// What waits before SCTP for a slow receiver, reliable channel only. A receiver this far behind is closed, since a
/// gap in a reliable channel is worse than a reconnect; the lossy channel drops at once instead.
const DATA_BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often losses towards the receiver and NACK counters are read.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// Sender reports: the first ones decide how soon a receiver can align sound and picture.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What a receiver's network is taken to carry before anything is known: a good picture and the voices. Probes find more
/// within a second.
const INITIAL_BPS: u64 = 2_500_000;

/// What all transports of a process share.
#[derive(Clone)]
pub struct TransportConfig {
    rtc: RtcConfig,
    candidates: Arc<[Candidate]>,
    pub congestion_control: bool,
}

/// The DTLS certificate of the process: made once, since a key per peer costs milliseconds.
#[derive(Clone)]
pub struct Certificate(DtlsCert);

#[derive(Debug, thiserror::Error)]
#[error("no DTLS certificate could be generated")]
pub struct CertificateError;

impl Certificate {
    pub fn generate() -> Result<Self, CertificateError> {
        let provider = str0m::crypto::from_feature_flags();
        provider.dtls_provider.generate_certificate().map(Self).ok_or(CertificateError)
    }
}

impl TransportConfig {
    /// `udp` and `tcp` are what clients are told to send to, and to open connections to: the candidates.
    pub fn new(certificate: Certificate, udp: &[SocketAddr], tcp: &[SocketAddr]) -> Self {
        let mut rtc = RtcConfig::new()
            .set_crypto_provider(Arc::new(egress::provider()))
            .set_dtls_cert(certificate.0)
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, true)
            .enable_vp8(true)
            .enable_vp9(true)
            .enable_h264(true)
            .enable_av1(true)
            .set_stats_interval(Some(STATS_INTERVAL))
            .set_rtcp_report_interval_audio(REPORT_INTERVAL)
            .set_rtcp_report_interval_video(REPORT_INTERVAL)
            .set_sctp_max_message_size(DATA_MESSAGE_BYTES_MAX)
            .set_sctp_max_buffered_amount(SCTP_BUFFER_BYTES);
        // Offered by clients on every section; those that we do not accept in the first answer cannot come later.
        rtc.extension_map().set(5, Extension::PlayoutDelay);
        rtc.extension_map().set(6, Extension::with_serializer(dependency::URI, dependency::Carrier));
        let udp = udp.iter().map(|address| Candidate::builder().udp().host(*address).build());
        // The client opens the connection, RFC 6544 section 4.5.
        let passive =
            |address: &SocketAddr| Candidate::builder().tcp().host(*address).tcptype(TcpType::Passive).build();
        let candidates = udp.chain(tcp.iter().map(passive)).filter_map(|candidate| {
            debug_assert!(candidate.is_ok(), "the worker checks its addresses");
            candidate.ok()
        });
        Self { rtc, candidates: candidates.collect(), congestion_control: true }
    }
}

/// What came out of a transport, for the room to act on.
#[allow(clippy::large_enum_variant, reason = "nearly all are packets; a box for each would cost an allocation")]
pub enum Notice {
    Packet(RtpPacket),
    Connected,
    Disconnected,
    /// Nothing has come since then by UDP, which is in use.
    Silent(Instant),
    /// Something comes again.
    Heard,
    ChannelOpen(DataChannel),
    Data(DataChannel, Bytes),
    /// A packet of a data track.
    TrackData(Bytes),
    /// What the network towards the receiver carries, bits per second; `None`: it does not tell.
    Bandwidth(Option<u64>),
    /// The receiver asks for a keyframe of what this section carries.
    KeyframeRequest(Mid),
    /// It is over; nothing comes after this.
    Closed(String),
}

/// Where a drain pours.
pub struct Sink<'a> {
    pub transmits: &'a mut Transmits,
    pub notices: &'a mut Vec<Notice>,
    pub stats: &'a mut SfuStats,
}

/// Says no more than this: str0m's own words may quote the offer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OfferError(pub &'static str);

/// Where to send: a section and its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlet {
    pub mid: Mid,
    pub ssrc: Ssrc,
    pub stream: StreamKey,
}

/// How a receiver takes a format on a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub pt: Pt,
    /// Where it takes the same with redundancy.
    pub red: Option<Pt>,
    /// Where it takes the same once more.
    pub rtx: Option<Pt>,
}

#[derive(Default)]
struct Channels {
    reliable: Option<ChannelId>,
    lossy: Option<ChannelId>,
    /// For data tracks.
    tracks: Option<ChannelId>,
    backlog: VecDeque<Bytes>,
    backlog_bytes: usize,
}

pub struct Transport {
    rtc: Rtc,
    now: Instant,
    deadline: Instant,
    selected: Selected,
    silence: Silence,
    /// The client's check that is being handled, by its transaction; answered where it proved to be the client's.
    check: Option<[u8; 12]>,
    answered: bool,
    closed: bool,
    connected: bool,
    was_connected: bool,
    offered: bool,
    /// Our offer that is not answered yet.
    pending: Option<SdpPendingOffer>,
    /// The user name by which the demultiplexer finds it.
    pub routed_ufrag: String,
    channels: Channels,
    egress: Egress,
    keying: Keying,
    /// str0m was asked for something that its own clock does not know of.
    touched: bool,
    formats: Formats,
    /// Payload types that carry retransmissions, to count them: a bit for each.
    rtx: u128,
    /// Sections on which the client knows redundancy: str0m keeps one payload type for all.
    redundant: Vec<Mid>,
    /// Totals already counted of str0m's per-stream NACK counters.
    nacks: HashMap<(Mid, Option<Rid>), u64>,
}

impl Transport {
    pub fn new(now: Instant, config: &TransportConfig) -> Self {
        let (mut rtc, keying) = egress::watched(|| config.rtc.clone().build(now));
        for candidate in config.candidates.iter() {
            rtc.add_local_candidate(candidate.clone());
        }
        Self {
            rtc,
            now,
            deadline: now,
            selected: Selected::default(),
            silence: Silence::default(),
            check: None,
            answered: false,
            closed: false,
            connected: false,
            was_connected: false,
            offered: false,
            pending: None,
            routed_ufrag: String::new(),
            channels: Channels::default(),
            egress: Egress::new(now, config.congestion_control.then_some(INITIAL_BPS)),
            keying,
            touched: false,
            formats: Formats::default(),
            rtx: 0,
            redundant: Vec::new(),
            nacks: HashMap::new(),
        }
    }

    /// When [`Self::flush`] must be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let silence = self.silence.poll_timeout().filter(|_| self.is_watched());
        let deadlines = [Some(self.deadline), silence, self.egress.poll_timeout()];
        if self.closed { None } else { deadlines.into_iter().flatten().min() }
    }

    /// Checks come with this user name from now on. Another than before means that ICE was restarted.
    pub fn handle_route(&mut self, ufrag: String) {
        self.routed_ufrag = ufrag;
        self.selected.handle_restart();
    }

    /// Our half of the user name of STUN requests to this transport. Changes with an ICE restart.
    pub fn local_ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// Whether a STUN request is for this transport and proves it.
    pub fn accepts(&self, now: Instant, path: Path, datagram: &[u8]) -> bool {
        match receive(path, datagram) {
            Some(receive) => self.rtc.accepts(&Input::Receive(now, receive)),
            None => false,
        }
    }

    pub fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8], sink: &mut Sink<'_>) {
        self.now = now;
        if is_rtcp(datagram) {
            match self.egress.handle_report(now, datagram, sink) {
                Reported::PassOn => {}
                Reported::Done => return self.heard(now, sink),
                Reported::Forged => {
                    sink.stats.dropped_malformed += 1;
                    return;
                }
            }
        }
        let Some(receive) = receive(path, datagram) else {
            sink.stats.dropped_malformed += 1;
            return;
        };
        if self.is_retransmission(datagram) {
            sink.stats.retransmitted_in += 1;
        }
        let check = binding_request(datagram);
        (self.check, self.answered) = (check.map(|check| check.transaction), false);
        // Anybody can send nonsense from the client's address: it costs the datagram, not the transport.
        let taken = self.drive(sink, |rtc| rtc.handle_input(Input::Receive(now, receive))).is_ok();
        if !taken {
            sink.stats.dropped_malformed += 1;
        }
        self.check = None;
        if self.answered {
            self.silence.handle_check(now);
        }
        if self.answered || taken && check.is_none() {
            self.heard(now, sink);
        }
        if let Some(check) = check
            && self.answered
            && self.selected.handle_check(now, path, check.nominates)
        {
            sink.stats.path_changes[path.protocol.index()] += 1;
        }
    }

    fn heard(&mut self, now: Instant, sink: &mut Sink<'_>) {
        if self.silence.handle_heard(now) {
            sink.notices.push(Notice::Heard);
        }
    }

    /// Moves time on and sends what was written.
    pub fn flush(&mut self, now: Instant, sink: &mut Sink<'_>) {
        self.now = now;
        if !self.closed {
            let path = self.selected.path().filter(|_| self.may_send());
            self.egress.flush(now, path, sink);
        }
        if self.deadline <= now || std::mem::take(&mut self.touched) {
            if let Err(error) = self.drive(sink, |rtc| rtc.handle_input(Input::Timeout(now))) {
                self.close(error.to_string(), sink);
            }
            self.flush_backlog(sink);
        }
        if self.is_watched()
            && let Some(since) = self.silence.handle_timeout(now)
        {
            self.selected.doubt();
            sink.notices.push(Notice::Silent(since));
        }
    }

    /// Whether its silence matters: other paths may be there where UDP is in use and dead.
    fn is_watched(&self) -> bool {
        let by_udp = self.selected.path().is_some_and(|path| path.protocol == Protocol::Udp);
        self.connected && !self.closed && by_udp
    }

    pub fn is_silent(&self) -> bool {
        self.silence.is_silent()
    }

    /// Takes a client's offer and gives the answer, as str0m writes it.
    pub fn accept_offer(&mut self, sdp: &str, sink: &mut Sink<'_>) -> Result<String, OfferError> {
        let offer = SdpOffer::from_sdp_string(sdp).map_err(|_| OfferError("the offer is malformed"))?;
        if !self.formats.learn(sdp) {
            return Err(OfferError("a payload type means two things, or is none"));
        }
        let answer = self.drive(sink, |rtc| guarded(rtc, |rtc| rtc.sdp_api().accept_offer(offer)));
        let answer = answer.map_err(|_| OfferError("the offer cannot be answered"))?;
        self.note_formats(sdp);
        Ok(answer.to_sdp_string())
    }

    /// Offers what the plan says; the first offer brings the data channels. Returns the offer, as str0m writes it, and the
    /// names of the sections that the plan adds. `None` where there is nothing to offer.
    pub fn make_offer(&mut self, plan: &OfferPlan, sink: &mut Sink<'_>) -> Option<(String, Vec<String>)> {
        let first = !std::mem::replace(&mut self.offered, true);
        let mut made = None;
        let driven = self.drive(sink, |rtc| {
            for (mid, _, kind) in &plan.reuse {
                // Its stream went with its last track; the offer names the SSRC of the next.
                let mut api = rtc.direct_api();
                let (ssrc, rtx) = (api.new_ssrc(), (*kind == MediaKind::Video).then(|| api.new_ssrc()));
                api.declare_stream_tx(ssrc, rtx, Mid::from(mid.as_str()), None);
            }
            let mut changes = rtc.sdp_api();
            if first {
                for config in data_channels() {
                    changes.add_channel_with_config(config);
                }
            }
            for mid in &plan.release {
                changes.set_direction(Mid::from(mid.as_str()), Direction::Inactive);
            }
            for (mid, _, _) in &plan.reuse {
                changes.set_direction(Mid::from(mid.as_str()), Direction::SendOnly);
            }
            let add = |(_, kind): &(_, MediaKind)| {
                changes.add_media(str0m_kind(*kind), Direction::SendOnly, None, None, None).to_string()
            };
            let mids = plan.add.iter().map(add).collect();
            if plan.ice_restart {
                changes.ice_restart(true);
            }
            made = changes.apply().map(|(offer, pending)| (offer.to_sdp_string(), pending, mids));
            Ok(())
        });
        debug_assert!(driven.is_ok(), "making an offer cannot fail");
        let (offer, pending, mids) = made?;
        self.pending = Some(pending);
        Some((offer, mids))
    }

    /// Takes the client's answer to the last offer.
    pub fn accept_answer(&mut self, sdp: &str, sink: &mut Sink<'_>) -> Result<(), OfferError> {
        let answer = SdpAnswer::from_sdp_string(sdp).map_err(|_| OfferError("the answer is no SDP"))?;
        if !self.formats.learn(sdp) {
            return Err(OfferError("a payload type means two things, or is none"));
        }
        let pending = self.pending.take().ok_or(OfferError("there is no offer"))?;
        let accepted = self.drive(sink, |rtc| guarded(rtc, |rtc| rtc.sdp_api().accept_answer(pending, answer)));
        accepted.map_err(|_| OfferError("the answer does not fit the offer"))?;
        self.note_formats(sdp);
        Ok(())
    }

    /// What was agreed on, after the client's offer or answer.
    fn note_formats(&mut self, sdp: &str) {
        let params = self.rtc.codec_config().params();
        self.rtx = params.iter().filter_map(|params| params.resend()).fold(0, |set, pt| set | 1 << (*pt & 0x7f));
        let red = params.iter().find_map(|params| params.red()).map(|pt| pt.to_string());
        let sections = sdp::offered_sections(sdp);
        let knows_it = sections.iter().filter(|section| red.as_ref().is_some_and(|red| section.formats.contains(red)));
        self.redundant = knows_it.map(|section| Mid::from(section.mid.as_str())).collect();
    }

    fn is_retransmission(&self, datagram: &[u8]) -> bool {
        rtp_payload_type(datagram).is_some_and(|pt| self.rtx >> pt & 1 != 0)
    }

    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether media can be sent.
    pub fn can_send(&self) -> bool {
        !self.closed && self.connected && self.egress.is_keyed()
    }

    /// Whether it has ever been connected.
    pub fn was_connected(&self) -> bool {
        self.was_connected
    }

    /// The stream of a section on which we may send.
    pub fn outlet(&mut self, mid: Mid) -> Option<Outlet> {
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, None)?;
        let (ssrc, rtx) = (stream.ssrc(), stream.rtx().map(|ssrc| *ssrc));
        let media = self.rtc.media(mid)?;
        let kind = if media.kind().is_audio() { MediaKind::Audio } else { MediaKind::Video };
        let ids = ExtensionIds::new(media.remote_extmap());
        let agreed = self.rtc.codec_config().params().iter().filter(|it| media.remote_pts().contains(&it.pt()));
        let rtx = rtx.zip(agreed.filter_map(|params| params.resend()).map(|pt| *pt).next());
        let stream = self.egress.open(StreamOptions { mid, kind, ssrc: *ssrc, rtx, ids });
        Some(Outlet { mid, ssrc, stream })
    }

    /// How the receiver takes this format on a section; `None` where it negotiated nothing of it.
    pub fn takes(&self, mid: Mid, params: &PayloadParams) -> Option<Taken> {
        let remote = self.rtc.media(mid)?.remote_pts();
        let agreed = self.rtc.codec_config().params().iter().filter(|params| remote.contains(&params.pt()));
        let of_codec = agreed.filter(|it| it.spec().codec == params.spec().codec).copied().collect();
        let config = CodecConfig::new_from_payload_params(of_codec);
        let known = config.match_params(*params)?;
        let red = known.red().filter(|_| self.redundant.contains(&mid));
        Some(Taken { pt: known.pt(), red, rtx: known.resend() })
    }

    /// What the client means by a payload type, whether with redundancy or without.
    pub fn format(&self, pt: Pt) -> Option<PayloadParams> {
        let params = self.rtc.codec_config().params();
        params.iter().find(|params| params.pt() == pt || params.red() == Some(pt)).copied()
    }

    /// How many packets before it a packet of sound is to bear for this receiver.
    pub fn redundancy(&self) -> usize {
        self.egress.redundancy(self.now)
    }

    /// The section carries nothing now: its stream goes, and with it the sender reports that str0m would write for it.
    /// The next offer makes a new one with a new SSRC, so that the receiver of its next track starts with fresh state.
    pub fn remove_outlet(&mut self, mid: Mid, sink: &mut Sink<'_>) {
        self.egress.close(mid);
        let removed = self.drive(sink, |rtc| {
            let mut api = rtc.direct_api();
            let ssrc = api.stream_tx_by_mid(mid, None).map(|stream| stream.ssrc());
            Ok(ssrc.is_some_and(|ssrc| api.remove_stream_tx(ssrc)))
        });
        debug_assert!(removed.is_ok(), "removing a stream cannot fail");
    }

    /// Queues a packet; it leaves with the next [`Self::flush`]. False where the section is gone.
    pub fn write_rtp(&mut self, packet: Outgoing, paced: bool, stats: &mut SfuStats) -> bool {
        !self.closed && self.egress.push(packet, paced, &mut stats.dropped_queue_full)
    }

    /// The section and layer that a received stream belongs to.
    pub fn inlet(&mut self, ssrc: Ssrc) -> Option<(Mid, Option<Rid>)> {
        let mut api = self.rtc.direct_api();
        let stream = api.stream_rx(&ssrc)?;
        Some((stream.mid(), stream.rid()))
    }

    /// What the receiver is to get, and what it would get if its network carried it: the estimate is kept up with padding
    /// towards the first, and looks for the second.
    pub fn aim(&mut self, now: Instant, minimum_bps: u64, desired_bps: u64) {
        self.egress.aim(now, minimum_bps, desired_bps);
    }

    /// Asks the sender of this stream for a keyframe.
    pub fn request_keyframe(&mut self, ssrc: Ssrc, sink: &mut Sink<'_>) {
        let asked = self.drive(sink, |rtc| {
            let mut api = rtc.direct_api();
            let stream = api.stream_rx(&ssrc);
            let found = stream.map(|stream| stream.request_keyframe(KeyframeRequestKind::Pli)).is_some();
            Ok(found)
        });
        if matches!(asked, Ok(true)) {
            self.touched = true;
            sink.stats.keyframe_requests_out += 1;
        }
    }

    /// Sends a data packet, or holds it back, or drops it; see the constants above.
    pub fn send_data(&mut self, channel: DataChannel, payload: &Bytes, sink: &mut Sink<'_>) {
        if self.closed {
            return;
        }
        match channel {
            DataChannel::Lossy => {
                let Some(id) = self.channels.lossy else { return };
                if !self.write_data(id, payload, sink).unwrap_or(false) {
                    sink.stats.dropped_queue_full += 1;
                }
            }
            DataChannel::Reliable => {
                if self.channels.backlog_bytes + payload.len() > DATA_BACKLOG_BYTES_MAX {
                    sink.stats.dropped_queue_full += 1;
                    self.close("does not keep up with its reliable data channel".to_owned(), sink);
                    return;
                }
                self.channels.backlog_bytes += payload.len();
                self.channels.backlog.push_back(payload.clone());
                self.flush_backlog(sink);
            }
        }
    }

    /// Sends a packet of a data track, or drops it where the channel has no room or is not there.
    pub fn send_track_data(&mut self, packet: &[u8], sink: &mut Sink<'_>) {
        let Some(id) = self.channels.tracks.filter(|_| !self.closed) else { return };
        if self.write_data(id, packet, sink).unwrap_or(false) {
            sink.stats.data_tracks_out += 1;
        } else {
            sink.stats.dropped_queue_full += 1;
        }
    }

    fn flush_backlog(&mut self, sink: &mut Sink<'_>) {
        let Some(id) = self.channels.reliable else { return };
        // Taken out before the write, which may end the transport and with it the backlog.
        while let Some(payload) = self.channels.backlog.pop_front() {
            self.channels.backlog_bytes -= payload.len();
            match self.write_data(id, &payload, sink) {
                Ok(true) => {}
                Ok(false) if self.closed => return,
                Ok(false) => {
                    self.channels.backlog_bytes += payload.len();
                    self.channels.backlog.push_front(payload);
                    return;
                }
                // It will never be taken, being larger than the receiver allows: those behind it must not wait for it.
                Err(_) => sink.stats.dropped_queue_full += 1,
            }
        }
    }

    /// Whether SCTP has room for the packet now.
    fn write_data(&mut self, id: ChannelId, payload: &[u8], sink: &mut Sink<'_>) -> Result<bool, str0m::RtcError> {
        self.drive(sink, |rtc| match rtc.channel(id) {
            Some(mut channel) => channel.write(true, payload),
            None => Ok(false),
        })
    }

    /// Applies one change and drains. A failed drain, or an input that str0m gives up on, ends the transport.
    fn drive<T>(
        &mut self,
        sink: &mut Sink<'_>,
        change: impl FnOnce(&mut Rtc) -> Result<T, str0m::RtcError>,
    ) -> Result<T, str0m::RtcError> {
        let changed = change(&mut self.rtc);
        while !self.closed {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.deadline = at;
                    break;
                }
                Ok(Output::Transmit(transmit)) => self.pour(transmit, sink),
                Ok(Output::Event(event)) => self.handle_event(event, sink),
                Err(error) => self.close(error.to_string(), sink),
            }
        }
        if !self.closed && !self.rtc.is_alive() {
            self.close("the transport ended".to_owned(), sink);
        }
        changed
    }

    fn pour(&mut self, transmit: str0m::net::Transmit, sink: &mut Sink<'_>) {
        let mut payload: Vec<u8> = transmit.contents.into();
        let protocol = if transmit.proto == RtcProtocol::Udp { Protocol::Udp } else { Protocol::Tcp };
        let mut path = Path { protocol, local: transmit.source, remote: transmit.destination };
        if is_stun(&payload) {
            self.answered |= self.check.is_some_and(|check| is_answer_to(&payload, &check));
        } else if self.may_send() {
            // Where the client wants it, which str0m learns late: it stays with the best path of all that were ever
            // nominated for as long as 15 s.
            path = self.selected.path().unwrap_or(path);
        } else {
            sink.stats.dropped_no_consent += 1;
            return;
        }
        if is_rtcp(&payload) {
            self.egress.fill_report(self.now, &mut payload);
        }
        sink.stats.datagrams_out += 1;
        sink.transmits.push(path, &payload);
    }

    /// Whether the client still wants to be sent to: not where it was connected and went silent.
    fn may_send(&self) -> bool {
        (self.connected || !self.was_connected) && self.selected.consents(self.now)
    }

    fn handle_event(&mut self, event: Event, sink: &mut Sink<'_>) {
        match event {
            Event::RtpPacket(packet) => sink.notices.push(Notice::Packet(packet)),
            Event::Connected => {
                self.connected = true;
                if !std::mem::replace(&mut self.was_connected, true)
                    && let Some(path) = self.selected.path()
                {
                    sink.stats.connected[path.protocol.index()] += 1;
                }
                self.egress.handle_connected(self.now, self.keying.get());
                sink.notices.push(Notice::Connected);
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                self.connected = false;
                sink.notices.push(Notice::Disconnected);
            }
            // After DTLS is up this is the return from a disconnection or a restart.
            Event::IceConnectionStateChange(IceConnectionState::Connected | IceConnectionState::Completed)
                if !self.connected && self.rtc.is_connected() =>
            {
                self.connected = true;
                sink.notices.push(Notice::Connected);
            }
            Event::ChannelOpen(id, label) => self.open_channel(id, &label, sink),
            Event::ChannelClose(id) => {
                let Channels { reliable, lossy, tracks, .. } = &mut self.channels;
                for channel in [reliable, lossy, tracks] {
                    channel.take_if(|open| *open == id);
                }
            }
            Event::ChannelData(data) => {
                let channel = match data.id {
                    id if self.channels.reliable == Some(id) => DataChannel::Reliable,
                    id if self.channels.lossy == Some(id) => DataChannel::Lossy,
                    id if self.channels.tracks == Some(id) => {
                        return sink.notices.push(Notice::TrackData(data.data.into()));
                    }
                    _ => return,
                };
                sink.notices.push(Notice::Data(channel, data.data.into()));
            }
            Event::Closed => self.close("closed by the client".to_owned(), sink),
            Event::MediaIngressStats(stats) => {
                sink.stats.nacks_out += self.more_nacks(stats.mid, stats.rid, stats.nacks);
            }
            _ => {}
        }
    }

    fn open_channel(&mut self, id: ChannelId, label: &str, sink: &mut Sink<'_>) {
        let channel = match label {
            "_reliable" => DataChannel::Reliable,
            "_lossy" => DataChannel::Lossy,
            "_data_track" => {
                self.channels.tracks = Some(id);
                return;
            }
            _ => return,
        };
        *self.channels.slot(channel) = Some(id);
        sink.notices.push(Notice::ChannelOpen(channel));
    }

    /// What a total grew by since it was last seen; a total that fell is that of a new stream.
    fn more_nacks(&mut self, mid: Mid, rid: Option<Rid>, total: u64) -> u64 {
        let before = self.nacks.insert((mid, rid), total).unwrap_or(0);
        if total >= before { total - before } else { total }
    }

    fn close(&mut self, reason: String, sink: &mut Sink<'_>) {
        if !self.closed {
            self.closed = true;
            self.channels = Channels::default();
            sink.notices.push(Notice::Closed(reason));
        }
    }
}

/// str0m asserts what descriptions must be like; we check it before (`formats.rs`). What we missed must cost the client its
/// connection and not the room.
fn guarded<T>(
    rtc: &mut Rtc,
    negotiate: impl FnOnce(&mut Rtc) -> Result<T, str0m::RtcError>,
) -> Result<T, str0m::RtcError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| negotiate(rtc))).unwrap_or_else(|_| {
        // It is half changed.
        rtc.disconnect();
        Err(str0m::RtcError::RemoteSdp("it broke an assumption".to_owned()))
    })
}

fn str0m_kind(kind: MediaKind) -> str0m::media::MediaKind {
    match kind {
        MediaKind::Audio => str0m::media::MediaKind::Audio,
        MediaKind::Video => str0m::media::MediaKind::Video,
    }
}

/// The channels that a client receives by, where we offer. As LiveKit's clients make them where they offer.
fn data_channels() -> [ChannelConfig; 3] {
    let reliable = ChannelConfig { label: "_reliable".to_owned(), ..ChannelConfig::default() };
    let [lossy, tracks] = ["_lossy", "_data_track"].map(|label| ChannelConfig {
        label: label.to_owned(),
        ordered: false,
        reliability: Reliability::MaxRetransmits { retransmits: 0 },
        ..ChannelConfig::default()
    });
    [reliable, lossy, tracks]
}

impl Channels {
    fn slot(&mut self, channel: DataChannel) -> &mut Option<ChannelId> {
        match channel {
            DataChannel::Reliable => &mut self.reliable,
            DataChannel::Lossy => &mut self.lossy,
        }
    }
}

fn receive(path: Path, datagram: &[u8]) -> Option<Receive<'_>> {
    let protocol = match path.protocol {
        Protocol::Udp => RtcProtocol::Udp,
        Protocol::Tcp => RtcProtocol::Tcp,
    };
    Receive::new(protocol, path.remote, path.local, datagram).ok()
}

/// RFC 7983 section 7.
fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| *first < 4)
}

/// RFC 5761 section 4.
fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [first, second, ..] if (128..192).contains(first) && (192..224).contains(second))
}

/// Payload type of an RTP packet, which SRTP leaves in the clear; `None` for what is none (RFC 7983, RFC 5761).
fn rtp_payload_type(datagram: &[u8]) -> Option<u8> {
    let (first, second) = (*datagram.first()?, *datagram.get(1)?);
    let payload_type = second & 0x7f;
    ((128..192).contains(&first) && !(64..96).contains(&payload_type)).then_some(payload_type)
}
