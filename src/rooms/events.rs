//! What the media worker says of a participant.

use livekit_protocol as proto;
use proto::{
    ConnectionQuality, DisconnectReason, SubscriptionError, leave_request::Action, signal_response::Message as Response,
};

use super::{
    Now, RoomError,
    agent::AgentEvent,
    participant::{MediaState, Participant},
    room::{Output, Room},
};
use crate::{
    id::{ParticipantSid, TrackSid},
    sfu::{DataChannel, EventKind},
};

/// Scores that go with the two qualities that are told; LiveKit's scale ends at 5.
const SCORE_EXCELLENT: f32 = 5.0;
const SCORE_GOOD: f32 = 3.5;

impl Room {
    pub fn handle_event(&mut self, now: Now, sid: &ParticipantSid, event: EventKind) {
        match event {
            EventKind::Answer { offer_id, sdp, .. } if self.get(sid).is_some_and(|p| p.visit.is_some()) => {
                self.answered(sid, offer_id, sdp);
            }
            EventKind::Answer { offer_id, sdp, tracks } => {
                let answer = self.description(sid, "answer", offer_id, sdp, tracks);
                self.tell(sid, Response::Answer(answer));
            }
            EventKind::Offer { offer_id, sdp, tracks } => {
                let offer = self.description(sid, "offer", offer_id, sdp, tracks);
                self.tell(sid, Response::Offer(offer));
            }
            EventKind::OfferRejected { offer_id, reason } => self.offer_rejected(now, sid, offer_id, reason),
            EventKind::MediaSectionsRequired { audios, videos } => {
                let requirement = proto::MediaSectionsRequirement { num_audios: audios, num_videos: videos };
                self.tell(sid, Response::MediaSectionsRequirement(requirement));
            }
            EventKind::Connected => self.connected(now, sid),
            EventKind::Disconnected => {
                let Some(p) = self.get_mut(sid) else { return };
                // One that was never up keeps the time that it has for the first attempt.
                if p.media == MediaState::Up {
                    p.media = MediaState::Lost { since: now.at, nudged: p.silence.was_asked() };
                    self.tell_quality(sid);
                }
            }
            EventKind::Silent { since } => {
                if let Some(p) = self.get_mut(sid) {
                    p.silence.begin(now.at, since);
                }
            }
            EventKind::Heard => {
                if let Some(p) = self.get_mut(sid) {
                    p.silence.end();
                }
            }
            EventKind::Closed { reason } => {
                tracing::info!(room = %self.sid, participant = %sid, reason, "a transport ended");
                match self.get_mut(sid) {
                    Some(p) if p.link.is_some() => p.media = MediaState::Closed { since: now.at },
                    // Its voice went with the room on the media worker: who joins again would hear nothing.
                    Some(p) if p.is_agent() => self.remove(now, sid, DisconnectReason::MediaFailure, None),
                    _ => self.remove(now, sid, DisconnectReason::ClientInitiated, None),
                }
            }
            EventKind::TrackLive { track, mid } => self.track_live(sid, &track, mid),
            EventKind::TrackCodec { track, mime_type } => self.track_codec(sid, &track, mime_type),
            EventKind::TrackEnded { track } => self.track_ended(sid, &track),
            EventKind::TrackSubscribed { track } => {
                let subscribed = proto::TrackSubscribed { track_sid: track.as_str().to_owned() };
                self.tell(sid, Response::TrackSubscribed(subscribed));
            }
            EventKind::TrackUnsupported { track } if self.ask_for_backup(&track) => {}
            EventKind::TrackUnsupported { track } => {
                let err = SubscriptionError::SeCodecUnsupported as i32;
                let response = proto::SubscriptionResponse { track_sid: track.as_str().to_owned(), err };
                self.tell(sid, Response::SubscriptionResponse(response));
            }
            EventKind::StreamState { track, paused } => self.stream_state(sid, &track, paused),
            EventKind::TapClosed { track, id } => self.tap_closed(&track, id),
            EventKind::DataChannelOpen { channel: DataChannel::Reliable } => self.reliable_opened(now, sid),
            EventKind::DataChannelOpen { channel: DataChannel::Lossy } => {}
            EventKind::Data { channel, payload } => self.data_from_client(now, sid, channel, &payload),
            EventKind::Speaker { level, active } => self.speaker_changed(sid, level, active),
            // The task's affair, which passes on what comes of who moved.
            EventKind::Moved => {}
            EventKind::Injected { report, at, .. } => self.tell_agent(sid.clone(), AgentEvent::Injected { report, at }),
        }
    }

