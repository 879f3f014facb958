//! What webhooks are told of a room: LiveKit's events, and when they are due.
//!
//! As with LiveKit, somebody has joined when media can flow, not before; who leaves without that has only tried. Tracks
//! are told between joining and leaving, and once their media is negotiated. Hidden participants are told, too: the
//! integrator let them in.

use livekit_protocol as proto;
use proto::{DisconnectReason, ParticipantInfo, RoomEndReason, WebhookEvent};
use tokio::sync::mpsc;

use super::{
    participant::{Participant, Track},
    room::{Output, Room},
};
use crate::id::{ParticipantSid, TrackSid};

/// Where events for webhooks go.
pub type HookSender = mpsc::Sender<Box<WebhookEvent>>;

impl Room {
    /// The room is open, with the options that it was made with, if it was not told yet.
    pub(super) fn hook_started(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            self.hook(WebhookEvent { event: "room_started".into(), room: Some(self.info()), ..Default::default() });
        }
    }

    pub(super) fn hook_finished(&mut self, reason: DisconnectReason) {
        self.hook_started();
        let reason = match reason {
            DisconnectReason::RoomClosed => RoomEndReason::RoomEndIdleTimeout,
            DisconnectReason::RoomDeleted => RoomEndReason::RoomEndApiDelete,
            DisconnectReason::ServerShutdown => RoomEndReason::RoomEndServerShutdown,
            _ => RoomEndReason::RoomEndUnknown,
        };
        self.hook(WebhookEvent {
            event: "room_finished".into(),
            room: Some(self.info()),
            room_end_reason: reason as i32,
            ..Default::default()
        });
    }

    /// Media can flow to and from this participant; what it publishes already follows.
    pub(super) fn hook_joined(&mut self, sid: &ParticipantSid) {
        let Some(p) = self.get(sid) else { return };
        let tracks: Vec<_> = p.live_tracks().map(|track| track.sid.clone()).collect();
        self.hook_participant("participant_joined", p.info());
        for track in tracks {
            self.hook_published(sid, &track);
        }
    }

    /// This participant was taken out.
    pub(super) fn hook_left(&mut self, gone: &Participant, reason: DisconnectReason) {
        let farewell = gone.farewell(reason);
        if !gone.is_active() {
            return self.hook_participant("participant_connection_aborted", farewell);
        }
        for track in gone.live_tracks() {
            self.hook_track("track_unpublished", gone.into(), track.info.clone());
        }
        self.hook_participant("participant_left", farewell);
    }

    /// The media of this track is there.
    pub(super) fn hook_published(&mut self, sid: &ParticipantSid, track: &TrackSid) {
        let Some(p) = self.get(sid).filter(|p| p.is_active()) else { return };
        let Some(track) = p.track(track.as_str()) else { return };
        let (publisher, info) = (p.into(), track.info.clone());
        self.hook_track("track_published", publisher, info);
    }

    pub(super) fn hook_unpublished(&mut self, sid: &ParticipantSid, ended: &Track) {
        let Some(p) = self.get(sid).filter(|p| p.is_active()) else { return };
        let publisher = p.into();
        self.hook_track("track_unpublished", publisher, ended.info.clone());
    }

    fn hook_participant(&mut self, event: &str, participant: ParticipantInfo) {
        let (event, room) = (event.to_owned(), Some(self.info()));
        self.hook(WebhookEvent { event, room, participant: Some(participant), ..Default::default() });
    }

    /// Room and publisher are named and no more, as LiveKit does.
    fn hook_track(&mut self, event: &str, publisher: Publisher, track: proto::TrackInfo) {
        let room = proto::Room {
            sid: self.sid.as_str().to_owned(),
            name: self.name.as_str().to_owned(),
            ..proto::Room::default()
        };
        let (event, participant) = (event.to_owned(), Some(publisher.0));
        self.hook(WebhookEvent { event, room: Some(room), participant, track: Some(track), ..Default::default() });
    }

    fn hook(&mut self, event: WebhookEvent) {
        self.push(Output::Hook(Box::new(event)));
    }
}

/// Sid and identity of a participant.
struct Publisher(ParticipantInfo);

impl From<&Participant> for Publisher {
    fn from(p: &Participant) -> Self {
        let (sid, identity) = (p.sid.as_str().to_owned(), p.identity.as_str().to_owned());
        Self(ParticipantInfo { sid, identity, ..ParticipantInfo::default() })
    }
}
