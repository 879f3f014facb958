//! Taps: the interviewer's ears. A tap is open exactly while three things hold: the person allows it, their
//! microphone is live, and an agent is there to listen.

use super::{
    agent::AgentEvent,
    participant::{Participant, Track},
    room::{Output, Room},
};
use crate::{
    id::{Identity, ParticipantSid, TrackSid},
    media,
    sfu::Command,
};

pub(super) struct Tap {
    /// Tells it from those that were open on the same track before.
    pub id: u64,
    /// Who listens.
    pub agent: ParticipantSid,
    /// Who speaks.
    pub speaker: ParticipantSid,
}

impl Room {
    /// Whether this person's microphones may be tapped. Holds over rejoins, and until an agent leaves: the next one asks
    /// for itself, however the one before ended.
    pub fn allow_tap(&mut self, identity: &Identity, allowed: bool) {
        if allowed {
            self.taps_allowed.insert(identity.clone());
            self.sync_taps();
        } else {
            self.taps_allowed.remove(identity);
            let speakers: Vec<_> =
                self.participants.iter().filter(|p| p.identity == *identity).map(|p| p.sid.clone()).collect();
            self.close_taps(|tap, _| speakers.contains(&tap.speaker));
        }
    }

    /// Opens every tap that should be open and is not. Called where something changed, never because one was closed.
    pub(super) fn sync_taps(&mut self) {
        let Some(agent) = self.participants.iter().find(|p| p.is_agent()).map(|p| p.sid.clone()) else { return };
        // Who is shown from another room has agreed to nothing here, whatever somebody of its name has.
        let allowed = |p: &&Participant| p.has_client() && self.taps_allowed.contains(&p.identity);
        let voice = |t: &&Track| t.is_microphone() && !self.taps.contains_key(&t.sid);
        let missing: Vec<_> = self
            .participants
            .iter()
            .filter(allowed)
            .flat_map(|p| p.live_tracks().filter(voice).map(|t| (p.sid.clone(), p.identity.clone(), t.sid.clone())))
            .collect();
        for (sid, identity, track) in missing {
            let (tap, reader) = media::tap(self.config.tap_packets_max);
            self.taps_made += 1;
            let id = self.taps_made;
            self.taps.insert(track.clone(), Tap { id, agent: agent.clone(), speaker: sid.clone() });
            let (room, participant) = (self.sid.clone(), sid.clone());
            self.media(Command::OpenTap { room, participant, track: track.clone(), id, tap });
            self.tell_agent(agent.clone(), AgentEvent::TapOpened { sid, identity, track, reader });
        }
    }

    pub(super) fn close_taps(&mut self, which: impl Fn(&Tap, &TrackSid) -> bool) {
        let closing: Vec<_> =
            self.taps.iter().filter(|(track, tap)| which(tap, track)).map(|(t, _)| t.clone()).collect();
        for track in closing {
            let Some(tap) = self.taps.remove(&track) else { continue };
            self.media(Command::CloseTap { room: self.sid.clone(), track: track.clone() });
            self.tell_agent(tap.agent, AgentEvent::TapClosed { sid: tap.speaker, track });
        }
    }

    /// The media worker closed a tap by itself: it knows no such track, or nobody reads the tap. It is opened again
    /// with the next change of consent, tracks or agents, and not before: who dropped one reader may drop the next.
    pub(super) fn tap_closed(&mut self, track: &TrackSid, id: u64) {
        // One that was closed meanwhile, and maybe opened anew, is no news.
        if self.taps.get(track).is_none_or(|tap| tap.id != id) {
            return;
        }
        let Some(Tap { agent, speaker: sid, .. }) = self.taps.remove(track) else { return };
        tracing::warn!(room = %self.sid, participant = %sid, %track, "a tap ended that nobody closed");
        self.tell_agent(agent, AgentEvent::TapClosed { sid, track: track.clone() });
    }

    pub(super) fn tell_agent(&mut self, agent: ParticipantSid, event: AgentEvent) {
        self.push(Output::Agent { agent, event });
    }
}
