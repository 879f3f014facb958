//! What goes into the media core and what comes out of it. Plain values: no handles, no clocks.

use std::time::Instant;

use bytes::Bytes;

use super::{
    lane::{LaneEnd, LaneId},
    subscription::View,
};
use crate::{
    id::{DataTrackSid, ParticipantSid, RoomSid, TrackSid},
    media::{OpusFrame, TapWriter},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    Audio,
    Video,
}

/// The data channels that a LiveKit client opens, by label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataChannel {
    /// `_reliable`: ordered, retransmitted.
    Reliable,
    /// `_lossy`: unordered, never retransmitted.
    Lossy,
}

/// A track that a client has announced but whose media section has not been seen yet.
#[derive(Clone, Debug)]
pub struct PendingTrack {
    pub track: TrackSid,
    pub kind: MediaKind,
    /// The client's own ids of it: the track part of `a=msid`. Empty strings never match.
    pub cids: Vec<String>,
    /// The codec that the client means to send, as RTP names it (`VP9`); empty where it did not say.
    pub codec: String,
    pub opus: OpusOptions,
    /// It is another encoding of a track that is live, in a codec for those who do not take its first.
    pub backup: bool,
    /// It shows a screen, which matters more than faces.
    pub screen: bool,
}

/// How a publisher is asked to send Opus (RFC 7587).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusOptions {
    /// With redundancy (RFC 2198), and receivers may get it so.
    pub red: bool,
    /// Nothing but now and then a packet while it is silent.
    pub dtx: bool,
    pub stereo: bool,
}

impl Default for OpusOptions {
    /// Of a track that is not announced.
    fn default() -> Self {
        Self { red: true, dtx: false, stereo: false }
    }
}

/// How a participant is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// It lives in the server: it only injects and is tapped from.
    None,
    /// One peer connection for both directions; the client offers.
    One,
    /// One that is negotiated once: the client offers, and what it receives comes and goes on the sections of that offer.
    Fixed,
    /// The client offers one to publish by, we offer another one that it receives by.
    Two,
}

