//! Who is speaking, as clients are told.
//!
//! LiveKit's browser client takes each message for a change, its native clients take it for the whole: so each message
//! names everybody who speaks, and whoever has just stopped.

use livekit_protocol as proto;
use proto::signal_response::Message as Response;

use super::{participant::Participant, room::Room};
use crate::id::ParticipantSid;

impl Room {
    pub(super) fn speaker_changed(&mut self, sid: &ParticipantSid, level: f32, active: bool) {
        let Some(p) = self.get_mut(sid) else { return };
        p.speaking = active.then_some(level);
        let (changed, hidden) = (info(p, level), p.hidden());
        if hidden {
            return self.tell(sid, Response::SpeakersChanged(proto::SpeakersChanged { speakers: vec![changed] }));
        }
        let mut speakers = self.speakers();
        if !active {
            speakers.push(changed);
        }
        self.tell_all(None, Response::SpeakersChanged(proto::SpeakersChanged { speakers }));
    }

    /// For a client that is new here, or was away.
    pub(super) fn tell_speakers_to(&mut self, sid: &ParticipantSid) {
        let speakers = self.speakers();
        if !speakers.is_empty() {
            self.tell(sid, Response::SpeakersChanged(proto::SpeakersChanged { speakers }));
        }
    }

    fn speakers(&self) -> Vec<proto::SpeakerInfo> {
        let seen = self.participants.iter().filter(|p| !p.hidden());
        seen.filter_map(|p| Some(info(p, p.speaking?))).collect()
    }
}

fn info(p: &Participant, level: f32) -> proto::SpeakerInfo {
    proto::SpeakerInfo { sid: p.sid.as_str().to_owned(), level, active: p.speaking.is_some() }
}
