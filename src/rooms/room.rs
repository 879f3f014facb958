//! A room as a pure state machine: who is in it, what they publish, who may hear it. No I/O, no clock, no task.
//!
//! Inputs are `join*`, `resume`, `handle_*` and `allow_tap`; then call `settle`, drain `poll_output` and wait until
//! `poll_timeout`.
//! Its parts are in `requests` (what clients ask), `direct` (those without a socket), `admin` and `moving` (what services
//! ask),
//! `publish`, `subscribe`, `data`, `data_tracks`, `events` (what the media worker says), `silence`, `speaking`, `agents`,
//! `taps` and `hooks`.
//!
//! Invariants: nobody learns of a hidden participant; a track is announced to a client before media or SDP of it
//! goes there; the media worker is told of a subscription only where both sides permit it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use livekit_protocol as proto;
use proto::{
    DisconnectReason, JoinRequest, ParticipantInfo,
    leave_request::Action,
    participant_info::{self, Kind},
    signal_response::Message as Response,
};

use super::{
    AgentEvent, Agreed, Config, LinkId, Now, Person, RoomError, RpcOutcome, ToPeer,
    admin::Call,
    data::Replay,
    moving::Traveller,
    participant::{DropOnResume, MediaState, Participant, is_machine, kind_of},
    publish::PENDING_TRACKS_MAX,
    quota::Seat,
    requests::{self, MetadataChange},
    taps::Tap,
};
use crate::{
    auth::Claims,
    id::{Identity, ParticipantSid, RoomName, RoomSid, TrackSid},
    sfu::{Command, Connections},
    telemetry::Metrics,
};

/// The LiveKit release whose behaviour is matched. Clients switch features by it and refuse an empty one.
const SERVER_VERSION: &str = "1.13.5";
/// The signalling protocol's number that this server speaks.
const SERVER_PROTOCOL: i32 = 17;
/// How often clients ping, and after how long without any message they take the socket for dead; seconds.
const PING_INTERVAL_SECS: i32 = 5;
const PING_TIMEOUT_SECS: i32 = 15;
/// What clients may publish. Simulcast and other codecs fall back to these.
const PUBLISH_CODECS: [&str; 6] = ["audio/opus", "video/VP8", "video/H264", "video/VP9", "video/AV1", "video/rtx"];

/// A client whose media never came up is removed then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// A client whose media is lost this long, with a socket that stands, is told to resume: it may not have noticed.
const NUDGE_AFTER: Duration = Duration::from_secs(5);
/// A client that closes its media connection says right after why: it leaves, or comes back with another one.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// How often clients get a fresh token. Shorter than a refreshed token's life of ten minutes.
const REFRESH_EVERY: Duration = Duration::from_secs(5 * 60);
/// Participants that left, kept for clients that resume and must hear of it.
const LEFT_KEPT: usize = 64;

/// What the room wants done, in order.
pub(super) enum Output {
    Signal {
        link: LinkId,
        message: ToPeer,
    },
    /// Close the socket once everything before it is written.
    CloseLink(LinkId),
    /// The answer to the last offer of a participant without a socket, or why there is none.
    Answered {
        participant: ParticipantSid,
        result: Result<Box<Agreed>, RoomError>,
    },
    /// A participant without a socket is gone: nothing answers it any more.
    CloseDirect(ParticipantSid),
    Media(Command),
    Agent {
        agent: ParticipantSid,
        event: AgentEvent,
    },
    /// A call that [`Room::call`] made is over.
    RpcDone {
        id: String,
        outcome: RpcOutcome,
    },
    CloseAgent(ParticipantSid),
    /// Somebody goes to the room that the task was told of. Everything before it is done first.
    Depart(Box<Traveller>),
    /// For webhooks; the task adds id and time.
    Hook(Box<proto::WebhookEvent>),
}

