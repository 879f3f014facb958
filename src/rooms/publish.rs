//! Tracks: announced by AddTrack, told to others once their media is negotiated, muted, ended.

use livekit_protocol as proto;
use proto::{
    AddTrackRequest, AudioTrackFeature, TrackInfo, TrackSource, TrackType, request_response::Reason,
    request_response::Request, signal_response::Message as Response,
};

use super::{
    Now,
    agent::AgentEvent,
    codecs,
    dynacast::Demand,
    participant::{Participant, Track},
    room::Room,
};
use crate::{
    id::{ParticipantSid, TrackSid},
    sfu::{Command, MediaKind, OpusOptions, PendingTrack},
};

/// Announced tracks of one participant whose media has not come. LiveKit allows as many.
pub(super) const PENDING_TRACKS_MAX: usize = 20;
/// Tracks of one participant in all.
const TRACKS_MAX: usize = 32;
/// Bytes of what a client may put into a track's description, names and ids together.
const TRACK_TEXT_BYTES_MAX: usize = 4096;
/// Codecs and features that one AddTrack may list. LiveKit's clients list three of each at most.
const TRACK_LIST_MAX: usize = 16;
/// Layers in one AddTrack: three for the track, and for each codec again.
const LAYERS_MAX: usize = 16;

impl Room {
    pub(super) fn add_track(&mut self, now: Now, sid: &ParticipantSid, request: AddTrackRequest) {
        let Some(p) = self.get_mut(sid) else { return };
        if let Some(reason) = refusal(p, &request) {
            return self.refuse(sid, 0, reason, Some(Request::AddTrack(request)));
        }
        if !request.sid.is_empty() {
            return self.add_codec(sid, request);
        }
        // A client that repeats itself after a resume gets the same answer.
        if let Some(known) = p.tracks.iter_mut().find(|t| !t.live && t.cid == request.cid) {
            known.announced = now.at;
            let (cid, track) = (known.cid.clone(), Some(known.info.clone()));
            return self.tell(sid, Response::TrackPublished(proto::TrackPublishedResponse { cid, track }));
        }
        let track = TrackSid::random();
        let kind = kind_of(request.r#type);
        let cid = request.cid.clone();
        let mut cids = vec![cid.clone()];
        cids.extend(request.simulcast_codecs.iter().map(|c| c.cid.clone()).filter(|c| !c.is_empty() && *c != cid));
        let muted = request.muted;
        // Whoever names no codec sends what its browser likes best.
        let named = kind == MediaKind::Video && !request.simulcast_codecs.is_empty();
        let screen = request.source == TrackSource::ScreenShare as i32;
        let opus = opus_of(&request);
        let info = describe(&track, kind, request);
        let codec = if named { codecs::name(&info.mime_type).to_owned() } else { String::new() };
        let Some(p) = self.get_mut(sid) else { return };
        let (sid_of, announced, demand) = (track.clone(), now.at, Demand::default());
        p.tracks.push(Track {
            sid: sid_of,
            kind,
            info: info.clone(),
            cid: cid.clone(),
            live: false,
            announced,
            demand,
            backup_wanted: false,
        });
        self.tell(sid, Response::TrackPublished(proto::TrackPublishedResponse { cid, track: Some(info) }));
        let pending = PendingTrack { track: track.clone(), kind, cids, codec, opus, backup: false, screen };
        self.media(Command::Publish { room: self.sid.clone(), participant: sid.clone(), track: pending });
        if muted {
            self.media(Command::Mute { room: self.sid.clone(), participant: sid.clone(), track, muted });
        }
    }

    /// Forgets tracks that were announced long ago and never came: they would fill the list, and a section of
    /// another track could be taken for theirs.
    pub(super) fn expire_announcements(&mut self, now: Now, sid: &ParticipantSid) {
        let Some(p) = self.get_mut(sid) else { return };
        let is_over = |t: &mut Track| t.deadline().is_some_and(|at| now.at >= at);
        let over: Vec<_> = p.tracks.extract_if(.., is_over).map(|t| t.sid).collect();
        for track in over {
            self.media(Command::Unpublish { room: self.sid.clone(), participant: sid.clone(), track });
        }
    }

    /// The media section of an announced track is there: from now on others know of it.
    pub(super) fn track_live(&mut self, sid: &ParticipantSid, track: &TrackSid, mid: String) {
        let Some(p) = self.get_mut(sid) else { return };
        let Some(live) = p.track_mut(track.as_str()) else { return };
        live.info.mid = mid.clone();
        if let Some(codec) = live.info.codecs.first_mut() {
            codec.mid = mid;
        }
        let (kind, first) = (live.kind, !live.live);
        let silent = live.is_microphone() && live.info.muted;
        live.live = true;
        if first {
            self.count_track(kind, 1);
        }
        self.announce(sid, false);
        self.sync_track(sid, track);
        self.demand_changed = true;
        if first {
            self.hook_published(sid, track);
        }
        self.follow();
        if silent {
            let (sid, track) = (sid.clone(), track.clone());
            self.tell_agents(|_| Some(AgentEvent::Muted { sid: sid.clone(), track: track.clone(), muted: true }));
        }
        self.sync_taps();
    }

    /// What the publisher sends, where that is not what it announced.
    pub(super) fn track_codec(&mut self, sid: &ParticipantSid, track: &TrackSid, mime_type: &str) {
        let Some(found) = self.get_mut(sid).and_then(|p| p.track_mut(track.as_str())) else { return };
        if found.info.mime_type == mime_type {
            return;
        }
        mime_type.clone_into(&mut found.info.mime_type);
        if let Some(codec) = found.info.codecs.first_mut() {
            mime_type.clone_into(&mut codec.mime_type);
        }
        self.announce(sid, true);
        self.follow();
    }

    /// The client took a track back.
    pub(super) fn track_ended(&mut self, sid: &ParticipantSid, track: &TrackSid) {
        let Some(p) = self.get_mut(sid) else { return };
        let Some(index) = p.tracks.iter().position(|t| t.sid == *track) else { return };
        let ended = p.tracks.remove(index);
        self.close_taps(|_, tapped| tapped == track);
        if ended.live {
            self.forget_track(track);
            self.count_track(ended.kind, -1);
            self.announce(sid, true);
            self.hook_unpublished(sid, &ended);
            self.follow();
        }
    }

    pub(super) fn mute_track(&mut self, sid: &ParticipantSid, track: &str, muted: bool) {
        let Some(p) = self.get_mut(sid) else { return };
        let Some(found) = p.track_mut(track) else { return };
        if found.info.muted == muted {
            return;
        }
        found.info.muted = muted;
        let (track, live, tapped) = (found.sid.clone(), found.live, found.is_microphone());
        self.media(Command::Mute { room: self.sid.clone(), participant: sid.clone(), track: track.clone(), muted });
        if live {
            self.announce(sid, true);
            if tapped {
                let (sid, track) = (sid.clone(), track);
                self.tell_agents(|_| Some(AgentEvent::Muted { sid: sid.clone(), track: track.clone(), muted }));
            }
        }
    }

    pub(super) fn update_audio_track(&mut self, sid: &ParticipantSid, update: proto::UpdateLocalAudioTrack) {
        let Some(p) = self.get_mut(sid) else { return };
        let Some(track) = p.track_mut(&update.track_sid) else { return };
        track.info.audio_features = update.features.into_iter().take(TRACK_LIST_MAX).collect();
        if track.live {
            self.announce(sid, true);
        }
    }

    pub(super) fn update_video_track(&mut self, sid: &ParticipantSid, update: &proto::UpdateLocalVideoTrack) {
        let Some(p) = self.get_mut(sid) else { return };
        let Some(track) = p.track_mut(&update.track_sid) else { return };
        track.info.width = update.width;
        track.info.height = update.height;
        if track.live {
            self.announce(sid, true);
        }
    }

    pub(super) fn count_track(&self, kind: MediaKind, by: i64) {
        let label = match kind {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
        };
        self.metrics.tracks.with_label_values(&[label]).add(by);
    }
}

fn kind_of(track_type: i32) -> MediaKind {
    if track_type == TrackType::Video as i32 { MediaKind::Video } else { MediaKind::Audio }
}

/// Why this track may not be published, if so.
pub(super) fn refusal(p: &Participant, request: &AddTrackRequest) -> Option<Reason> {
    if !p.may_publish(request.source) {
        return Some(Reason::NotAllowed);
    }
    let known_type = [TrackType::Audio as i32, TrackType::Video as i32].contains(&request.r#type);
    if !known_type {
        return Some(Reason::UnsupportedType);
    }
    let codecs = &request.simulcast_codecs;
    let mut layers = request.layers.iter().chain(codecs.iter().flat_map(|codec| &codec.layers));
    let text = request.cid.len()
        + request.name.len()
        + request.stream.len()
        + codecs.iter().map(|codec| codec.cid.len()).sum::<usize>()
        + layers.clone().map(|layer| layer.rid.len()).sum::<usize>();
    let pending = p.tracks.iter().filter(|t| !t.live && t.cid != request.cid).count();
    let too_much = request.cid.is_empty()
        || text > TRACK_TEXT_BYTES_MAX
        || codecs.len() > TRACK_LIST_MAX
        || layers.nth(LAYERS_MAX).is_some()
        || request.audio_features.len() > TRACK_LIST_MAX
        || request.packet_trailer_features.len() > TRACK_LIST_MAX
        || pending >= PENDING_TRACKS_MAX
        || p.tracks.len() >= TRACKS_MAX;
    too_much.then_some(Reason::LimitExceeded)
}

/// How the client is to send sound. What it encrypts is not ours to put together anew: its receivers could not open it.
#[allow(deprecated)] // older clients set these fields
fn opus_of(request: &AddTrackRequest) -> OpusOptions {
    let has = |feature: AudioTrackFeature| request.audio_features.contains(&(feature as i32));
    let encrypted = request.encryption != proto::encryption::Type::None as i32;
    OpusOptions {
        red: !request.disable_red && !encrypted,
        dtx: !request.disable_dtx && !has(AudioTrackFeature::TfNoDtx),
        stereo: request.stereo || has(AudioTrackFeature::TfStereo),
    }
}

/// What others will read of the track: what the client said, and what we decided.
#[allow(deprecated)] // older clients read these fields
fn describe(sid: &TrackSid, kind: MediaKind, request: AddTrackRequest) -> TrackInfo {
    let layers = match request.simulcast_codecs.first() {
        Some(codec) if request.layers.is_empty() => codec.layers.clone(),
        _ => request.layers.clone(),
    };
    let codecs = codecs::negotiate(kind, &request, &layers);
    let stream = if !request.stream.is_empty() {
        request.stream
    } else if [TrackSource::ScreenShare as i32, TrackSource::ScreenShareAudio as i32].contains(&request.source) {
        "screen".to_owned()
    } else {
        "camera".to_owned()
    };
    TrackInfo {
        sid: sid.as_str().to_owned(),
        r#type: request.r#type,
        name: request.name,
        muted: request.muted,
        width: request.width,
        height: request.height,
        simulcast: layers.len() > 1,
        disable_dtx: request.disable_dtx,
        source: request.source,
        layers,
        mime_type: codecs[0].mime_type.clone(),
        codecs,
        stereo: request.stereo,
        disable_red: request.disable_red,
        encryption: request.encryption,
        stream,
        audio_features: request.audio_features,
        backup_codec_policy: request.backup_codec_policy,
        packet_trailer_features: request.packet_trailer_features,
        ..TrackInfo::default()
    }
}