    /// SDP for a client. It names only tracks that were announced to it.
    fn description(
        &self,
        sid: &ParticipantSid,
        kind: &str,
        id: u32,
        sdp: String,
        tracks: Vec<(String, TrackSid)>,
    ) -> proto::SessionDescription {
        let announced = |track: &TrackSid| self.get(sid).is_some_and(|p| p.announced.contains(track));
        let mid_to_track_id = tracks
            .into_iter()
            .filter(|(_, track)| announced(track))
            .map(|(mid, track)| (mid, track.as_str().to_owned()))
            .collect();
        proto::SessionDescription { r#type: kind.to_owned(), sdp, id, mid_to_track_id }
    }

    /// A first offer that we cannot answer ends the attempt; a later one is worth a new start.
    pub(super) fn offer_rejected(&mut self, now: Now, sid: &ParticipantSid, offer_id: u32, reason: &'static str) {
        tracing::warn!(room = %self.sid, participant = %sid, offer_id, reason, "an offer was rejected");
        let Some(p) = self.get(sid) else { return };
        let first = p.media == MediaState::New;
        if first {
            self.metrics.participant_joins.with_label_values(&[p.protocol_label(), "failed"]).inc();
        }
        if p.visit.is_some() {
            let result = Err(RoomError::OfferRejected(reason));
            self.push(Output::Answered { participant: sid.clone(), result });
        }
        let action = if first { Action::Disconnect } else { Action::Reconnect };
        self.remove(now, sid, DisconnectReason::JoinFailure, Some(action));
    }

    fn connected(&mut self, now: Now, sid: &ParticipantSid) {
        let Some(p) = self.get_mut(sid) else { return };
        if p.is_agent() {
            return;
        }
        p.media = MediaState::Up;
        let protocol = p.protocol_label();
        let took = now.at.saturating_duration_since(p.joined.at);
        if self.set_active(sid) {
            self.metrics.join_duration.with_label_values(&[protocol]).observe(took.as_secs_f64());
            self.announce(sid, true);
            self.tell_speakers_to(sid);
            self.tell_qualities_to(sid);
            self.hook_joined(sid);
            let active = sid.clone();
            self.tell_agents(|_| Some(AgentEvent::Active { sid: active.clone() }));
        }
        self.tell_quality(sid);
    }

    /// How good this participant's connection is. Never LOST: a browser that hears that of itself starts anew.
    fn tell_quality(&mut self, sid: &ParticipantSid) {
        let Some(p) = self.get(sid) else { return };
        let Some(update) = quality(p) else { return };
        let hidden = p.hidden();
        let message = Response::ConnectionQuality(proto::ConnectionQualityUpdate { updates: vec![update] });
        if hidden { self.tell(sid, message) } else { self.tell_all(None, message) }
    }

    /// How good everybody else's is, for a client that is new here, or was away.
    pub(super) fn tell_qualities_to(&mut self, sid: &ParticipantSid) {
        let others = self.participants.iter().filter(|p| p.sid != *sid && !p.hidden());
        let updates: Vec<_> = others.filter_map(quality).collect();
        if !updates.is_empty() {
            self.tell(sid, Response::ConnectionQuality(proto::ConnectionQualityUpdate { updates }));
        }
    }
}

/// `None` for who has no connection, or none yet.
fn quality(p: &Participant) -> Option<proto::ConnectionQualityInfo> {
    let (quality, score) = match p.media {
        MediaState::Up => (ConnectionQuality::Excellent, SCORE_EXCELLENT),
        MediaState::Lost { .. } => (ConnectionQuality::Good, SCORE_GOOD),
        MediaState::New | MediaState::Closed { .. } | MediaState::None | MediaState::Elsewhere => return None,
    };
    let participant_sid = p.sid.as_str().to_owned();
    Some(proto::ConnectionQualityInfo { participant_sid, quality: quality as i32, score })
}
