//! What a session needs of the world around it: a room, a mouth, ears. In the server these are [`crate::rooms`] and
//! [`crate::speech`]; tests and benches put scripts in their place.

use std::collections::HashMap;

use livekit_protocol as proto;
use tokio::sync::mpsc;

use crate::{
    id::{Identity, TrackSid},
    media::TapReader,
    rooms::{AgentParticipant, RoomError, RoomHandle},
    speech::{listener::SpeechEvent, speaker::Speaker},
};

/// The room, as the interviewer acts on it. Events come by a channel of their own.
pub trait RoomPort: Send + Sync + 'static {
    /// Of the interviewer.
    fn identity(&self) -> &Identity;
    /// The track that the interviewer speaks on.
    fn track(&self) -> &TrackSid;
    fn set_attributes(&self, attributes: HashMap<String, String>) -> impl Future<Output = ()> + Send;
    fn send_data(&self, packet: proto::DataPacket) -> impl Future<Output = ()> + Send;
    fn allow_tap(&self, identity: &Identity, allowed: bool) -> impl Future<Output = Result<(), RoomError>> + Send;
    fn leave(self) -> impl Future<Output = ()> + Send;
}

/// A place in a real room.
pub struct Seat {
    pub room: RoomHandle,
    pub agent: AgentParticipant,
}

impl RoomPort for Seat {
    fn identity(&self) -> &Identity {
        &self.agent.identity
    }

    fn track(&self) -> &TrackSid {
        &self.agent.track
    }

    async fn set_attributes(&self, attributes: HashMap<String, String>) {
        self.agent.set_attributes(attributes).await;
    }

    async fn send_data(&self, packet: proto::DataPacket) {
        self.agent.send_data(packet).await;
    }

    async fn allow_tap(&self, identity: &Identity, allowed: bool) -> Result<(), RoomError> {
        self.room.allow_tap(identity, allowed).await
    }

    async fn leave(self) {
        self.agent.leave().await;
    }
}

/// Speaks; see [`Speaker`] for what each does.
pub trait Mouth: Send + Sync {
    fn say(&self, utterance: u64, clause: String);
    fn end(&self, utterance: u64);
    fn interrupt(&self);
}

impl Mouth for Speaker {
    fn say(&self, utterance: u64, clause: String) {
        Speaker::say(self, utterance, clause);
    }

    fn end(&self, utterance: u64) {
        Speaker::end(self, utterance);
    }

    fn interrupt(&self) {
        Speaker::interrupt(self);
    }
}

/// Listens to one tap.
pub type Listen = Box<dyn Fn(TapReader) -> mpsc::Receiver<SpeechEvent> + Send + Sync>;
