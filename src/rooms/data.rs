//! Data packets between participants: checked, stamped with their sender, routed, never opened further.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message as _;
use proto::{DataPacket, data_packet::Value, participant_info};

use super::{Now, admin::CALLER, agent::AgentEvent, participant::Participant, room::Room};
use crate::{
    id::{Identity, ParticipantSid},
    sfu::{Command, DataChannel},
};

/// Bytes of one packet, as LiveKit's clients bound it. Our stamps come on top, and receivers take 65,536.
const PACKET_BYTES_MAX: usize = 64_000;
/// Identities that one packet may be addressed to.
const DESTINATIONS_MAX: usize = 256;
/// How long reliable packets are kept for those whose channel is not open yet, or who resume. A resume takes two
/// seconds in LiveKit's clients.
const REPLAY_KEPT: Duration = Duration::from_secs(4);
/// Bounds of what is kept for that, per room; the oldest go first.
const REPLAY_PACKETS_MAX: usize = 2048;
const REPLAY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Reliable packets of the last seconds.
#[derive(Default)]
pub(super) struct Replay {
    packets: VecDeque<Kept>,
    bytes: usize,
}

struct Kept {
    at: Instant,
    from: ParticipantSid,
    sequence: u32,
    /// Empty = everyone.
    to: Vec<String>,
    payload: Bytes,
}

impl Replay {
    fn keep(&mut self, kept: Kept) {
        let oldest = kept.at.checked_sub(REPLAY_KEPT);
        self.bytes += kept.payload.len();
        self.packets.push_back(kept);
        while self.packets.front().is_some_and(|first| {
            oldest.is_some_and(|oldest| first.at < oldest)
                || self.packets.len() > REPLAY_PACKETS_MAX
                || self.bytes > REPLAY_BYTES_MAX
        }) {
            if let Some(gone) = self.packets.pop_front() {
                self.bytes -= gone.payload.len();
            }
        }
    }
}

impl Room {
    /// A packet that came on a client's data channel.
    pub(super) fn data_from_client(&mut self, now: Now, from: &ParticipantSid, channel: DataChannel, payload: &Bytes) {
        if payload.len() > PACKET_BYTES_MAX {
            return;
        }
        let Ok(mut packet) = DataPacket::decode(payload.clone()) else { return };
        let Some(sender) = self.get_mut(from) else { return };
        if !sender.grants.can_publish_data() || !may_send(sender, packet.value.as_ref()) {
            return;
        }
        if channel == DataChannel::Reliable && packet.sequence != 0 {
            if packet.sequence <= sender.last_sequence {
                return;
            }
            sender.last_sequence = packet.sequence;
        }
        if let Some(Value::User(user)) = &packet.value
            && !sender.first_seen(&user.nonce)
        {
            return;
        }
        stamp(&mut packet, sender, channel);
        let identity = sender.identity.clone();
        if packet.destination_identities.iter().any(|to| to == CALLER) && self.take_answer(&identity, &packet) {
            return;
        }
        self.route(now, from, channel, packet);
    }

    /// A packet that is no participant's. It has no sequence number: who resumes does not get it twice, nor later.
    pub(super) fn data_from_server(&mut self, now: Now, channel: DataChannel, packet: DataPacket) -> Result<(), ()> {
        if packet.encoded_len() > PACKET_BYTES_MAX || packet.destination_identities.len() > DESTINATIONS_MAX {
            return Err(());
        }
        self.route(now, &ParticipantSid::from(""), channel, packet);
        Ok(())
    }

    /// A packet of a participant that lives in the server.
    pub(super) fn data_from_agent(&mut self, now: Now, from: &ParticipantSid, mut packet: DataPacket) {
        let Some(sender) = self.get_mut(from) else { return };
        let channel = channel_of(&packet);
        if channel == DataChannel::Reliable {
            sender.last_sequence = sender.last_sequence.wrapping_add(1);
            packet.sequence = sender.last_sequence;
        }
        stamp(&mut packet, sender, channel);
        self.route(now, from, channel, packet);
    }

    fn route(&mut self, now: Now, from: &ParticipantSid, channel: DataChannel, packet: DataPacket) {
        let label = match channel {
            DataChannel::Reliable => "reliable",
            DataChannel::Lossy => "lossy",
        };
        self.metrics.data_packets.with_label_values(&[label]).inc();
        let to = destinations(&packet);
        let addressed =
            |p: &Participant| p.sid != *from && (to.is_empty() || to.iter().any(|d| d == p.identity.as_str()));
        let mut clients = Vec::new();
        let mut agents = Vec::new();
        for p in self.participants.iter().filter(|p| addressed(p)) {
            if p.is_agent() {
                agents.push(p.sid.clone());
            } else if p.has_client() && (channel == DataChannel::Lossy || p.reliable_open) {
                clients.push(p.sid.clone());
            }
        }
        let payload = Bytes::from(packet.encode_to_vec());
        if channel == DataChannel::Reliable {
            let (from, sequence) = (from.clone(), packet.sequence);
            self.replay.keep(Kept { at: now.at, from, sequence, to, payload: payload.clone() });
        }
        for agent in agents {
            let reliable = channel == DataChannel::Reliable;
            let event = AgentEvent::Data { from: from.clone(), reliable, packet: Box::new(packet.clone()) };
            self.tell_agent(agent, event);
        }
        if !clients.is_empty() {
            self.media(Command::SendData { room: self.sid.clone(), to: clients, channel, payload });
        }
    }

