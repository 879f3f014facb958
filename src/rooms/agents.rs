//! Participants that live in the server, on the room's side. [`super::AgentParticipant`] is the other side.

use std::collections::HashMap;

use livekit_protocol as proto;
use proto::{DisconnectReason, TrackInfo, TrackSource, TrackType, leave_request::Action, participant_info};

use super::{
    Now, RoomError,
    agent::{AgentEvent, AgentOptions},
    participant::{MediaState, Participant, Track},
    requests::MetadataChange,
    room::Room,
};
use crate::{
    auth::{Claims, Grants},
    id::{ParticipantSid, TrackSid},
    sfu::{Command, Connections, MediaKind},
};

impl Room {
    /// An agent comes in; returns it and the track that it speaks on. Its first events describe who is there.
    pub fn join_agent(&mut self, now: Now, options: AgentOptions) -> Result<(ParticipantSid, TrackSid), RoomError> {
        if self.is_closed() {
            return Err(RoomError::Closed);
        }
        if let Some(sid) = self.participants.iter().find(|p| p.identity == options.identity).map(|p| p.sid.clone()) {
            self.remove(now, &sid, DisconnectReason::DuplicateIdentity, Some(Action::Disconnect));
        }
        let mut claims = Claims::new(&options.identity, Grants::participant(&self.name));
        claims.kind = "agent".to_owned();
        claims.name = options.name;
        claims.attributes = options.attributes;
        let mut agent = Participant::new(options.identity, claims, now);
        agent.claims = None;
        agent.media = MediaState::None;
        agent.state = participant_info::State::Active;
        let (sid, track) = (agent.sid.clone(), TrackSid::random());
        agent.tracks.push(Track {
            sid: track.clone(),
            kind: MediaKind::Audio,
            info: voice(&track),
            cid: String::new(),
            live: true,
            announced: now.at,
            demand: Default::default(),
            backup_wanted: false,
        });
        self.enter(agent);
        self.count_track(MediaKind::Audio, 1);
        let (room, participant) = (self.sid.clone(), sid.clone());
        self.media(Command::Join { room, participant, connections: Connections::None });
        let (room, participant) = (self.sid.clone(), sid.clone());
        self.media(Command::PublishInjected { room, participant, track: track.clone() });
        self.announce(&sid, false);
        self.sync_track(&sid, &track);
        self.hook_joined(&sid);
        self.follow();
        self.introduce(&sid);
        self.sync_taps();
        Ok((sid, track))
    }

    /// Tells an agent who is there already.
    fn introduce(&mut self, agent: &ParticipantSid) {
        let people: Vec<_> = self.participants.iter().filter(|p| p.has_client()).map(|p| p.sid.clone()).collect();
        for sid in people {
            let Some(person) = self.person(&sid) else { continue };
            self.tell_agent(agent.clone(), AgentEvent::Joined(person));
            let Some(p) = self.get(&sid) else { continue };
            let active = p.is_active();
            let muted: Vec<_> =
                p.live_tracks().filter(|t| t.is_microphone() && t.info.muted).map(|t| t.sid.clone()).collect();
            if active {
                self.tell_agent(agent.clone(), AgentEvent::Active { sid: sid.clone() });
            }
            for track in muted {
                self.tell_agent(agent.clone(), AgentEvent::Muted { sid: sid.clone(), track, muted: true });
            }
        }
    }

    pub fn agent_attributes(&mut self, sid: &ParticipantSid, attributes: HashMap<String, String>) {
        self.change_metadata(sid, MetadataChange { name: String::new(), metadata: String::new(), attributes });
    }

    pub fn agent_leave(&mut self, now: Now, sid: &ParticipantSid) {
        if self.get(sid).is_some_and(Participant::is_agent) {
            self.remove(now, sid, DisconnectReason::ClientInitiated, None);
        }
    }
}

/// The track that an agent speaks on.
fn voice(sid: &TrackSid) -> TrackInfo {
    TrackInfo {
        sid: sid.as_str().to_owned(),
        r#type: TrackType::Audio as i32,
        name: "voice".to_owned(),
        source: TrackSource::Microphone as i32,
        mime_type: "audio/opus".to_owned(),
        codecs: vec![proto::SimulcastCodecInfo {
            mime_type: "audio/opus".to_owned(),
            ..proto::SimulcastCodecInfo::default()
        }],
        disable_red: true,
        stream: "camera".to_owned(),
        ..TrackInfo::default()
    }
}
