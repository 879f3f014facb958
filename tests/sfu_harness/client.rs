//! One str0m client: what it offers, sends and receives.

use super::*;

pub(super) struct Uplink {
    pub(super) mid: Mid,
    pub(super) kind: MediaKind,
    pub(super) rid: Option<Rid>,
    pub(super) seq: u64,
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
    pub(super) takes_all: bool,
    pub(super) channels: HashMap<ChannelId, DataChannel>,
    pub(super) track_channel: Option<ChannelId>,
    pub(super) downlinks: Vec<(Mid, MediaKind)>,
    pub(super) uplinks: HashMap<TrackSid, Vec<Uplink>>,
    pub(super) pending: Option<SdpPendingOffer>,
    pub(super) offer_id: u32,
    pub(super) wants_offer: bool,
    pub(super) todo: Vec<Change>,
    pub(super) deadline: Instant,
    /// The codec of its next video packet.
    pub sends: Codec,
}

/// What the next offer brings.
pub(super) enum Change {
    Downlink(MediaKind),
    Uplink { kind: MediaKind, track: TrackSid, cid: String, rids: Vec<String> },
    Inactive(Mid),
    RestartIce,
    Channels,
}

impl Client {
    pub(super) fn new(
        now: Instant,
        sid: ParticipantSid,
        index: usize,
        sections: usize,
        message_bytes_max: u32,
        (tcp, codecs, red): (bool, &[Codec], bool),
    ) -> Self {
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, red)
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

    pub(super) fn add_uplink(&mut self, kind: MediaKind, track: &TrackSid, cid: &str, rids: &[&str]) {
        let rids = rids.iter().map(|rid| (*rid).to_owned()).collect();
        self.todo.push(Change::Uplink { kind, track: track.clone(), cid: cid.to_owned(), rids });
    }

    pub(super) fn inactive(&mut self, mid: Mid) {
        self.todo.push(Change::Inactive(mid));
    }

    pub fn restart_ice(&mut self) {
        self.todo.push(Change::RestartIce);
    }

    pub fn downlinks(&self, kind: MediaKind) -> usize {
        self.downlinks.iter().filter(|(_, of)| *of == kind).count()
    }

    pub(super) fn offer(&mut self) -> Option<(u32, String)> {
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

    pub(super) fn accept(&mut self, offer_id: u32, sdp: &str, tracks: &[(String, TrackSid)]) {
        assert_eq!(offer_id, self.offer_id);
        self.answers.push(sdp.to_owned());
        let answer = SdpAnswer::from_sdp_string(sdp).expect("our answers are SDP");
        let pending = self.pending.take().expect("an answer to an offer");
        self.rtc.sdp_api().accept_answer(pending, answer).expect("our answers are accepted");
        self.tracks = tracks.iter().map(|(mid, track)| (Mid::from(mid.as_str()), track.clone())).collect();
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn write(
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
        let params = params.iter().find(|params| params.spec().codec == wanted).unwrap();
        let pt = params.red().unwrap_or(params.pt());
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

    pub(super) fn send_data(&mut self, channel: DataChannel, payload: &[u8]) -> bool {
        let id = self.channels.iter().find(|(_, is)| **is == channel).map(|(id, _)| *id).expect("an open channel");
        self.rtc.channel(id).is_some_and(|mut channel| channel.write(true, payload).unwrap_or(false))
    }

    pub(super) fn send_track_data(&mut self, packet: &[u8]) -> bool {
        let id = self.track_channel.expect("an open channel");
        self.rtc.channel(id).is_some_and(|mut channel| channel.write(true, packet).unwrap_or(false))
    }

    pub(super) fn receive(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        let protocol = match path.protocol {
            Protocol::Udp => RtcProtocol::Udp,
            Protocol::Tcp => RtcProtocol::Tcp,
        };
        if let Ok(receive) = Receive::new(protocol, path.local, path.remote, bytes) {
            let _ = self.rtc.handle_input(Input::Receive(now, receive));
        }
    }

    /// What it sends, by the path as the core sees it.
    pub(super) fn drain(&mut self, now: Instant) -> Vec<(Path, Vec<u8>)> {
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

    pub(super) fn handle(&mut self, event: RtcEvent) {
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

pub(super) fn rtc_kind(kind: MediaKind) -> RtcKind {
    match kind {
        MediaKind::Audio => RtcKind::Audio,
        MediaKind::Video => RtcKind::Video,
    }
}