pub(super) struct Room {
    pub(super) config: Config,
    pub(super) name: RoomName,
    pub(super) sid: RoomSid,
    pub(super) metadata: String,
    /// The server's own bound: a room's options stay within it.
    pub(super) participants_max: usize,
    created: Now,
    /// In order of joining.
    pub(super) participants: Vec<Participant>,
    pub(super) taps_allowed: HashSet<Identity>,
    pub(super) taps: HashMap<TrackSid, Tap>,
    pub(super) taps_made: u64,
    pub(super) replay: Replay,
    /// Calls of services to participants, by id.
    pub(super) calls: HashMap<String, Call>,
    /// Who gets which video may have changed since [`Room::settle`].
    pub(super) demand_changed: bool,
    /// What others see of somebody may have changed since then.
    pub(super) shown_changed: bool,
    left: VecDeque<ParticipantInfo>,
    /// Since when nobody is in it, and for how long that may last.
    empty: Option<(Instant, Duration)>,
    closed: bool,
    /// Whether webhooks were told that it is open.
    pub(super) started: bool,
    out: VecDeque<Output>,
    pub(super) metrics: Arc<Metrics>,
}

impl Room {
    pub fn new(name: RoomName, sid: RoomSid, config: Config, metrics: Arc<Metrics>, now: Now) -> Self {
        let empty_timeout = Duration::from_secs(config.empty_timeout_secs);
        let participants_max = config.max_participants_per_room;
        metrics.rooms.inc();
        Self {
            config,
            name,
            sid,
            metadata: String::new(),
            participants_max,
            created: now,
            participants: Vec::new(),
            taps_allowed: HashSet::new(),
            taps: HashMap::new(),
            taps_made: 0,
            replay: Replay::default(),
            calls: HashMap::new(),
            demand_changed: false,
            shown_changed: false,
            left: VecDeque::new(),
            empty: Some((now.at, empty_timeout)),
            closed: false,
            started: false,
            out: VecDeque::new(),
            metrics,
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// A room in which nobody is yet waits for as long as its options say.
    pub(super) fn reset_empty_timeout(&mut self) {
        if let Some((_, patience)) = &mut self.empty {
            *patience = Duration::from_secs(self.config.empty_timeout_secs);
        }
    }

    /// Whether the room is over: nothing comes out of it any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// When [`Room::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let empty = self.empty.map(|(since, patience)| since + patience);
        let calls = self.calls.values().map(|call| call.deadline);
        self.participants.iter().flat_map(|p| self.deadlines(p)).chain(empty).chain(calls).min()
    }

    fn deadlines(&self, p: &Participant) -> impl Iterator<Item = Instant> {
        let media = match p.media {
            MediaState::New => Some(p.joined.at + CONNECT_TIMEOUT),
            MediaState::Lost { since, nudged: false } => Some(since + NUDGE_AFTER),
            MediaState::Lost { since, nudged: true } => Some(since + self.resume_timeout()),
            MediaState::Closed { since } => Some(since + GOODBYE_WITHIN),
            MediaState::Up | MediaState::None | MediaState::Elsewhere => None,
        };
        let silence = p.silence.poll_timeout().filter(|_| p.is_reachable());
        let own = [silence, p.refresh_at, p.simulated_speaker_until, p.announcement_deadline(), p.demand_deadline()];
        media.into_iter().chain(own.into_iter().flatten())
    }

    fn resume_timeout(&self) -> Duration {
        Duration::from_secs(self.config.resume_timeout_secs).max(NUDGE_AFTER)
    }

    pub fn handle_timeout(&mut self, now: Now) {
        if self.empty.is_some_and(|(since, patience)| now.at >= since + patience) {
            return self.close(now, DisconnectReason::RoomClosed, Action::Disconnect);
        }
        self.end_late_calls(now);
        let sids: Vec<_> = self.participants.iter().map(|p| p.sid.clone()).collect();
        for sid in sids {
            self.handle_media_timeout(now, &sid);
            self.handle_silence(now, &sid);
            let Some(p) = self.get_mut(&sid) else { continue };
            if p.refresh_at.is_some_and(|at| now.at >= at) {
                self.refresh_token(now, &sid);
            }
            let Some(p) = self.get_mut(&sid) else { continue };
            if p.simulated_speaker_until.is_some_and(|at| now.at >= at) {
                p.simulated_speaker_until = None;
                self.speaker_changed(&sid, 0.0, false);
            }
            self.expire_announcements(now, &sid);
            self.demand_ended(now, &sid);
        }
    }

    fn handle_media_timeout(&mut self, now: Now, sid: &ParticipantSid) {
        let resume_timeout = self.resume_timeout();
        let Some(p) = self.get_mut(sid) else { return };
        match p.media {
            MediaState::New if now.at >= p.joined.at + CONNECT_TIMEOUT => {
                let protocol = p.protocol_label();
                self.metrics.participant_joins.with_label_values(&[protocol, "failed"]).inc();
                self.remove(now, sid, DisconnectReason::ConnectionTimeout, Some(Action::Disconnect));
            }
            MediaState::Lost { since, .. } if now.at >= since + resume_timeout => {
                self.remove(now, sid, DisconnectReason::ConnectionTimeout, Some(Action::Reconnect));
            }
            MediaState::Closed { since } if now.at >= since + GOODBYE_WITHIN => {
                self.remove(now, sid, DisconnectReason::MediaFailure, Some(Action::Reconnect));
            }
            MediaState::Lost { since, nudged: false } if now.at >= since + NUDGE_AFTER => {
                p.media = MediaState::Lost { since, nudged: true };
                self.have_resume(sid);
            }
            _ => {}
        }
    }

    /// A client whose UDP is silent while its socket speaks is made to look for other paths.
    fn handle_silence(&mut self, now: Now, sid: &ParticipantSid) {
        let Some(p) = self.get_mut(sid) else { return };
        if !p.is_reachable() || !p.silence.handle_timeout(now.at) {
            return;
        }
        self.metrics.ice_silences.inc();
        tracing::info!(room = %self.sid, participant = %sid, "nothing comes by UDP any more: it is to resume");
        self.have_resume(sid);
    }

    /// The client is to come back by another socket, with an ICE restart. A socket that closes is what all clients resume
    /// after. `Leave` with RESUME before it made LiveKit's Rust core join anew.
    pub(super) fn have_resume(&mut self, sid: &ParticipantSid) {
        if let Some(p) = self.get_mut(sid) {
            p.refresh_at = None;
        }
        self.drop_link(sid);
    }

    /// A client comes in by a socket that is about to open. Its first message is in the outputs when this returns.
    pub fn join(
        &mut self,
        now: Now,
        link: LinkId,
        claims: Claims,
        request: JoinRequest,
        connections: Connections,
    ) -> Result<ParticipantSid, RoomError> {
        let identity = claims.identity().ok_or(RoomError::NoIdentity)?;
        self.make_way(now, &identity, kind_of(&claims))?;
        let mut participant = Participant::new(identity, claims, now);
        participant.link = Some(link);
        participant.connections = connections;
        requests::apply_join_request(&mut participant, &request);
        let sid = participant.sid.clone();
        self.enter(participant);
        self.send_join_response(&sid);
        self.refresh_token(now, &sid);
        self.media(Command::Join { room: self.sid.clone(), participant: sid.clone(), connections });
        // Before the offer, so that its answer carries what is there already.
        self.sync_subscriber(&sid);
        // One more than may be announced, so that a client with too many hears of it.
        for track in request.add_track_requests.into_iter().take(PENDING_TRACKS_MAX + 1) {
            self.add_track(now, &sid, track);
        }
        if let Some(offer) = request.publisher_offer {
            self.offer(now, &sid, offer);
        }
        self.introduce_person(&sid);
        Ok(sid)
    }

    /// Whether somebody of this identity may come in. One who is there already is taken out.
    pub(super) fn make_way(&mut self, now: Now, identity: &Identity, kind: Kind) -> Result<(), RoomError> {
        if let Some(sid) = self.predecessor(identity, kind)? {
            self.remove(now, &sid, DisconnectReason::DuplicateIdentity, Some(Action::Disconnect));
        }
        Ok(())
    }

    /// Who has to go where somebody of this identity comes in, if that may be.
    pub(super) fn predecessor(&self, identity: &Identity, kind: Kind) -> Result<Option<ParticipantSid>, RoomError> {
        if self.closed {
            return Err(RoomError::Closed);
        }
        let predecessor = self.participants.iter().find(|p| p.identity == *identity);
        if predecessor.is_some_and(Participant::is_agent) {
            return Err(RoomError::IdentityTaken);
        }
        let others = || self.participants.iter().filter(|p| p.identity != *identity);
        // A room's own bound is for people, as LiveKit's; the server's is for all.
        let people = others().filter(|p| !is_machine(p.kind)).count();
        if others().count() >= self.participants_max
            || !is_machine(kind) && people >= self.config.max_participants_per_room
        {
            return Err(RoomError::RoomFull);
        }
        Ok(predecessor.map(|p| p.sid.clone()))
    }

    /// Tells everyone of somebody who came in.
    pub(super) fn introduce_person(&mut self, sid: &ParticipantSid) {
        self.announce(sid, false);
        self.tell_room_update(Some(sid));
        self.tell_agents(|room| room.person(sid).map(AgentEvent::Joined));
    }

    /// Puts a participant among the others.
    pub(super) fn enter(&mut self, participant: Participant) {
        self.hook_started();
        self.metrics.participants.with_label_values(&[participant.kind_label()]).inc();
        if participant.holds_room() {
            self.empty = None;
        }
        self.participants.push(participant);
    }

    /// A client whose socket was lost comes back. Where it is not known any more its socket gets the order to start anew.
    pub fn resume(&mut self, now: Now, link: LinkId, claims: Claims, request: JoinRequest) -> Option<ParticipantSid> {
        let sid = ParticipantSid::from(request.participant_sid.as_str());
        let identity = claims.identity();
        let returns = |p: &&mut Participant| {
            let has_media = p.has_client() && !matches!(p.media, MediaState::Closed { .. });
            Some(&p.identity) == identity.as_ref() && has_media
        };
        let known = self.get_mut(&sid).filter(returns);
        let Some(p) = known else {
            self.send_leave(link, DisconnectReason::StateMismatch, Action::Reconnect);
            return None;
        };
        p.claims = Some(claims);
        let last_message_seq = p.last_sequence;
        p.silence.handle_resume();
        let old = p.link.replace(link);
        let dropped = p.drop_on_resume.take();
        if let Some(old) = old {
            self.out.push_back(Output::CloseLink(old));
        }
        if dropped == Some(DropOnResume::BeforeAnything) {
            self.drop_link(&sid);
            return Some(sid);
        }
        self.tell(
            &sid,
            Response::Reconnect(proto::ReconnectResponse {
                ice_servers: Vec::new(),
                client_configuration: None,
                server_info: Some(server_info()),
                last_message_seq,
            }),
        );
        self.send_everyone(&sid);
        self.tell_room_update_to(&sid);
        self.tell_speakers_to(&sid);
        self.tell_qualities_to(&sid);
        self.tell_data_handles_to(&sid);
        self.tell_demand_to(&sid);
        self.refresh_token(now, &sid);
        if let Some(state) = request.sync_state {
            self.sync_state(now, &sid, state);
        }
        if self.get(&sid).is_some_and(|p| p.connections == Connections::Two) {
            self.media(Command::Reoffer { room: self.sid.clone(), participant: sid.clone() });
        }
        if dropped == Some(DropOnResume::AfterReconnect) {
            self.drop_link(&sid);
        }
        Some(sid)
    }

    /// The full state, as it follows a resume: those who left, then those who are here, the client itself too.
    fn send_everyone(&mut self, to: &ParticipantSid) {
        let here: HashSet<&str> = self.participants.iter().map(|p| p.identity.as_str()).collect();
        let mut participants: Vec<_> =
            self.left.iter().filter(|info| !here.contains(info.identity.as_str())).cloned().collect();
        participants.extend(self.participants.iter().filter(|p| !p.hidden() || p.sid == *to).map(Participant::info));
        self.mark_announced(to);
        self.tell(to, Response::Update(proto::ParticipantUpdate { participants }));
    }

    /// From here on every live track of the others counts as announced to this client.
    pub(super) fn mark_announced(&mut self, to: &ParticipantSid) {
        let tracks: HashSet<TrackSid> = self
            .participants
            .iter()
            .filter(|p| !p.hidden())
            .flat_map(|p| p.live_tracks().map(|t| t.sid.clone()))
            .collect();
        if let Some(p) = self.get_mut(to) {
            p.announced = tracks;
        }
    }

    fn drop_link(&mut self, sid: &ParticipantSid) {
        if let Some(link) = self.get_mut(sid).and_then(|p| p.link.take()) {
            self.out.push_back(Output::CloseLink(link));
        }
    }

    /// The socket of this link is gone, or so slow that it must go.
    pub fn handle_link_closed(&mut self, now: Now, link: LinkId) {
        let Some(p) = self.participants.iter_mut().find(|p| p.link == Some(link)) else { return };
        p.link = None;
        p.refresh_at = None;
        let sid = p.sid.clone();
        match p.media {
            MediaState::New => {
                self.metrics.participant_joins.with_label_values(&["livekit", "failed"]).inc();
                self.remove(now, &sid, DisconnectReason::SignalClose, None);
            }
            MediaState::Closed { .. } => self.remove(now, &sid, DisconnectReason::ClientInitiated, None),
            MediaState::Up | MediaState::Lost { .. } | MediaState::None | MediaState::Elsewhere => {}
        }
    }

    /// The client at the other end of this link has sent too much. LiveKit knows no reason that is closer.
    pub fn put_out(&mut self, now: Now, link: LinkId) {
        let Some(sid) = self.participants.iter().find(|p| p.link == Some(link)).map(|p| p.sid.clone()) else { return };
        self.remove(now, &sid, DisconnectReason::ParticipantRemoved, Some(Action::Disconnect));
    }

    /// Takes a participant out. `leave`: what its client is told to do, if its socket stands.
    pub(super) fn remove(&mut self, now: Now, sid: &ParticipantSid, reason: DisconnectReason, leave: Option<Action>) {
        if let Some(link) = self.get_mut(sid).and_then(|p| p.link.take()) {
            match leave {
                Some(action) => self.send_leave(link, reason, action),
                None => self.out.push_back(Output::CloseLink(link)),
            }
        }
        let command = Command::Leave { room: self.sid.clone(), participant: sid.clone() };
        if self.take_out(now, sid, reason, command).is_some_and(|gone| gone.visit.is_some()) {
            self.out.push_back(Output::CloseDirect(sid.clone()));
        }
    }

    /// Takes a participant out and tells everyone but itself. `command`: what the media worker is told.
    pub(super) fn take_out(
        &mut self,
        now: Now,
        sid: &ParticipantSid,
        reason: DisconnectReason,
        command: Command,
    ) -> Option<Participant> {
        let index = self.participants.iter().position(|p| p.sid == *sid)?;
        self.close_taps(|tap, _| tap.speaker == *sid || tap.agent == *sid);
        let mut gone = self.participants.remove(index);
        // Who goes to another room is shown nowhere else any more either.
        gone.outlets.clear();
        if gone.is_agent() {
            self.taps_allowed.clear();
        }
        self.end_calls_to(&gone.identity);
        for track in gone.live_tracks() {
            self.forget_track(&track.sid);
            self.count_track(track.kind, -1);
        }
        for info in &gone.data_tracks.published {
            self.forget_data_track(&info.sid.as_str().into());
        }
        self.demand_changed = true;
        self.follow();
        self.media(command);
        self.metrics.participants.with_label_values(&[gone.kind_label()]).dec();
        self.hook_left(&gone, reason);
        if !gone.hidden() {
            let info = gone.farewell(reason);
            if self.left.len() == LEFT_KEPT {
                self.left.pop_front();
            }
            self.left.push_back(info.clone());
            self.tell_all(None, Response::Update(proto::ParticipantUpdate { participants: vec![info] }));
        }
        if gone.is_agent() {
            self.out.push_back(Output::CloseAgent(sid.clone()));
            self.sync_taps();
        } else if gone.double.is_none() {
            let identity = gone.identity.clone();
            self.tell_agents(|_| Some(AgentEvent::Left { sid: sid.clone(), identity: identity.clone() }));
        }
        self.tell_room_update(None);
        if self.empty.is_none() && !self.participants.iter().any(Participant::holds_room) {
            self.empty = Some((now.at, Duration::from_secs(self.config.departure_timeout_secs)));
        }
        Some(gone)
    }

    /// Ends the room: everybody is told, nothing happens in it any more.
    pub fn close(&mut self, now: Now, reason: DisconnectReason, action: Action) {
        if self.closed {
            return;
        }
        for sid in self.participants.iter().map(|p| p.sid.clone()).collect::<Vec<_>>() {
            if self.get(&sid).is_some_and(Participant::is_agent) {
                self.out.push_back(Output::Agent { agent: sid.clone(), event: AgentEvent::RoomClosed });
            }
            self.remove(now, &sid, reason, Some(action));
        }
        self.closed = true;
        self.hook_finished(reason);
        self.metrics.rooms.dec();
    }

    fn send_join_response(&mut self, sid: &ParticipantSid) {
        let other_participants =
            self.participants.iter().filter(|p| p.sid != *sid && !p.hidden()).map(Participant::info).collect();
        let dual = self.get(sid).is_some_and(|p| p.connections == Connections::Two);
        let response = proto::JoinResponse {
            room: Some(self.info()),
            participant: self.get(sid).map(Participant::info),
            other_participants,
            server_version: SERVER_VERSION.to_owned(),
            subscriber_primary: dual,
            fast_publish: dual,
            ping_interval: PING_INTERVAL_SECS,
            ping_timeout: PING_TIMEOUT_SECS,
            server_info: Some(server_info()),
            enabled_publish_codecs: PUBLISH_CODECS
                .iter()
                .map(|mime| proto::Codec { mime: (*mime).to_owned(), fmtp_line: String::new() })
                .collect(),
            ..proto::JoinResponse::default()
        };
        self.mark_announced(sid);
        self.tell(sid, Response::Join(response));
    }

    pub fn info(&self) -> proto::Room {
        let seen = || self.participants.iter().filter(|p| !p.hidden());
        proto::Room {
            sid: self.sid.as_str().to_owned(),
            name: self.name.as_str().to_owned(),
            empty_timeout: u32::try_from(self.config.empty_timeout_secs).unwrap_or(u32::MAX),
            departure_timeout: u32::try_from(self.config.departure_timeout_secs).unwrap_or(u32::MAX),
            max_participants: u32::try_from(self.config.max_participants_per_room).unwrap_or(u32::MAX),
            creation_time: self.created.unix_ms / 1000,
            creation_time_ms: self.created.unix_ms,
            metadata: self.metadata.clone(),
            enabled_codecs: Vec::new(),
            num_participants: seen().count() as u32,
            num_publishers: seen().filter(|p| p.live_tracks().next().is_some()).count() as u32,
            ..proto::Room::default()
        }
    }

    pub(super) fn refresh_token(&mut self, now: Now, sid: &ParticipantSid) {
        let Some(p) = self.get_mut(sid) else { return };
        p.refresh_at = None;
        let (Some(link), Some(claims)) = (p.link, p.refreshed_claims()) else { return };
        p.refresh_at = Some(now.at + REFRESH_EVERY);
        self.out.push_back(Output::Signal { link, message: ToPeer::RefreshToken(Box::new(claims)) });
    }

    /// Tells everyone what this participant is now; itself too if `itself`.
    pub(super) fn announce(&mut self, sid: &ParticipantSid, itself: bool) {
        self.shown_changed = true;
        let Some(p) = self.get_mut(sid) else { return };
        p.version += 1;
        let (info, hidden) = (p.info(), p.hidden());
        let tracks: Vec<TrackSid> = p.live_tracks().map(|t| t.sid.clone()).collect();
        let update = Response::Update(proto::ParticipantUpdate { participants: vec![info] });
        for index in 0..self.participants.len() {
            let other = &mut self.participants[index];
            let is_self = other.sid == *sid;
            let (false, Some(link)) = ((is_self && !itself) || (hidden && !is_self), other.link) else { continue };
            other.announced.extend(tracks.iter().cloned());
            self.out.push_back(Output::Signal { link, message: ToPeer::message(update.clone()) });
        }
    }

    /// Changes name, metadata and attributes and tells everyone.
    pub(super) fn change_metadata(&mut self, sid: &ParticipantSid, change: MetadataChange) {
        let Some(p) = self.get_mut(sid) else { return };
        change.apply(p);
        let is_agent = p.is_agent();
        self.announce(sid, true);
        if !is_agent {
            self.tell_agents(|room| room.person(sid).map(AgentEvent::AttributesChanged));
        }
    }

    pub(super) fn tell_room_update(&mut self, except: Option<&ParticipantSid>) {
        let update = Response::RoomUpdate(proto::RoomUpdate { room: Some(self.info()) });
        self.tell_all(except, update);
    }

    fn tell_room_update_to(&mut self, sid: &ParticipantSid) {
        let update = Response::RoomUpdate(proto::RoomUpdate { room: Some(self.info()) });
        self.tell(sid, update);
    }

    pub(super) fn tell(&mut self, sid: &ParticipantSid, message: Response) {
        if let Some(link) = self.get(sid).and_then(|p| p.link) {
            self.out.push_back(Output::Signal { link, message: ToPeer::message(message) });
        }
    }

    pub(super) fn tell_all(&mut self, except: Option<&ParticipantSid>, message: Response) {
        for p in self.participants.iter().filter(|p| Some(&p.sid) != except) {
            if let Some(link) = p.link {
                self.out.push_back(Output::Signal { link, message: ToPeer::message(message.clone()) });
            }
        }
    }

    /// Sends an event to every agent that lives in the server.
    pub(super) fn tell_agents(&mut self, event: impl Fn(&Self) -> Option<AgentEvent>) {
        let agents: Vec<_> = self.participants.iter().filter(|p| p.is_agent()).map(|p| p.sid.clone()).collect();
        for agent in agents {
            if let Some(event) = event(self) {
                self.out.push_back(Output::Agent { agent, event });
            }
        }
    }

    pub(super) fn send_leave(&mut self, link: LinkId, reason: DisconnectReason, action: Action) {
        self.out.push_back(Output::Signal { link, message: ToPeer::message(leave_request(reason, action)) });
        self.out.push_back(Output::CloseLink(link));
    }

    pub(super) fn push(&mut self, output: Output) {
        self.out.push_back(output);
    }

    pub(super) fn media(&mut self, command: Command) {
        self.out.push_back(Output::Media(command));
    }

    pub(super) fn get(&self, sid: &ParticipantSid) -> Option<&Participant> {
        self.participants.iter().find(|p| p.sid == *sid)
    }

    pub(super) fn get_mut(&mut self, sid: &ParticipantSid) -> Option<&mut Participant> {
        self.participants.iter_mut().find(|p| p.sid == *sid)
    }

    pub(super) fn person(&self, sid: &ParticipantSid) -> Option<Person> {
        self.get(sid).map(|p| Person {
            sid: p.sid.clone(),
            identity: p.identity.clone(),
            name: p.name.clone(),
            attributes: p.attributes.clone(),
            human: !is_machine(p.kind) && !p.hidden(),
        })
    }

    /// The participant's place among those of its API key goes when it goes.
    pub fn seat(&mut self, sid: &ParticipantSid, seat: Option<Seat>) {
        if let Some(p) = self.get_mut(sid) {
            p.seat = seat;
        }
    }

    /// Says on which media worker a participant is.
    pub fn put_on(&mut self, sid: &ParticipantSid, worker: usize) {
        if let Some(p) = self.get_mut(sid) {
            p.worker = worker;
        }
    }

    pub(super) fn set_active(&mut self, sid: &ParticipantSid) -> bool {
        let Some(p) = self.get_mut(sid) else { return false };
        let first = p.state != participant_info::State::Active;
        p.state = participant_info::State::Active;
        first
    }
}

impl Drop for Room {
    /// One that fails says no goodbye; what it counted ends with it.
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        for p in &self.participants {
            self.metrics.participants.with_label_values(&[p.kind_label()]).dec();
            p.live_tracks().for_each(|track| self.count_track(track.kind, -1));
        }
        self.metrics.rooms.dec();
    }
}

pub(super) fn leave_request(reason: DisconnectReason, action: Action) -> Response {
    Response::Leave(proto::LeaveRequest {
        // Read by clients older than protocol 13 only.
        can_reconnect: action != Action::Disconnect,
        reason: reason as i32,
        action: action as i32,
        regions: None,
    })
}

/// What clients are told of this server.
pub fn server_info() -> proto::ServerInfo {
    proto::ServerInfo {
        edition: proto::server_info::Edition::Standard as i32,
        version: SERVER_VERSION.to_owned(),
        protocol: SERVER_PROTOCOL,
        ..proto::ServerInfo::default()
    }
}
