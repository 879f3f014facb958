//! A participant that lives in the server: no transport, its voice is injected, its ears are taps.

use std::{collections::HashMap, fmt, sync::Arc, time::Instant};

use livekit_protocol as proto;
use tokio::sync::mpsc;

use super::task::Mail;
use crate::{
    id::{Identity, ParticipantSid, RoomSid, TrackSid},
    media::{AudioSink, OpusFrame, SinkClosed, TapReader},
    sfu::Command,
    telemetry::Metrics,
    worker::WorkerHandle,
};

pub struct AgentOptions {
    pub identity: Identity,
    pub name: String,
    /// For instance `lk.agent.state`.
    pub attributes: HashMap<String, String>,
}

/// A person in the room, as the agent sees them. `Debug` shows ids only.
#[derive(Clone)]
pub struct Person {
    pub sid: ParticipantSid,
    pub identity: Identity,
    pub name: String,
    pub attributes: HashMap<String, String>,
    /// Somebody who is seen by all, and no agent or recorder.
    pub human: bool,
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Person").field("sid", &self.sid).finish_non_exhaustive()
    }
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
    /// The tap was closed: consent withdrawn, unpublished or left; or nobody read it. Its reader ends after what is
    /// in it.
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
    /// Nobody will come any more; at most the end of taps follows. Without it, the end of the events says that the
    /// agent was taken out.
    RoomClosed,
}

/// What the interviewer holds of its room. It leaves when this is dropped.
pub struct AgentParticipant {
    pub room: RoomSid,
    pub sid: ParticipantSid,
    pub identity: Identity,
    /// The track that it speaks on.
    pub track: TrackSid,
    pub events: mpsc::Receiver<AgentEvent>,
    pub sink: Arc<dyn AudioSink>,
    mailbox: Presence,
}

/// Keeps the agent in the room.
struct Presence {
    sid: ParticipantSid,
    mailbox: mpsc::Sender<Mail>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mail = Mail::AgentLeave { sid: self.sid.clone() };
        let Err(mpsc::error::TrySendError::Full(mail)) = self.mailbox.try_send(mail) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mailbox = self.mailbox.clone();
            runtime.spawn(async move { mailbox.send(mail).await });
        }
    }
}

impl AgentParticipant {
    pub(super) fn new(
        room: RoomSid,
        sid: ParticipantSid,
        identity: Identity,
        track: TrackSid,
        events: mpsc::Receiver<AgentEvent>,
        sink: Arc<dyn AudioSink>,
        mailbox: mpsc::Sender<Mail>,
    ) -> Self {
        let mailbox = Presence { sid: sid.clone(), mailbox };
        Self { room, sid, identity, track, events, sink, mailbox }
    }

    /// Changes the agent's attributes (`lk.agent.state`, `viva.progress`, …) for all to see; an empty value deletes.
    pub async fn set_attributes(&self, attributes: HashMap<String, String>) {
        self.handle().set_attributes(attributes).await;
    }

    /// Sends a data packet from the agent: to everyone but itself where `destination_identities` is empty. Where
    /// `participant_identity` is set it is left (a transcription on behalf of the speaker). The room stamps `sequence`.
    pub async fn send_data(&self, packet: proto::DataPacket) {
        self.handle().send_data(packet).await;
    }

    /// The agent's voice in the room, for other tasks than the one that reads `events`. Does not keep the agent in it.
    pub fn handle(&self) -> AgentHandle {
        AgentHandle { sid: self.sid.clone(), mailbox: self.mailbox.mailbox.clone() }
    }

    /// Leaves the room.
    pub async fn leave(self) {
        drop(self);
    }
}

/// Speaks to the room for an agent. Cheap to clone; does nothing once the agent or the room is gone.
#[derive(Clone)]
pub struct AgentHandle {
    sid: ParticipantSid,
    mailbox: mpsc::Sender<Mail>,
}

impl AgentHandle {
    /// See [`AgentParticipant::set_attributes`].
    pub async fn set_attributes(&self, attributes: HashMap<String, String>) {
        // A closed mailbox is a closed room, which the agent hears of by its events.
        let _ = self.mailbox.send(Mail::AgentAttributes { sid: self.sid.clone(), attributes }).await;
    }

    /// See [`AgentParticipant::send_data`].
    pub async fn send_data(&self, packet: proto::DataPacket) {
        let _ = self.mailbox.send(Mail::AgentData { sid: self.sid.clone(), packet: Box::new(packet) }).await;
    }
}

/// Hands the agent's voice to the media worker.
pub(super) struct InjectedVoice {
    pub room: RoomSid,
    pub track: TrackSid,
    pub worker: WorkerHandle,
    pub mailbox: mpsc::Sender<Mail>,
    pub metrics: Arc<Metrics>,
}

impl AudioSink for InjectedVoice {
    fn inject(&self, frame: OpusFrame) -> Result<(), SinkClosed> {
        if self.mailbox.is_closed() {
            return Err(SinkClosed);
        }
        let command = Command::Inject { room: self.room.clone(), track: self.track.clone(), frame };
        if !self.worker.try_send(command).map_err(|_| SinkClosed)? {
            self.metrics.sfu_packets_dropped.with_label_values(&["queue_full"]).inc();
        }
        Ok(())
    }
}
