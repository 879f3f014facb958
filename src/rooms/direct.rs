//! Participants without a signalling socket (WHIP, WHEP): they come by one offer and its answer, and leave by word, or
//! when their media connection ends or stays lost.
//!
//! Invariant: one exchange at a time; an answer that comes is the answer to the offer that came last.

use livekit_protocol as proto;
use proto::DisconnectReason;

use super::{
    Now, RoomError,
    participant::Participant,
    publish,
    room::{Output, Room},
    subscribe,
};
use crate::{
    auth::Claims,
    id::{Identity, ParticipantSid},
    sfu::{Command, Connections},
};

/// What a client without a socket comes for.
#[derive(Clone, Debug)]
pub enum Direct {
    /// Publishes these tracks, each named by the track id (`a=msid`) of its section.
    Publish { tracks: Vec<proto::AddTrackRequest> },
    /// Gets the tracks of one publisher, as many as it has sections for: this one's, else the first one's.
    Play { of: Option<Identity> },
}

/// An offer and the answer to it.
#[derive(Clone)]
pub struct Agreed {
    pub participant: ParticipantSid,
    /// Whether the participant publishes; else it plays.
    pub publishes: bool,
    pub offer: String,
    pub answer: String,
}

/// What the room keeps of such a participant.
pub(super) struct Visit {
    publishes: bool,
    /// Whom it wants to play, where it said so.
    wanted: Option<Identity>,
    /// Whom it plays.
    following: Option<ParticipantSid>,
    offers: u32,
    /// The offer that is not answered yet.
    offered: Option<String>,
    agreed: Option<(String, String)>,
}

impl Visit {
    /// The metric's label.
    pub fn protocol(&self) -> &'static str {
        if self.publishes { "whip" } else { "whep" }
    }

    /// Whether it is to get what this participant publishes.
    pub fn takes(&self, from: &Participant) -> bool {
        self.following.as_ref() == Some(&from.sid)
    }
}

impl Room {
    /// A client comes in. The answer to its offer comes as [`Output::Answered`].
    pub fn join_direct(
        &mut self,
        now: Now,
        claims: Claims,
        how: Direct,
        offer: String,
    ) -> Result<ParticipantSid, RoomError> {
        let (tracks, wanted, publishes) = match how {
            Direct::Publish { tracks } => (tracks, None, true),
            Direct::Play { of } => (Vec::new(), of, false),
        };
        let mut participant = Participant::new(claims.identity().ok_or(RoomError::NoIdentity)?, claims, now);
        if tracks.iter().any(|track| publish::refusal(&participant, track).is_some()) {
            return Err(RoomError::MayNotPublish);
        }
        participant.connections = if publishes { Connections::One } else { Connections::Fixed };
        participant.visit = Some(Visit { publishes, wanted, following: None, offers: 0, offered: None, agreed: None });
        self.make_way(now, &participant.identity, participant.kind)?;
        let (sid, connections) = (participant.sid.clone(), participant.connections);
        self.enter(participant);
        self.media(Command::Join { room: self.sid.clone(), participant: sid.clone(), connections });
        // Before the offer, so that its answer carries what is there already.
        self.follow();
        for track in tracks {
            self.add_track(now, &sid, track);
        }
        self.exchange(&sid, offer);
        self.introduce_person(&sid);
        Ok(sid)
    }

    /// A participant's offer, if it is without a socket and this identity's; false where there is none.
    pub fn offer_directly(&mut self, sid: &ParticipantSid, identity: &Identity, offer: String) -> bool {
        let known = self.agreed(sid, identity).is_some();
        if known {
            self.exchange(sid, offer);
        }
        known
    }

    fn exchange(&mut self, sid: &ParticipantSid, sdp: String) {
        let Some(visit) = self.visit_mut(sid) else { return };
        visit.offers += 1;
        visit.offered = Some(sdp.clone());
        let offer_id = visit.offers;
        self.media(Command::Offer { room: self.sid.clone(), participant: sid.clone(), offer_id, sdp });
    }

    /// The last offer of a participant without a socket, and its answer; if it is this identity's.
    pub fn agreed(&self, sid: &ParticipantSid, identity: &Identity) -> Option<Agreed> {
        let p = self.get(sid).filter(|p| p.identity == *identity)?;
        let visit = p.visit.as_ref()?;
        let (offer, answer) = visit.agreed.clone()?;
        Some(Agreed { participant: sid.clone(), publishes: visit.publishes, offer, answer })
    }

    /// Takes a participant without a socket out, if it is this identity's; false where there is none.
    pub fn leave_directly(&mut self, now: Now, sid: &ParticipantSid, identity: &Identity) -> bool {
        let known = self.get(sid).is_some_and(|p| p.identity == *identity && p.visit.is_some());
        if known {
            self.remove(now, sid, DisconnectReason::ClientInitiated, None);
        }
        known
    }

    /// The media worker's answer. Those to older offers than the last do not count.
    pub(super) fn answered(&mut self, sid: &ParticipantSid, offer_id: u32, answer: String) {
        let Some(visit) = self.visit_mut(sid).filter(|visit| visit.offers == offer_id) else { return };
        let Some(offer) = visit.offered.take() else { return };
        let first = visit.agreed.replace((offer, answer)).is_none();
        let protocol = visit.protocol();
        if first {
            self.metrics.participant_joins.with_label_values(&[protocol, "ok"]).inc();
        }
        let Some(identity) = self.get(sid).map(|p| p.identity.clone()) else { return };
        if let Some(agreed) = self.agreed(sid, &identity) {
            self.push(Output::Answered { participant: sid.clone(), result: Ok(Box::new(agreed)) });
        }
    }

    /// Nobody waits for the answer any more: a client that has none cannot connect.
    pub fn abandon(&mut self, now: Now, sid: &ParticipantSid) {
        if self.get(sid).is_some_and(|p| !p.is_active()) {
            self.remove(now, sid, DisconnectReason::ClientInitiated, None);
        }
    }

    /// Chooses anew whom those play who play one publisher. Must follow every change of what is published.
    pub(super) fn follow(&mut self) {
        let viewers: Vec<_> = self.participants.iter().filter(|p| p.visit.is_some()).map(|p| p.sid.clone()).collect();
        for sid in viewers {
            let choice = self.get(&sid).and_then(|viewer| self.choose(viewer));
            let Some(visit) = self.visit_mut(&sid) else { continue };
            if visit.following != choice {
                visit.following = choice;
                self.sync_subscriber(&sid);
            }
        }
    }

    /// People go before agents, who is played now before others, who came first before who came later.
    fn choose(&self, viewer: &Participant) -> Option<ParticipantSid> {
        let visit = viewer.visit.as_ref().filter(|visit| !visit.publishes)?;
        let publishes = |p: &&Participant| {
            p.sid != viewer.sid
                && visit.wanted.as_ref().is_none_or(|wanted| p.identity == *wanted)
                && p.live_tracks().any(|track| subscribe::permitted(p, &track.sid, viewer))
        };
        let publishers = self.participants.iter().filter(publishes);
        publishers.min_by_key(|p| (p.is_agent(), !visit.takes(p))).map(|p| p.sid.clone())
    }

    fn visit_mut(&mut self, sid: &ParticipantSid) -> Option<&mut Visit> {
        self.get_mut(sid)?.visit.as_mut()
    }
}
