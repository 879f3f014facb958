//! Participants that a service moves to another room.
//!
//! Where both rooms are on one worker, the participant goes with its peer connections, what it publishes, and its socket:
//! the client is told `room_moved` and negotiates nothing but what it receives. A client that does not know that
//! message, and one whose new room is on another worker, is told to join the new room anew, with a token for it.
//!
//! The old room forwards what still comes for who has moved ([`super::task`]); so nothing is lost on the way and nothing
//! overtakes anything.

use livekit_protocol as proto;
use proto::{
    DisconnectReason, ParticipantInfo, leave_request::Action, participant_info, signal_response::Message as Response,
};

use super::{
    AdminError, LinkId, Now, RoomError, ToPeer,
    agent::AgentEvent,
    participant::{MediaState, Participant},
    room::{Output, Room},
};
use crate::{
    auth::Claims,
    id::{Identity, ParticipantSid, RoomName, RoomSid},
    sfu::Command,
};

/// From this protocol on clients know `room_moved`.
const PROTOCOL_ROOM_MOVED: i32 = 16;

/// How somebody goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// With everything; arrives by [`Room::arrive`].
    Moved,
    /// Was told to join there anew.
    SentAway,
}

impl Room {
    /// Takes somebody out who goes to the room `to`. `together`: that room is on the same worker.
    pub fn depart(
        &mut self,
        now: Now,
        identity: &Identity,
        to: (&RoomName, &RoomSid),
        together: bool,
    ) -> Result<Departure, AdminError> {
        let p = self.find_own(identity)?;
        if p.is_agent() {
            return Err(AdminError::Agent);
        }
        let (Some(link), Some(mut claims)) = (p.link, p.refreshed_claims()) else {
            return Err(AdminError::NotConnected);
        };
        claims.grants.room = to.0.as_str().to_owned();
        let (sid, protocol, media) = (p.sid.clone(), p.protocol, p.media);
        if !together || protocol < PROTOCOL_ROOM_MOVED || matches!(media, MediaState::Closed { .. }) {
            self.push(Output::Signal { link, message: ToPeer::RefreshToken(Box::new(claims)) });
            self.remove(now, &sid, DisconnectReason::Migration, Some(Action::Reconnect));
            return Ok(Departure::SentAway);
        }
        let command = Command::Move { room: self.sid.clone(), participant: sid.clone(), to: to.1.clone() };
        let Some(gone) = self.take_out(now, &sid, DisconnectReason::Migration, command) else {
            return Err(AdminError::NoParticipant);
        };
        // Some clients keep whom they saw until they are told otherwise.
        let seen = self.participants.iter().filter(|p| !p.hidden());
        let participants: Vec<_> = seen.map(|p| p.farewell(DisconnectReason::Migration)).collect();
        if !participants.is_empty() {
            let update = Response::Update(proto::ParticipantUpdate { participants });
            self.push(Output::Signal { link, message: ToPeer::message(update) });
        }
        self.push(Output::Depart(Box::new(Traveller { participant: gone, claims })));
        Ok(Departure::Moved)
    }

    /// Whether somebody of this identity could come in.
    pub fn would_take(&self, identity: &Identity) -> Result<(), RoomError> {
        self.predecessor(identity, participant_info::Kind::Standard).map(|_| ())
    }

    /// Somebody comes from another room. The media worker has it here already; who cannot be let in is told to go.
    pub fn arrive(&mut self, now: Now, traveller: Traveller) -> Result<(), RoomError> {
        let Traveller { participant: mut p, claims } = traveller;
        if let Err(error) = self.make_way(now, &p.identity, p.kind) {
            self.media(Command::Leave { room: self.sid.clone(), participant: p.sid });
            if let Some(link) = p.link {
                self.send_leave(link, DisconnectReason::JoinFailure, Action::Disconnect);
            }
            return Err(error);
        }
        p.grants.room.clone_from(&claims.grants.room);
        p.claims = Some(claims.clone());
        settle_in(&mut p, now);
        let (sid, active) = (p.sid.clone(), p.is_active());
        let tracks: Vec<_> =
            p.live_tracks().map(|t| (t.sid.clone(), t.kind, t.is_microphone() && t.info.muted)).collect();
        let link = p.link;
        self.enter(p);
        for (_, kind, _) in &tracks {
            self.count_track(*kind, 1);
        }
        if let Some(link) = link {
            let moved = Box::new(self.moved(&sid));
            self.push(Output::Signal { link, message: ToPeer::RoomMoved { moved, claims: Box::new(claims) } });
        }
        self.mark_announced(&sid);
        self.tell_speakers_to(&sid);
        self.tell_qualities_to(&sid);
        self.refresh_token(now, &sid);
        self.introduce_person(&sid);
        if active {
            self.tell_agents(|_| Some(AgentEvent::Active { sid: sid.clone() }));
            self.hook_joined(&sid);
        }
        self.sync_subscriber(&sid);
        for (track, _, silent) in tracks {
            self.sync_track(&sid, &track);
            if silent {
                let event = || AgentEvent::Muted { sid: sid.clone(), track: track.clone(), muted: true };
                self.tell_agents(|_| Some(event()));
            }
        }
        self.sync_data_of(&sid);
        self.follow();
        self.sync_taps();
        Ok(())
    }

    fn moved(&self, sid: &ParticipantSid) -> proto::RoomMovedResponse {
        let others = self.participants.iter().filter(|p| p.sid != *sid && !p.hidden());
        let other_participants: Vec<ParticipantInfo> = others.map(Participant::info).collect();
        proto::RoomMovedResponse {
            room: Some(self.info()),
            // The signalling side has the keys.
            token: String::new(),
            participant: self.get(sid).map(Participant::info),
            other_participants,
        }
    }
}

/// Somebody between two rooms.
pub(super) struct Traveller {
    pub participant: Participant,
    /// Of the token by which it may come back to the new room.
    claims: Claims,
}

impl Traveller {
    pub fn sid(&self) -> &ParticipantSid {
        &self.participant.sid
    }

    pub fn link(&self) -> Option<LinkId> {
        self.participant.link
    }
}

/// What was between it and the people of its old room ends.
fn settle_in(p: &mut Participant, now: Now) {
    p.joined = now;
    p.version += 1;
    p.subscribed.clear();
    p.wanted.clear();
    p.announced.clear();
    p.views.clear();
    p.speaking = None;
    p.simulated_speaker_until = None;
    p.data_tracks.unsubscribe_all();
}