pub enum Command {
    /// Takes the room down with all that is in it.
    Close {
        room: RoomSid,
    },
    /// Adds a participant. The room comes into being with its first one.
    Join {
        room: RoomSid,
        participant: ParticipantSid,
        connections: Connections,
    },
    /// Removes a participant, its tracks and its subscriptions; the room goes with its last participant.
    Leave {
        room: RoomSid,
        participant: ParticipantSid,
    },
    /// Takes a participant into another room of this worker, which comes into being with it: with its connections and
    /// what it publishes, and without what it received. [`EventKind::Moved`] is the last that comes of it under this
    /// room's name.
    Move {
        room: RoomSid,
        participant: ParticipantSid,
        to: RoomSid,
    },
    /// The client's offer, first or later; a new ICE ufrag in it is an ICE restart. Answered by [`EventKind::Answer`]
    /// or [`EventKind::OfferRejected`].
    Offer {
        room: RoomSid,
        participant: ParticipantSid,
        offer_id: u32,
        sdp: String,
    },
    /// The client's answer to [`EventKind::Offer`].
    Answer {
        room: RoomSid,
        participant: ParticipantSid,
        offer_id: u32,
        sdp: String,
    },
    /// The client came back on another socket: what we offer is offered anew, with an ICE restart. For
    /// [`Connections::Two`] only.
    Reoffer {
        room: RoomSid,
        participant: ParticipantSid,
    },
    /// The client announced a track (AddTrack). Matched with a media section of an offer before or after.
    Publish {
        room: RoomSid,
        participant: ParticipantSid,
        track: PendingTrack,
    },
    /// Makes a track of a participant without a transport; it is live at once.
    PublishInjected {
        room: RoomSid,
        participant: ParticipantSid,
        track: TrackSid,
    },
    /// Makes a track of a participant without a transport that is fed by a lane; it is live at once.
    PublishLane {
        room: RoomSid,
        participant: ParticipantSid,
        track: TrackSid,
        kind: MediaKind,
        from: LaneEnd,
    },
    /// Feeds a lane from this track from now on. The other end must be there by then: what it does not know is lost.
    OpenLane {
        room: RoomSid,
        participant: ParticipantSid,
        track: TrackSid,
        to: LaneEnd,
    },
    CloseLane {
        room: RoomSid,
        lane: LaneId,
    },
    /// Takes a track down, or forgets its announcement.
    Unpublish {
        room: RoomSid,
        participant: ParticipantSid,
        track: TrackSid,
    },
    /// A muted track is not forwarded and does not count for active speakers.
    Mute {
        room: RoomSid,
        participant: ParticipantSid,
        track: TrackSid,
        muted: bool,
    },
    Subscribe {
        room: RoomSid,
        subscriber: ParticipantSid,
        track: TrackSid,
        subscribed: bool,
    },
    /// Says how much of a track a receiver wants to see; takes no negotiation.
    View {
        room: RoomSid,
        subscriber: ParticipantSid,
        track: TrackSid,
        view: View,
    },
    /// Behaves as if the participant's network carried no more than this, bits per second; `None` ends that.
    CapBandwidth {
        room: RoomSid,
        participant: ParticipantSid,
        bps: Option<u64>,
    },
    SendData {
        room: RoomSid,
        to: Vec<ParticipantSid>,
        channel: DataChannel,
        payload: Bytes,
    },
    /// Makes a data track: packets that this participant numbers with `handle` on its data track channel are of it.
    PublishData {
        room: RoomSid,
        participant: ParticipantSid,
        track: DataTrackSid,
        handle: u16,
    },
    /// Whether packets of this data track go to the part of the room that is on another worker, where the publisher has a
    /// stand-in.
    ShareData {
        room: RoomSid,
        participant: ParticipantSid,
        track: DataTrackSid,
        worker: usize,
        shared: bool,
    },
    UnpublishData {
        room: RoomSid,
        participant: ParticipantSid,
        track: DataTrackSid,
    },
    /// Forwards a data track to this participant, numbered with `handle`; `None` ends that.
    SubscribeData {
        room: RoomSid,
        subscriber: ParticipantSid,
        track: DataTrackSid,
        handle: Option<u16>,
    },
    /// Copies every Opus packet of this participant's track into the tap from now on. One tap per track; a second
    /// replaces the first. `id` comes back in [`EventKind::TapClosed`].
    OpenTap {
        room: RoomSid,
        participant: ParticipantSid,
        track: TrackSid,
        id: u64,
        tap: TapWriter,
    },
    CloseTap {
        room: RoomSid,
        track: TrackSid,
    },
    /// Speaks one Opus frame as the injected track; forwarded like any other packet.
    Inject {
        room: RoomSid,
        track: TrackSid,
        frame: OpusFrame,
    },
}

impl Command {
    pub fn room(&self) -> &RoomSid {
        match self {
            Self::Close { room }
            | Self::Join { room, .. }
            | Self::Leave { room, .. }
            | Self::Move { room, .. }
            | Self::Offer { room, .. }
            | Self::Answer { room, .. }
            | Self::Reoffer { room, .. }
            | Self::Publish { room, .. }
            | Self::PublishInjected { room, .. }
            | Self::PublishLane { room, .. }
            | Self::OpenLane { room, .. }
            | Self::CloseLane { room, .. }
            | Self::Unpublish { room, .. }
            | Self::Mute { room, .. }
            | Self::Subscribe { room, .. }
            | Self::View { room, .. }
            | Self::CapBandwidth { room, .. }
            | Self::SendData { room, .. }
            | Self::PublishData { room, .. }
            | Self::ShareData { room, .. }
            | Self::UnpublishData { room, .. }
            | Self::SubscribeData { room, .. }
            | Self::OpenTap { room, .. }
            | Self::CloseTap { room, .. }
            | Self::Inject { room, .. } => room,
        }
    }