    /// The reliable channel towards a participant is open: what was sent to it since it joined follows.
    pub(super) fn reliable_opened(&mut self, now: Now, sid: &ParticipantSid) {
        let Some(p) = self.get_mut(sid) else { return };
        if std::mem::replace(&mut p.reliable_open, true) {
            return;
        }
        let (identity, since) = (p.identity.clone(), p.joined.at);
        self.resend(now, sid, &identity, |kept| kept.at >= since);
    }

    /// A client that resumed says what it got last from each sender; what came after is sent again. Of a sender that
    /// it does not name it has got nothing.
    pub(super) fn replay_missed(
        &mut self,
        now: Now,
        sid: &ParticipantSid,
        received: &[proto::DataChannelReceiveState],
    ) {
        let Some(p) = self.get(sid) else { return };
        if !p.reliable_open {
            return;
        }
        let (identity, since) = (p.identity.clone(), p.joined.at);
        self.resend(now, sid, &identity, |kept| {
            let last = received.iter().find(|state| state.publisher_sid == kept.from.as_str()).map(|s| s.last_seq);
            kept.at >= since && kept.sequence > last.unwrap_or(0)
        });
    }

    fn resend(&mut self, now: Now, sid: &ParticipantSid, identity: &Identity, missed: impl Fn(&Kept) -> bool) {
        let recent = |kept: &&Kept| now.at.saturating_duration_since(kept.at) <= REPLAY_KEPT;
        let addressed = |kept: &&Kept| {
            kept.from != *sid && (kept.to.is_empty() || kept.to.iter().any(|to| to == identity.as_str()))
        };
        let packets: Vec<Bytes> = self
            .replay
            .packets
            .iter()
            .filter(recent)
            .filter(addressed)
            .filter(|kept| missed(kept))
            .map(|kept| kept.payload.clone())
            .collect();
        for payload in packets {
            let to = vec![sid.clone()];
            self.media(Command::SendData { room: self.sid.clone(), to, channel: DataChannel::Reliable, payload });
        }
    }
}

/// What is passed on. Speaker lists are the server's to send; metrics are for the server.
#[allow(deprecated)] // old clients may still send speakers
fn may_send(sender: &Participant, value: Option<&Value>) -> bool {
    match value {
        Some(Value::Transcription(_)) => sender.kind == participant_info::Kind::Agent,
        Some(Value::Speaker(_) | Value::Metrics(_)) | None => false,
        Some(_) => true,
    }
}

#[allow(deprecated)] // older clients read and write these fields
fn destinations(packet: &DataPacket) -> Vec<String> {
    let mut to = packet.destination_identities.clone();
    if let (true, Some(Value::User(user))) = (to.is_empty(), &packet.value) {
        to.clone_from(&user.destination_identities);
    }
    to.truncate(DESTINATIONS_MAX);
    to
}

#[allow(deprecated)]
fn channel_of(packet: &DataPacket) -> DataChannel {
    if packet.kind == proto::data_packet::Kind::Lossy as i32 { DataChannel::Lossy } else { DataChannel::Reliable }
}

/// Says who sent it. An agent may speak for somebody else: the transcription of what a person said is theirs.
#[allow(deprecated)]
fn stamp(packet: &mut DataPacket, sender: &Participant, channel: DataChannel) {
    packet.kind = match channel {
        DataChannel::Reliable => proto::data_packet::Kind::Reliable,
        DataChannel::Lossy => proto::data_packet::Kind::Lossy,
    } as i32;
    packet.participant_sid = sender.sid.as_str().to_owned();
    let on_behalf = sender.kind == participant_info::Kind::Agent
        && !packet.participant_identity.is_empty()
        && matches!(
            packet.value,
            Some(
                Value::StreamHeader(_)
                    | Value::StreamChunk(_)
                    | Value::StreamTrailer(_)
                    | Value::ChatMessage(_)
                    | Value::Transcription(_)
            )
        );
    if !on_behalf {
        packet.participant_identity = sender.identity.as_str().to_owned();
    }
    if let Some(Value::User(user)) = &mut packet.value {
        user.participant_sid = sender.sid.as_str().to_owned();
        user.participant_identity = sender.identity.as_str().to_owned();
    }
}
