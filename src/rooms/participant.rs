//! One participant as the room keeps it, and what others are told about it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use livekit_protocol as proto;
use proto::{ParticipantInfo, TrackInfo, TrackSource, participant_info, participant_info::KindDetail};

use super::{
    LinkId, Now,
    data_tracks::DataTracks,
    direct::Visit,
    dynacast::Demand,
    forwarding::{Double, Outlet},
    overtaking::Overtaking,
    quota::Seat,
    silence::Silence,
};
use crate::{
    auth::{Claims, Grants},
    id::{Identity, ParticipantSid, TrackSid},
    limits::{Bucket, Rate},
    sfu::{Connections, MediaKind, View},
};

/// Nonces of user packets kept per sender against doubles. A client repeats a packet only around a reconnect.
const NONCES_KEPT: usize = 64;
/// How long an announced track is waited for. A client's offer follows within a round trip; after this its user has
/// given up, or it has.
const ANNOUNCEMENT_KEPT: Duration = Duration::from_secs(30);

/// How often a client may change its name, metadata and attributes: everybody is told of each.
const CHANGES: Rate = Rate::new(30.0, 5.0);

/// How the media connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaState {
    /// ICE has not come up yet.
    New,
    Up,
    /// ICE is gone; an ICE restart may bring it back. `nudged`: the client was told to resume.
    Lost {
        since: Instant,
        nudged: bool,
    },
    /// The client closed its end: it is about to leave, or to join anew.
    Closed {
        since: Instant,
    },
    /// Lives in the server.
    None,
    /// Its client is in another room.
    Elsewhere,
}

/// A client's wish to have its socket dropped at its next resume: LiveKit's own tests use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DropOnResume {
    AfterReconnect,
    BeforeAnything,
}

pub(super) struct Track {
    pub sid: TrackSid,
    pub kind: MediaKind,
    pub info: TrackInfo,
    /// The client's id of it in AddTrack.
    pub cid: String,
    /// Media is negotiated: others may know of it.
    pub live: bool,
    /// When AddTrack came last.
    pub announced: Instant,
    pub demand: Demand,
    /// Somebody takes none but its second codec.
    pub backup_wanted: bool,
}

impl Track {
    /// When it is forgotten, unless its media comes.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.live).then(|| self.announced + ANNOUNCEMENT_KEPT)
    }

    /// Whether this is a voice that may be tapped. A client that names no source publishes a microphone.
    pub fn is_microphone(&self) -> bool {
        let source = self.info.source;
        self.kind == MediaKind::Audio
            && (source == TrackSource::Microphone as i32 || source == TrackSource::Unknown as i32)
    }
}

pub(super) struct Participant {
    pub sid: ParticipantSid,
    pub identity: Identity,
    pub name: String,
    pub metadata: String,
    pub attributes: HashMap<String, String>,
    pub kind: participant_info::Kind,
    pub grants: Grants,
    /// As the token said; refreshed tokens are made from it. `None` for a participant that lives in the server.
    pub claims: Option<Claims>,
    pub state: participant_info::State,
    /// Counts the changes of what others see. Clients ignore an older version.
    pub version: u32,
    pub joined: Now,
    pub protocol: i32,
    pub client_protocol: i32,
    pub capabilities: Vec<i32>,
    /// Its media worker, by number.
    pub worker: usize,
    /// Its peer connections.
    pub connections: Connections,
    /// The socket, if it stands now.
    pub link: Option<LinkId>,
    /// Present where it comes without sockets at all.
    pub visit: Option<Visit>,
    pub media: MediaState,
    pub silence: Silence,
    pub tracks: Vec<Track>,

    /// Whether it takes every track that it is not told to leave.
    pub auto_subscribe: bool,
    /// What it asked for, by track, against `auto_subscribe`.
    pub wanted: HashMap<TrackSid, bool>,
    /// Whether its words about subscriptions may come in another order than they were said in, and those that did.
    pub may_overtake: bool,
    pub overtaking: Overtaking,
    /// What the media worker was told that it gets.
    pub subscribed: HashSet<TrackSid>,
    /// How much of what it gets it wants to see, where that is not all.
    pub views: HashMap<TrackSid, View>,
    /// Who may have its tracks; `None` = everyone.
    pub permission: Option<proto::SubscriptionPermission>,
    /// Tracks of others that were announced to it on its present socket.
    pub announced: HashSet<TrackSid>,
    pub data_tracks: DataTracks,
    /// What it keeps here for others.
    pub blobs: Vec<proto::DataBlob>,

