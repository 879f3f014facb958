//! Receivers of the crate webrtc: another implementation of ICE, DTLS, SRTP and SDP than the server's own. Each has a task
//! that negotiates, and one for each track.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Instant,
};

use anyhow::{Context, Result};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinSet,
};
use webrtc::{
    media_stream::track_remote::{TrackRemote, TrackRemoteEvent},
    peer_connection::{
        MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCPeerConnectionState,
        RTCSessionDescription, Registry, SettingEngineBuilder, register_default_interceptors,
    },
    rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit},
};

use crate::{
    bot::{BotEvent, BotReport, BotSpec, FIRST_SECTIONS_MAX, Shared},
    flow::Tally,
    signal::{self, Heard, Place, Say},
    stamp::{Stamp, now_ns},
};

/// The way to one of them.
pub struct Other {
    spec: BotSpec,
    tally: Arc<Mutex<Tally>>,
    say: UnboundedSender<Say>,
}

impl Other {
    pub fn start(
        spec: BotSpec,
        shared: Arc<Shared>,
        place: Place,
        events: UnboundedSender<BotEvent>,
        (say, said): (UnboundedSender<Say>, UnboundedReceiver<Say>),
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let tally = Arc::<Mutex<Tally>>::default();
        let (tell, heard) = mpsc::unbounded_channel();
        let tell = move |heard| drop(tell.send(heard));
        tasks.spawn(signal::run(place, spec.clone(), said, tell, events.clone()));
        let handler = Handler { spec: spec.clone(), shared, tally: tally.clone(), events: events.clone() };
        let (spec_of_task, say_of_task) = (spec.clone(), say.clone());
        tasks.spawn(async move {
            let bot = spec_of_task.id;
            if let Err(error) = negotiate(spec_of_task, handler, say_of_task, heard).await {
                // Nobody waits for it any more where the receiver is gone.
                let _ = events.send(BotEvent::Failed { bot, why: format!("{error:#}") });
            }
        });
        Self { spec, tally, say }
    }

    pub fn leave(&self) {
        // It may have left before.
        let _ = self.say.send(Say::Leave);
    }

    pub fn reset(&self) {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = Tally::default();
    }

    pub fn report(&self) -> BotReport {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        BotReport { spec: self.spec.clone(), sent: Default::default(), tally, port: 0 }
    }
}

/// Until signalling ends.
async fn negotiate(
    spec: BotSpec,
    handler: Handler,
    say: UnboundedSender<Say>,
    mut heard: UnboundedReceiver<Heard>,
) -> Result<()> {
    let peer = connection(&spec, handler).await.context("no peer connection")?;
    let (mut offer_id, mut offered, mut wants_offer) = (0, false, false);
    while let Some(heard) = heard.recv().await {
        match heard {
            Heard::Joined => {
                peer.create_data_channel("_reliable", None).await?;
                let sections = spec.expects.min(FIRST_SECTIONS_MAX);
                add_sections(&peer, sections, sections).await?;
                wants_offer = true;
            }
            Heard::Sections { audios, videos } => {
                add_sections(&peer, audios, videos).await?;
                wants_offer = true;
            }
            Heard::Answer { id, sdp } if id == offer_id => {
                let answer = RTCSessionDescription::answer(sdp).context("the server's answer is no SDP")?;
                peer.set_remote_description(answer).await.context("the server's answer cannot be used")?;
                offered = false;
            }
            Heard::Answer { .. } | Heard::MicrophoneOpen => {}
        }
        if wants_offer && !offered {
            let offer = peer.create_offer(None).await.context("no offer could be made")?;
            let sdp = offer.sdp.clone();
            peer.set_local_description(offer).await.context("the own offer cannot be used")?;
            (offer_id, offered, wants_offer) = (offer_id + 1, true, false);
            let _ = say.send(Say::Offer { id: offer_id, sdp });
        }
    }
    peer.close().await?;
    Ok(())
}

async fn connection(spec: &BotSpec, handler: Handler) -> Result<impl PeerConnection> {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs()?;
    let registry = register_default_interceptors(Registry::new(), &mut engine)?;
    let settings = SettingEngineBuilder::new().with_include_loopback_candidate(true).build();
    let peer = PeerConnectionBuilder::new()
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .with_setting_engine(settings)
        .with_handler(Arc::new(handler))
        .with_udp_addrs(vec![SocketAddr::new(spec.local, 0)]);
    Ok(peer.build().await?)
}

async fn add_sections(peer: &impl PeerConnection, audios: usize, videos: usize) -> Result<()> {
    let audios = std::iter::repeat_n(RtpCodecKind::Audio, audios);
    for kind in audios.chain(std::iter::repeat_n(RtpCodecKind::Video, videos)) {
        let init = RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() };
        peer.add_transceiver_from_kind(kind, Some(init)).await?;
    }
    Ok(())
}

#[derive(Clone)]
struct Handler {
    spec: BotSpec,
    shared: Arc<Shared>,
    tally: Arc<Mutex<Tally>>,
    events: UnboundedSender<BotEvent>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let bot = self.spec.id;
        let event = match state {
            RTCPeerConnectionState::Connected => {
                BotEvent::Connected { bot, after: Instant::now().saturating_duration_since(self.spec.started) }
            }
            RTCPeerConnectionState::Failed => BotEvent::Failed { bot, why: "its connection failed".into() },
            _ => return,
        };
        let _ = self.events.send(event);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let (shared, tally) = (self.shared.clone(), self.tally.clone());
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                let TrackRemoteEvent::OnRtpPacket(packet) = event else { continue };
                let Some(stamp) = Stamp::read(&packet.payload) else { continue };
                shared.arrived.fetch_add(1, Ordering::Relaxed);
                if shared.window.holds(stamp.sent_ns) {
                    tally.lock().unwrap_or_else(PoisonError::into_inner).handle(stamp, now_ns());
                }
            }
        });
    }
}
