//! A participant that lives in the server: no transport, its voice is injected, its ears are taps.

use std::{collections::HashMap, sync::Arc, time::Instant};

use livekit_protocol as proto;
use tokio::sync::mpsc;

use crate::{
    id::{Identity, ParticipantSid, RoomSid, TrackSid},
    media::{AudioSink, TapReader},
};

pub struct AgentOptions {
    pub identity: Identity,
    pub name: String,
    /// For instance `lk.agent.state`.
    pub attributes: HashMap<String, String>,
}

/// A person in the room, as the agent sees them.
#[derive(Clone)]
pub struct Person {
    pub sid: ParticipantSid,
    pub identity: Identity,
    pub name: String,
    pub attributes: HashMap<String, String>,
}

/// What happens in the room, told in order. The first events describe who is there already.
pub enum AgentEvent {
    Joined(Person),
    /// Media can flow to and from the person.
    Active {
        sid: ParticipantSid,
    },
    AttributesChanged(Person),
    Left {
        sid: ParticipantSid,
        identity: Identity,
    },
    /// The person may be heard from here on: their microphone is live and the tap on it is allowed
    /// ([`super::RoomHandle::allow_tap`]).
    TapOpened {
        sid: ParticipantSid,
        identity: Identity,
        track: TrackSid,
        reader: TapReader,
    },
    /// The tap was closed: consent withdrawn, unpublished or left. Its reader ends after what is in it.
    TapClosed {
        sid: ParticipantSid,
        track: TrackSid,
    },
    Muted {
        sid: ParticipantSid,
        track: TrackSid,
        muted: bool,
    },
    /// A data packet addressed to the agent or to everyone; sender fields are stamped by the server.
    Data {
        from: ParticipantSid,
        reliable: bool,
        packet: Box<proto::DataPacket>,
    },
    /// See [`crate::media::OpusFrame::report`].
    Injected {
        report: u64,
        at: Instant,
    },
    /// Nobody will come any more; the last event.
    RoomClosed,
}

/// What the interviewer holds of its room.
pub struct AgentParticipant {
    pub room: RoomSid,
    pub sid: ParticipantSid,
    pub identity: Identity,
    /// The track that it speaks on.
    pub track: TrackSid,
    pub events: mpsc::Receiver<AgentEvent>,
    pub sink: Arc<dyn AudioSink>,
    // The room's mailbox follows; see the methods.
}

impl AgentParticipant {
    /// Changes the agent's attributes (`lk.agent.state`, `viva.progress`, …) for all to see; an empty value deletes.
    pub async fn set_attributes(&self, _attributes: HashMap<String, String>) {
        todo!()
    }

    /// Sends a data packet from the agent: to everyone but itself where `destination_identities` is empty. Where
    /// `participant_identity` is set it is left (a transcription on behalf of the speaker). The room stamps `sequence`.
    pub async fn send_data(&self, _packet: proto::DataPacket) {
        todo!()
    }

    /// Leaves the room.
    pub async fn leave(self) {
        todo!()
    }
}