    /// The last reliable packet that was taken from it.
    pub last_sequence: u32,
    pub nonces: VecDeque<Vec<u8>>,
    /// Whether the channel for reliable data towards it is open.
    pub reliable_open: bool,
    pub refresh_at: Option<Instant>,
    pub drop_on_resume: Option<DropOnResume>,
    /// How loud it speaks, 0 to 1, while it counts as a speaker.
    pub speaking: Option<f32>,
    /// A simulated speaker falls silent then.
    pub simulated_speaker_until: Option<Instant>,
    /// Whether it has made an offer.
    pub offered: bool,
    /// How often it may still change what others see of it.
    pub changes: Bucket,
    /// Other rooms in which it is shown.
    pub outlets: Vec<Outlet>,
    /// Present where it stands for somebody of another room.
    pub double: Option<Double>,
    /// Its place among those of its API key.
    pub seat: Option<Seat>,
}

impl Participant {
    pub fn new(identity: Identity, claims: Claims, now: Now) -> Self {
        Self {
            sid: ParticipantSid::random(),
            identity,
            name: claims.name.clone(),
            metadata: claims.metadata.clone(),
            attributes: claims.attributes.clone(),
            kind: kind_of(&claims),
            grants: claims.grants.clone(),
            claims: Some(claims),
            state: participant_info::State::Joined,
            version: 1,
            joined: now,
            protocol: 0,
            client_protocol: 0,
            capabilities: Vec::new(),
            worker: 0,
            connections: Connections::None,
            link: None,
            visit: None,
            media: MediaState::New,
            silence: Silence::default(),
            tracks: Vec::new(),
            auto_subscribe: true,
            wanted: HashMap::new(),
            may_overtake: false,
            overtaking: Overtaking::default(),
            subscribed: HashSet::new(),
            views: HashMap::new(),
            permission: None,
            announced: HashSet::new(),
            data_tracks: DataTracks::default(),
            blobs: Vec::new(),
            last_sequence: 0,
            nonces: VecDeque::new(),
            reliable_open: false,
            refresh_at: None,
            drop_on_resume: None,
            speaking: None,
            simulated_speaker_until: None,
            offered: false,
            changes: Bucket::new(CHANGES, now.at),
            outlets: Vec::new(),
            double: None,
            seat: None,
        }
    }

    pub fn is_agent(&self) -> bool {
        self.media == MediaState::None
    }

    /// Whether it is somebody with a client, that receives and can be asked.
    pub fn has_client(&self) -> bool {
        !matches!(self.media, MediaState::None | MediaState::Elsewhere)
    }

    /// Whether it can be told something of its media, which was up when it was heard of last.
    pub fn is_reachable(&self) -> bool {
        self.media == MediaState::Up && self.link.is_some()
    }

    /// Whether the room stays open for it. An agent that came from outside leaves with the last person; the one that
    /// lives in the server decides by itself how long it waits for them.
    pub fn holds_room(&self) -> bool {
        self.is_agent() || !is_machine(self.kind)
    }

    /// Whether its token lets it publish from this source.
    pub fn may_publish(&self, source: i32) -> bool {
        let sources = &self.grants.can_publish_sources;
        let listed = || sources.iter().filter_map(|s| source_of(s)).any(|s| s as i32 == source);
        self.grants.can_publish() && (sources.is_empty() || listed())
    }

    pub fn is_active(&self) -> bool {
        self.state == participant_info::State::Active
    }

    pub fn hidden(&self) -> bool {
        self.grants.hidden
    }