    /// The one member that it is about, if it is about one.
    pub fn member(&self) -> Option<&ParticipantSid> {
        match self {
            Self::Join { participant, .. }
            | Self::Leave { participant, .. }
            | Self::Move { participant, .. }
            | Self::Offer { participant, .. }
            | Self::Answer { participant, .. }
            | Self::Reoffer { participant, .. }
            | Self::Publish { participant, .. }
            | Self::PublishInjected { participant, .. }
            | Self::PublishLane { participant, .. }
            | Self::OpenLane { participant, .. }
            | Self::Unpublish { participant, .. }
            | Self::Mute { participant, .. }
            | Self::PublishData { participant, .. }
            | Self::ShareData { participant, .. }
            | Self::UnpublishData { participant, .. }
            | Self::CapBandwidth { participant, .. }
            | Self::OpenTap { participant, .. } => Some(participant),
            Self::Subscribe { subscriber, .. }
            | Self::View { subscriber, .. }
            | Self::SubscribeData { subscriber, .. } => Some(subscriber),
            Self::Close { .. }
            | Self::CloseLane { .. }
            | Self::SendData { .. }
            | Self::CloseTap { .. }
            | Self::Inject { .. } => None,
        }
    }
}

#[derive(Debug)]
pub struct Event {
    pub room: RoomSid,
    pub participant: ParticipantSid,
    pub kind: EventKind,
}

#[derive(Debug)]
pub enum EventKind {
    /// `tracks` maps the `mid` of every section on which we send to the track that it carries.
    Answer {
        offer_id: u32,
        sdp: String,
        tracks: Vec<(String, TrackSid)>,
    },
    /// The reason is one of a few fixed ones: what a parser says may quote the offer, and this is logged.
    /// What we offer to a client with two connections; to be answered by [`Command::Answer`]. `tracks` as in `Answer`.
    Offer {
        offer_id: u32,
        sdp: String,
        tracks: Vec<(String, TrackSid)>,
    },
    OfferRejected {
        offer_id: u32,
        reason: &'static str,
    },
    /// The client should add this many recvonly sections of each kind and offer again; 0/0 means only offer again.
    MediaSectionsRequired {
        audios: u32,
        videos: u32,
    },
    /// The participant is in another room from here on.
    Moved,
    /// ICE and DTLS are up: the participant is ACTIVE.
    Connected,
    /// ICE was lost. It may come back by an ICE restart (then [`EventKind::Connected`] again).
    Disconnected,
    /// Nothing has come since then from a client that is connected by UDP, though by the rhythm of its checks it should.
    Silent {
        since: Instant,
    },
    /// Something comes again.
    Heard,
    /// The transport ended for good (DTLS closed, protocol error). The participant must be removed.
    Closed {
        reason: String,
    },
    /// The media section of an announced track is negotiated.
    TrackLive {
        track: TrackSid,
        mid: String,
    },
    /// The track's first packet came, or its first in another codec: what its publisher sends.
    TrackCodec {
        track: TrackSid,
        mime_type: &'static str,
    },
    /// The client took the track's section back (inactive or stopped in an offer).
    TrackEnded {
        track: TrackSid,
    },
    /// The track of this participant got its first subscriber.
    TrackSubscribed {
        track: TrackSid,
    },
    /// This participant negotiated no codec by which it could receive the track.
    TrackUnsupported {
        track: TrackSid,
    },
    /// This participant's network does not carry the track, so nothing is sent of it; or it does again.
    StreamState {
        track: TrackSid,
        paused: bool,
    },
    /// The tap with this id is closed though nobody asked for that: the participant has no such track, or the tap's
    /// reader is gone.
    TapClosed {
        track: TrackSid,
        id: u64,
    },
    /// The data channel with this label is open for sending to the participant.
    DataChannelOpen {
        channel: DataChannel,
    },
    Data {
        channel: DataChannel,
        payload: Bytes,
    },
    /// Audio level of this participant as a speaker changed: 0 to 1, and whether it counts as speaking.
    Speaker {
        level: f32,
        active: bool,
    },
    /// A frame with [`OpusFrame::report`] was sent to the room's subscribers (or would have been: the room has none).
    Injected {
        track: TrackSid,
        report: u64,
        at: Instant,
    },
}
