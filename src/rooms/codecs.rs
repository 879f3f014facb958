//! Codecs of a video: the one that its publisher prefers, and a second one for those who cannot take that.

use livekit_protocol as proto;
use proto::{AddTrackRequest, SimulcastCodecInfo, request_response::Reason, signal_response::Message as Response};

use super::room::Room;
use crate::{
    id::{ParticipantSid, TrackSid},
    sfu::{Command, MediaKind, OpusOptions, PendingTrack},
};

/// What we forward, best known first.
const VIDEO: [&str; 4] = ["VP8", "H264", "VP9", "AV1"];

/// The MIME type of a video codec by its name or MIME type in a request; `None` for one that we do not forward.
pub(super) fn video(name: &str) -> Option<String> {
    VIDEO.iter().find(|known| known.eq_ignore_ascii_case(self::name(name))).map(|known| format!("video/{known}"))
}

/// The codec's name without its kind.
pub(super) fn name(mime_type: &str) -> &str {
    mime_type.rsplit('/').next().unwrap_or_default()
}

/// The codecs in which a track will come, the preferred one first: what the client asked for and we forward.
pub(super) fn negotiate(
    kind: MediaKind,
    request: &AddTrackRequest,
    layers: &[proto::VideoLayer],
) -> Vec<SimulcastCodecInfo> {
    let of = |mime_type: String, cid: &str, codec: Option<&proto::SimulcastCodec>| SimulcastCodecInfo {
        mime_type,
        cid: cid.to_owned(),
        layers: codec.map(|codec| codec.layers.clone()).filter(|it| !it.is_empty()).unwrap_or(layers.to_vec()),
        video_layer_mode: codec.map_or(0, |codec| codec.video_layer_mode),
        ..SimulcastCodecInfo::default()
    };
    if kind == MediaKind::Audio {
        return vec![of("audio/opus".to_owned(), &request.cid, None)];
    }
    let mut codecs: Vec<SimulcastCodecInfo> = Vec::new();
    for codec in &request.simulcast_codecs {
        let Some(mime_type) = video(&codec.codec) else { continue };
        if codecs.iter().all(|known| known.mime_type != mime_type) {
            let cid = if codecs.is_empty() { &request.cid } else { &codec.cid };
            codecs.push(of(mime_type, cid, Some(codec)));
        }
    }
    if codecs.is_empty() {
        codecs.push(of("video/VP8".to_owned(), &request.cid, request.simulcast_codecs.first()));
    }
    codecs
}

impl Room {
    /// The client begins to send a live track in its second codec, too.
    pub(super) fn add_codec(&mut self, sid: &ParticipantSid, request: AddTrackRequest) {
        let wanted = request.simulcast_codecs.first().and_then(|codec| video(&codec.codec));
        let track = self.get_mut(sid).and_then(|p| p.track_mut(&request.sid)).filter(|track| track.live);
        let codec = track.and_then(|track| {
            let at = track.info.codecs.iter().skip(1).position(|known| Some(&known.mime_type) == wanted.as_ref())? + 1;
            track.info.codecs[at].cid.clone_from(&request.cid);
            Some((track.sid.clone(), track.kind, track.info.codecs[at].mime_type.clone(), track.info.clone()))
        });
        let Some((track, kind, mime_type, info)) = codec else {
            return self.refuse(sid, 0, Reason::NotFound, Some(proto::request_response::Request::AddTrack(request)));
        };
        let cid = request.cid.clone();
        self.tell(sid, Response::TrackPublished(proto::TrackPublishedResponse { cid, track: Some(info) }));
        let track = PendingTrack {
            track,
            kind,
            cids: vec![request.cid],
            codec: name(&mime_type).to_owned(),
            opus: OpusOptions::default(),
            backup: true,
            screen: false,
        };
        self.media(Command::Publish { room: self.sid.clone(), participant: sid.clone(), track });
    }

    /// A receiver takes none of a track's streams: its publisher is asked for its second codec. False where it offered
    /// none.
    pub(super) fn ask_for_backup(&mut self, track: &TrackSid) -> bool {
        let Some(owner) = self.owner_of(track) else { return false };
        // Who is shown here from another room cannot be asked from here.
        let Some(owning) = self.get_mut(&owner).filter(|p| p.double.is_none()) else { return false };
        let Some(found) = owning.track_mut(track.as_str()) else { return false };
        if found.info.codecs.len() < 2 {
            return false;
        }
        if !std::mem::replace(&mut found.backup_wanted, true) {
            self.tell_demand_of(&owner, track);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_and_forwarded_is_negotiated_in_its_order() {
        let codec =
            |name: &str, cid: &str| proto::SimulcastCodec { codec: name.into(), cid: cid.into(), ..Default::default() };
        let of = |codecs: Vec<proto::SimulcastCodec>| {
            let request = AddTrackRequest { cid: "cam".into(), simulcast_codecs: codecs, ..Default::default() };
            let named = |info: SimulcastCodecInfo| (info.mime_type, info.cid);
            negotiate(MediaKind::Video, &request, &[]).into_iter().map(named).collect::<Vec<_>>()
        };
        let is = |mime: &str, cid: &str| (mime.to_owned(), cid.to_owned());
        assert_eq!(of(vec![]), [is("video/VP8", "cam")]);
        assert_eq!(of(vec![codec("vp9", "cam"), codec("vp8", "")]), [is("video/VP9", "cam"), is("video/VP8", "")]);
        assert_eq!(of(vec![codec("h265", "cam"), codec("video/H264", "")]), [is("video/H264", "cam")]);
        assert_eq!(of(vec![codec("vp8", "cam"), codec("VP8", "x")]), [is("video/VP8", "cam")]);
    }
}