    /// How it came, as metrics call it.
    pub fn protocol_label(&self) -> &'static str {
        self.visit.as_ref().map_or("livekit", Visit::protocol)
    }

    pub fn kind_label(&self) -> &'static str {
        match self.kind {
            participant_info::Kind::Agent => "agent",
            _ => "standard",
        }
    }

    pub fn track(&self, sid: &str) -> Option<&Track> {
        self.tracks.iter().find(|t| t.sid.as_str() == sid)
    }

    pub fn track_mut(&mut self, sid: &str) -> Option<&mut Track> {
        self.tracks.iter_mut().find(|t| t.sid.as_str() == sid)
    }

    pub fn live_tracks(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|t| t.live)
    }

    /// When the first of its announced tracks is forgotten.
    pub fn announcement_deadline(&self) -> Option<Instant> {
        self.tracks.iter().filter_map(Track::deadline).min()
    }

    /// Whether its owner lets `subscriber` have this track.
    pub fn permits(&self, track: &TrackSid, subscriber: &Participant) -> bool {
        let Some(permission) = &self.permission else { return true };
        permission.all_participants
            || permission.track_permissions.iter().any(|p| {
                let names = p.participant_sid == subscriber.sid.as_str()
                    || (!p.participant_identity.is_empty() && p.participant_identity == subscriber.identity.as_str());
                names && (p.all_tracks || p.track_sids.iter().any(|s| s == track.as_str()))
            })
    }

    /// Remembers the nonce; false if it was there already.
    pub fn first_seen(&mut self, nonce: &[u8]) -> bool {
        if nonce.is_empty() {
            return true;
        }
        if self.nonces.iter().any(|n| n == nonce) {
            return false;
        }
        if self.nonces.len() == NONCES_KEPT {
            self.nonces.pop_front();
        }
        self.nonces.push_back(nonce.to_vec());
        true
    }

    /// Claims for a refreshed token: what the participant is by now, not only what it came with.
    pub fn refreshed_claims(&self) -> Option<Claims> {
        let mut claims = self.claims.clone()?;
        claims.name = self.name.clone();
        claims.metadata = self.metadata.clone();
        claims.attributes = self.attributes.clone();
        Some(claims)
    }

    /// Everything that others may know.
    pub fn info(&self) -> ParticipantInfo {
        ParticipantInfo {
            sid: self.sid.as_str().to_owned(),
            identity: self.identity.as_str().to_owned(),
            state: self.state as i32,
            tracks: self.live_tracks().map(|t| t.info.clone()).collect(),
            metadata: self.metadata.clone(),
            joined_at: self.joined.unix_ms / 1000,
            joined_at_ms: self.joined.unix_ms,
            name: self.name.clone(),
            version: self.version,
            permission: Some(permission(&self.grants, self.kind)),
            is_publisher: self.live_tracks().next().is_some() || !self.data_tracks.published.is_empty(),
            data_tracks: self.data_tracks.published.clone(),
            kind: self.kind as i32,
            kind_details: self.double.iter().map(|_| KindDetail::Forwarded as i32).collect(),
            attributes: self.attributes.clone(),
            client_protocol: self.client_protocol,
            capabilities: self.capabilities.clone(),
            ..ParticipantInfo::default()
        }
    }

    /// The last that others hear of it.
    pub fn farewell(&self, reason: proto::DisconnectReason) -> ParticipantInfo {
        ParticipantInfo {
            state: participant_info::State::Disconnected as i32,
            tracks: Vec::new(),
            data_tracks: Vec::new(),
            version: self.version + 1,
            disconnect_reason: reason as i32,
            ..self.info()
        }
    }
}

/// Whether participants of this kind are there for others only.
pub(super) fn is_machine(kind: participant_info::Kind) -> bool {
    matches!(kind, participant_info::Kind::Agent | participant_info::Kind::Egress)
}

pub(super) fn kind_of(claims: &Claims) -> participant_info::Kind {
    use participant_info::Kind;
    match claims.kind.as_str() {
        "agent" => Kind::Agent,
        "ingress" => Kind::Ingress,
        "egress" => Kind::Egress,
        "sip" => Kind::Sip,
        "connector" => Kind::Connector,
        "bridge" => Kind::Bridge,
        _ if claims.grants.agent => Kind::Agent,
        _ => Kind::Standard,
    }
}

#[allow(deprecated)] // older clients read these two
fn permission(grants: &Grants, kind: participant_info::Kind) -> proto::ParticipantPermission {
    proto::ParticipantPermission {
        can_subscribe: grants.can_subscribe(),
        can_publish: grants.can_publish(),
        can_publish_data: grants.can_publish_data(),
        can_publish_sources: grants.can_publish_sources.iter().filter_map(|s| source_of(s)).map(|s| s as i32).collect(),
        hidden: grants.hidden,
        recorder: grants.recorder,
        can_update_metadata: grants.can_update_own_metadata(),
        agent: kind == participant_info::Kind::Agent,
        can_subscribe_metrics: grants.can_subscribe_metrics.unwrap_or(false),
        can_manage_agent_session: grants.can_manage_agent_session.unwrap_or(false),
    }
}

/// A track source as tokens spell it.
pub(super) fn source_of(name: &str) -> Option<TrackSource> {
    TrackSource::from_str_name(&name.to_ascii_uppercase())
}
