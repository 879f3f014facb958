//! The control plane: who is in which room, what they publish, who may hear it.
//!
//! A room is one task that owns its state; [`RoomHandle`] is its mailbox. Rooms speak LiveKit's data model
//! (`livekit_protocol`), and are the only holders of worker handles.

mod admin;
mod agent;
mod agents;
mod codecs;
mod data;
mod data_blobs;
mod data_tracks;
mod direct;
mod dynacast;
mod events;
mod forwarder;
mod forwarding;
pub(crate) mod fuzzing;
mod hooks;
mod link;
mod moving;
mod opening;
mod overtaking;
mod participant;
mod places;
mod publish;
mod quota;
mod requests;
mod revoked;
mod room;
mod silence;
mod speaking;
mod spread;
mod subscribe;
mod taps;
mod task;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

pub use crate::sfu::Connections;
pub use admin::{AdminError, ParticipantChange, RoomOptions, RpcOutcome};
pub use agent::{AgentEvent, AgentHandle, AgentOptions, AgentParticipant, Person};
use dashmap::{DashMap, mapref::entry::Entry};
pub use direct::{Agreed, Direct};
use forwarder::Forwarder;
use futures::FutureExt;
pub use hooks::HookSender;
pub use link::{LinkSender, Mailbox, SignalLink, ToPeer};
use livekit_protocol as proto;
pub use opening::{Listeners, NewsSender, RoomNews, RoomSetup};
use places::{Placement, Places};
use proto::{DisconnectReason, leave_request::Action};
use quota::{Quota, Seat};
use revoked::Revoked;
use room::Room;
pub use room::server_info;
use serde::{Deserialize, Serialize};
use task::{AskDirect, MAILBOX_CAPACITY, Mail, RoomTask};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    auth::Claims,
    id::{Identity, ParticipantSid, RoomName, RoomSid},
    limits::{Keyed, Rate},
    sfu,
    telemetry::Metrics,
    worker::WorkerHandle,
};

/// How often a join is tried anew where the room closes under it.
const OPEN_ATTEMPTS: usize = 3;
/// Longest that a shutdown waits for rooms to say goodbye, and for sockets to be written out.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);
/// Longest room name, in bytes.
const NAME_BYTES_MAX: usize = 256;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Rooms that may be open at a time.
    pub max_rooms: usize,
    /// Participants with connections of one room on one media worker; further ones come to another worker, and tracks cross
    /// to it once. 0 = rooms stay whole.
    pub participants_per_worker: usize,
    /// Participants that one room may hold, the AI not counted out.
    pub max_participants_per_room: usize,
    /// Rooms that joins and services with one API key may hold open at a time; 0 = as many as `max_rooms`.
    pub max_rooms_per_key: usize,
    /// Participants that may be in rooms at a time with tokens of one API key; 0 = without limit.
    pub max_participants_per_key: usize,
    /// Joins with tokens of one API key at once, and a second after that (0 = without limit). Who resumes is not counted.
    pub joins_per_key_burst: u32,
    pub joins_per_key_per_sec: u32,
    /// Whether a join makes the room that its token names. If not, a join into a room that nobody opened is refused.
    pub auto_create: bool,
    /// Seconds after which a room closes that nobody ever joined.
    pub empty_timeout_secs: u64,
    /// Seconds after which a room closes that everybody has left.
    pub departure_timeout_secs: u64,
    /// Seconds for which a participant is kept whose media connection is lost.
    pub resume_timeout_secs: u64,
    /// Packets of 20 ms that a tap holds before it drops the newest.
    pub tap_packets_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_rooms: 1000,
            participants_per_worker: 0,
            max_participants_per_room: 50,
            max_rooms_per_key: 0,
            max_participants_per_key: 0,
            // A burst of joins is 20 ms of work each; a server that comes back is found by a thousand clients at once.
            joins_per_key_burst: 1000,
            joins_per_key_per_sec: 100,
            auto_create: true,
            empty_timeout_secs: 300,
            departure_timeout_secs: 20,
            resume_timeout_secs: 20,
            // Five seconds: a listener that is further behind is stuck.
            tap_packets_max: 250,
        }
    }
}

/// A moment on both clocks: the one for intervals, the one for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub at: Instant,
    /// Milliseconds since 1970.
    pub unix_ms: i64,
}

/// One socket of one client; a resume makes a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(u64);

/// Why a room could not be entered. The text is for the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    #[error("the room is closed")]
    Closed,
    #[error("this server holds as many rooms as it may (rooms.max_rooms); try again later")]
    TooManyRooms,
    #[error("the room is full (rooms.max_participants_per_room)")]
    RoomFull,
    #[error("this API key holds as many rooms as it may (rooms.max_rooms_per_key)")]
    KeyRooms,
    #[error("this API key has as many participants as it may (rooms.max_participants_per_key)")]
    KeyParticipants,
    #[error("too many joins with this API key at once (rooms.joins_per_key_per_sec); try again in a moment")]
    KeyJoins,
    #[error("this access token was revoked when its holder was removed from the room; ask for a new one")]
    Revoked,
    #[error("the server is shutting down; try again in a moment")]
    Draining,
    #[error("no media worker of this server runs any more; it must be restarted")]
    NoWorker,
    #[error("requested room does not exist")]
    NotFound,
    #[error("the access token names no identity (`sub`)")]
    NoIdentity,
    #[error("this identity belongs to the interviewer; ask for a token with another one")]
    IdentityTaken,
    #[error("the room's name is empty or too long")]
    BadName,
    #[error("the configuration of the room cannot be used: {0}")]
    BadConfig(&'static str),
    #[error("this server has no room presets: say what the room shall be in `roomConfig`, without `roomPreset`")]
    UnknownPreset,
    #[error("the access token does not allow to publish from this source (`canPublishSources`)")]
    MayNotPublish,
    #[error("{0}")]
    OfferRejected(&'static str),
    #[error("there is no such participant")]
    NotHere,
    #[error("somebody else joined with the same identity before this offer was answered")]
    TakenOut,
}

/// All rooms of this server.
#[derive(Clone)]
pub struct Rooms {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    workers: Arc<[Placement]>,
    by_name: DashMap<RoomName, RoomHandle>,
    /// Where the events of a room go.
    by_sid: DashMap<RoomSid, mpsc::Sender<Mail>>,
    /// Rooms open now. Kept apart from the map, whose length cannot be read while an entry of it is held.
    open: AtomicUsize,
    /// What each API key holds, and how fast it may come.
    rooms_of_keys: Quota,
    people_of_keys: Quota,
    joins_of_keys: Mutex<Keyed<String>>,
    /// Tokens of people who were removed.
    revoked: Mutex<Revoked>,
    draining: AtomicBool,
    /// Where rooms run, whoever opens them: speech has a runtime of its own.
    runtime: tokio::runtime::Handle,
    /// Sockets whose last messages may still be on the way.
    sockets: TaskTracker,
    listeners: Listeners,
    metrics: Arc<Metrics>,
}

/// A room's mailbox.
#[derive(Clone)]
pub struct RoomHandle {
    name: RoomName,
    sid: RoomSid,
    /// Its media worker, by number.
    worker: usize,
    mailbox: mpsc::Sender<Mail>,
}

impl fmt::Debug for RoomHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RoomHandle").field(&self.sid).finish()
    }
}

impl Rooms {
    /// Must be called inside a tokio runtime, on which all rooms then run: spawns one task per worker that hands out
    /// its events.
    pub fn new(
        config: Config,
        workers: Vec<(WorkerHandle, mpsc::Receiver<sfu::Event>)>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self::with_listeners(config, workers, Listeners::default(), metrics)
    }

    /// As [`Rooms::new`]; what happens in rooms is told to `listeners`, who never hold a room up.
    pub fn with_listeners(
        config: Config,
        workers: Vec<(WorkerHandle, mpsc::Receiver<sfu::Event>)>,
        listeners: Listeners,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (handles, events): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
        let workers = handles.into_iter().map(|worker| Placement { worker, load: Arc::default() }).collect();
        let joins = Rate::of(config.joins_per_key_burst, config.joins_per_key_per_sec);
        let inner = Arc::new(Inner {
            rooms_of_keys: Quota::new(config.max_rooms_per_key),
            people_of_keys: Quota::new(config.max_participants_per_key),
            joins_of_keys: Mutex::new(Keyed::new(joins)),
            revoked: Mutex::default(),
            config,
            workers,
            by_name: DashMap::new(),
            by_sid: DashMap::new(),
            open: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            runtime: tokio::runtime::Handle::current(),
            sockets: TaskTracker::new(),
            listeners,
            metrics,
        });
        for (worker, events) in events.into_iter().enumerate() {
            tokio::spawn(dispatch(Arc::downgrade(&inner), worker, events));
        }
        Self { inner }
    }

    /// The room of this name, made if there is none. It stays until `empty_timeout_secs`.
    pub fn open(&self, name: &RoomName) -> Result<RoomHandle, RoomError> {
        self.open_with(name, RoomSetup::default()).map(|(room, _)| room)
    }

    /// As [`Rooms::open`]; a room that is made is made with `setup`, one that is open stays as it is. Tells whether it
    /// was made.
    pub fn open_with(&self, name: &RoomName, setup: RoomSetup) -> Result<(RoomHandle, bool), RoomError> {
        self.open_by(name, setup, None)
    }

    /// As [`Rooms::open_with`]; a room that is made counts as one of this API key's.
    pub fn open_by(
        &self,
        name: &RoomName,
        setup: RoomSetup,
        key: Option<&str>,
    ) -> Result<(RoomHandle, bool), RoomError> {
        self.open_on(name, setup, key, None)
    }

    /// As [`Rooms::open_by`]. A room that has to be made comes to this media worker, if it is named.
    fn open_on(
        &self,
        name: &RoomName,
        setup: RoomSetup,
        key: Option<&str>,
        worker: Option<usize>,
    ) -> Result<(RoomHandle, bool), RoomError> {
        if name.as_str().is_empty() || name.as_str().len() > NAME_BYTES_MAX {
            return Err(RoomError::BadName);
        }
        match self.inner.by_name.entry(name.clone()) {
            Entry::Occupied(entry) if !entry.get().mailbox.is_closed() => Ok((entry.get().clone(), false)),
            Entry::Occupied(mut entry) => {
                let room = self.start(name, setup, key, worker)?;
                entry.insert(room.clone());
                Ok((room, true))
            }
            Entry::Vacant(entry) => {
                let room = self.start(name, setup, key, worker)?;
                entry.insert(room.clone());
                Ok((room, true))
            }
        }
    }

    /// The room of this name, if it is open.
    pub fn get(&self, name: &RoomName) -> Option<RoomHandle> {
        self.inner.by_name.get(name).map(|room| room.clone()).filter(|room| !room.mailbox.is_closed())
    }

    /// Every room that is open.
    pub fn list(&self) -> Vec<RoomHandle> {
        let open = |room: &RoomHandle| !room.mailbox.is_closed();
        self.inner.by_name.iter().map(|entry| entry.value().clone()).filter(open).collect()
    }

    /// Rooms open now.
    pub fn count(&self) -> usize {
        self.inner.open.load(Ordering::Relaxed)
    }

    /// Whether a room could be opened as far as media goes: a media worker that fails outside of any room is gone for
    /// good.
    pub fn is_healthy(&self) -> bool {
        self.inner.workers.iter().any(|place| !place.worker.is_closed())
    }

    /// Whether [`Rooms::shutdown`] has begun.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Relaxed)
    }

    fn start(
        &self,
        name: &RoomName,
        setup: RoomSetup,
        key: Option<&str>,
        worker: Option<usize>,
    ) -> Result<RoomHandle, RoomError> {
        if self.is_draining() {
            return Err(RoomError::Draining);
        }
        setup.options.check().map_err(|_| RoomError::BadConfig("its metadata is too large"))?;
        let inner = &self.inner;
        let seat = match key {
            Some(key) => {
                Some(inner.rooms_of_keys.take(key).ok_or_else(|| self.limited("rooms_key", RoomError::KeyRooms))?)
            }
            None => None,
        };
        let named = |index: usize| worker.is_none_or(|worker| worker == index);
        let alive = inner.workers.iter().enumerate().filter(|(at, place)| named(*at) && !place.worker.is_closed());
        let least = alive.min_by_key(|(_, place)| place.load.load(Ordering::Relaxed));
        let (worker, _) = least.ok_or(RoomError::NoWorker)?;
        if inner.open.fetch_add(1, Ordering::Relaxed) >= inner.config.max_rooms {
            inner.open.fetch_sub(1, Ordering::Relaxed);
            return Err(RoomError::TooManyRooms);
        }
        let (mailbox, mail) = mpsc::channel(MAILBOX_CAPACITY);
        let handle = RoomHandle { name: name.clone(), sid: RoomSid::random(), worker, mailbox };
        inner.by_sid.insert(handle.sid.clone(), handle.mailbox.clone());
        let now = Now { at: tokio::time::Instant::now().into_std(), unix_ms: unix_ms() };
        let mut room = Room::new(name.clone(), handle.sid.clone(), inner.config.clone(), inner.metrics.clone(), now);
        room.configure(setup.options.clone());
        inner.listeners.tell_opened(room.info(), setup);
        let places = Places { all: inner.workers.clone(), home: worker };
        let task = RoomTask::new(room, mail, handle.mailbox.downgrade(), places, inner.listeners.clone());
        let (sid, rooms) = (handle.sid.clone(), self.inner.clone());
        let name = name.clone();
        inner.runtime.spawn(async move {
            let _seat = seat;
            tracing::info!(room = %sid, "opened");
            if AssertUnwindSafe(task.run()).catch_unwind().await.is_err() {
                // One room's fault must not take the others down; its clients were told to come back, to a new one.
                tracing::error!(room = %sid, "a room failed and is closed");
                for place in rooms.workers.iter() {
                    let _ = place.worker.send(sfu::Command::Close { room: sid.clone() }).await;
                }
            }
            rooms.by_sid.remove(&sid);
            // A successor of the same name may be there by now.
            rooms.by_name.remove_if(&name, |_, room| room.sid == sid);
            rooms.open.fetch_sub(1, Ordering::Relaxed);
            tracing::info!(room = %sid, "closed");
        });
        Ok(handle)
    }

    /// A client joins the room that its token names, or resumes there. The first message is in the link's queue when
    /// this returns.
    pub async fn join(
        &self,
        claims: Claims,
        request: proto::JoinRequest,
        connections: Connections,
    ) -> Result<SignalLink, RoomError> {
        let name = self.admit(&claims, !request.reconnect)?;
        for _ in 0..OPEN_ATTEMPTS {
            let room = match self.get(&name) {
                Some(room) => room,
                // Whoever resumes expects a room; without one there is nothing to come back to.
                None if request.reconnect => return Ok(SignalLink::start_anew(self.inner.sockets.token())),
                None => self.room_to_join(&name, &claims)?,
            };
            let seat = if request.reconnect { None } else { Some(self.seat(&claims)?) };
            match room.join(claims.clone(), request.clone(), connections, seat).await {
                Ok(link) => {
                    return Ok(SignalLink::new(link, room.mailbox.clone(), self.inner.sockets.token()));
                }
                Err(RoomError::Closed) => tokio::task::yield_now().await,
                Err(error) => return Err(error),
            }
        }
        Err(RoomError::Closed)
    }

    /// A client without a signalling socket joins the room that its token names. Returns when its offer is answered.
    pub async fn join_direct(&self, claims: Claims, how: Direct, offer: String) -> Result<Box<Agreed>, RoomError> {
        let name = self.admit(&claims, true)?;
        for _ in 0..OPEN_ATTEMPTS {
            let room = self.room_to_join(&name, &claims)?;
            match room.join_direct(claims.clone(), how.clone(), offer.clone(), Some(self.seat(&claims)?)).await {
                Err(RoomError::Closed) => tokio::task::yield_now().await,
                joined => return joined,
            }
        }
        Err(RoomError::Closed)
    }

    /// The room that this token names, if its holder may come in now. A join is counted, a resume is not.
    fn admit(&self, claims: &Claims, joins: bool) -> Result<RoomName, RoomError> {
        let name = claims.grants.joins().ok_or(RoomError::BadName)?;
        if self.is_draining() {
            return Err(RoomError::Draining);
        }
        self.check_revoked(&name, claims)?;
        if joins {
            let mut joins = self.inner.joins_of_keys.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = joins.take(tokio::time::Instant::now().into_std(), claims.iss.clone());
            taken.map_err(|_| self.limited("joins_key", RoomError::KeyJoins))?;
        }
        Ok(name)
    }

    fn check_revoked(&self, name: &RoomName, claims: &Claims) -> Result<(), RoomError> {
        let revoked = self.inner.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        match claims.identity() {
            Some(identity) if revoked.is_void(name, &identity, claims.nbf) => {
                Err(self.limited("revoked", RoomError::Revoked))
            }
            _ => Ok(()),
        }
    }

    /// Tokens of this identity for this room that were made before a moment, Unix seconds, let nobody in any more.
    pub fn revoke(&self, room: &RoomName, identity: &Identity, before: i64) {
        let mut revoked = self.inner.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.revoke(unix_ms() / 1000, room.clone(), identity.clone(), before);
    }

    fn seat(&self, claims: &Claims) -> Result<Seat, RoomError> {
        let seat = self.inner.people_of_keys.take(&claims.iss);
        seat.ok_or_else(|| self.limited("participants_key", RoomError::KeyParticipants))
    }

    fn limited(&self, limit: &str, error: RoomError) -> RoomError {
        self.inner.metrics.limited.with_label_values(&[limit]).inc();
        error
    }

    /// The room of this name; made where a join may do that, with what its token says.
    fn room_to_join(&self, name: &RoomName, claims: &Claims) -> Result<RoomHandle, RoomError> {
        match self.get(name) {
            Some(room) => Ok(room),
            None if self.inner.config.auto_create => {
                self.open_by(name, RoomSetup::of_token(claims)?, Some(&claims.iss)).map(|(room, _)| room)
            }
            None => Err(RoomError::NotFound),
        }
    }

    /// Moves a participant to another room, which is made if there is none and joins may do that. Its peer connections
    /// go with it where both rooms are on one media worker, as a room that is made for this is; else its client is told
    /// to join the other room anew, with a token for it. `key`: the API key that a room that is made counts for.
    pub async fn move_participant(
        &self,
        from: &RoomName,
        identity: Identity,
        to: &RoomName,
        key: Option<&str>,
    ) -> Result<(), AdminError> {
        let here = self.get(from).ok_or(AdminError::NoRoom)?;
        if from == to {
            return Err(AdminError::SameRoom);
        }
        let there = match self.get(to) {
            Some(room) => room,
            None if self.inner.config.auto_create => {
                let (home, wanted) = (here.worker, identity.clone());
                let worker = here.with(move |room, _| room.find(&wanted).map_or(home, |p| p.worker)).await?;
                self.open_on(to, RoomSetup::default(), key, Some(worker))?.0
            }
            None => return Err(RoomError::NotFound.into()),
        };
        let wanted = identity.clone();
        there.with(move |room, _| room.would_take(&wanted)).await??;
        let (name, sid, mailbox) = (there.name.clone(), there.sid.clone(), there.mailbox.clone());
        let worker = there.worker;
        here.ask(|reply| Mail::Depart { identity, to: task::Destination { name, sid, mailbox, worker }, reply }).await?
    }

    /// Shows a participant in another room, too, which is made if there is none and joins may do that: with its tracks,
    /// until it leaves its own room or is removed from the other. Returns once it is there; also where it was already.
    /// `key`: the API key that it counts for there.
    pub async fn forward_participant(
        &self,
        from: &RoomName,
        identity: Identity,
        to: &RoomName,
        key: &str,
    ) -> Result<(), AdminError> {
        let here = self.get(from).ok_or(AdminError::NoRoom)?;
        if from == to {
            return Err(AdminError::SameRoom);
        }
        let wanted = identity.clone();
        here.with(move |room, _| room.find_own(&wanted).map(|_| ())).await??;
        let there = match self.get(to) {
            Some(room) => room,
            None if self.inner.config.auto_create => self.open_by(to, RoomSetup::default(), Some(key))?.0,
            None => return Err(RoomError::NotFound.into()),
        };
        let seat = self.inner.people_of_keys.take(key);
        let seat = seat.ok_or_else(|| self.limited("participants_key", RoomError::KeyParticipants))?;
        let (reply, begun) = oneshot::channel();
        self.inner.runtime.spawn(Forwarder::new(here, there, identity).run(Some(seat), reply));
        begun.await.map_err(|_| RoomError::Closed)?
    }

    /// Whether this token still counts: that of somebody who was removed does not.
    pub fn check_token(&self, claims: &Claims) -> Result<(), RoomError> {
        self.check_revoked(&claims.grants.joins().ok_or(RoomError::BadName)?, claims)
    }

    /// Whether a join with this token would find a room: what a client asks after a failed attempt.
    pub fn check(&self, claims: &Claims) -> Result<(), RoomError> {
        let name = claims.grants.joins().ok_or(RoomError::BadName)?;
        self.check_revoked(&name, claims)?;
        match self.get(&name) {
            _ if self.is_draining() => Err(RoomError::Draining),
            Some(_) => Ok(()),
            None if !self.inner.config.auto_create => Err(RoomError::NotFound),
            None if let Err(error) = RoomSetup::of_token(claims) => Err(error),
            None if !self.is_healthy() => Err(RoomError::NoWorker),
            None if self.count() >= self.inner.config.max_rooms => Err(RoomError::TooManyRooms),
            None => Ok(()),
        }
    }

    /// Closes every room: clients are told to start anew elsewhere or later. Returns once that is written to their
    /// sockets, or patience ends. New joins are refused from here on.
    pub async fn shutdown(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
        let rooms: Vec<_> = self.inner.by_name.iter().map(|entry| entry.value().clone()).collect();
        let closing = rooms.iter().map(|room| room.end(DisconnectReason::ServerShutdown, Action::Reconnect));
        self.inner.sockets.close();
        let goodbye = async {
            futures::future::join_all(closing).await;
            self.inner.sockets.wait().await;
        };
        if tokio::time::timeout(SHUTDOWN_PATIENCE, goodbye).await.is_err() {
            tracing::warn!("some clients could not be told of the shutdown");
        }
    }
}

impl RoomHandle {
    pub fn name(&self) -> &RoomName {
        &self.name
    }

    pub fn sid(&self) -> &RoomSid {
        &self.sid
    }

    async fn join(
        &self,
        claims: Claims,
        request: proto::JoinRequest,
        connections: Connections,
        seat: Option<Seat>,
    ) -> Result<task::Link, RoomError> {
        let (claims, request) = (Box::new(claims), Box::new(request));
        self.ask(|reply| Mail::Join { claims, request, connections, seat, reply }).await?
    }

    async fn join_direct(
        &self,
        claims: Claims,
        how: Direct,
        offer: String,
        seat: Option<Seat>,
    ) -> Result<Box<Agreed>, RoomError> {
        let claims = Box::new(claims);
        self.ask(|reply| Mail::JoinDirect { claims, how, offer, seat, reply }).await?
    }

    /// The last offer of a participant without a socket, and its answer.
    pub async fn agreed(&self, sid: &ParticipantSid, identity: &Identity) -> Result<Box<Agreed>, RoomError> {
        self.ask_direct(sid, identity, AskDirect::Agreed).await?
    }

    /// Another offer of a participant without a socket. Returns when it is answered.
    pub async fn offer(
        &self,
        sid: &ParticipantSid,
        identity: &Identity,
        sdp: String,
    ) -> Result<Box<Agreed>, RoomError> {
        self.ask_direct(sid, identity, |reply| AskDirect::Offer { sdp, reply }).await?
    }

    /// Takes a participant without a socket out of the room.
    pub async fn leave(&self, sid: &ParticipantSid, identity: &Identity) -> Result<(), RoomError> {
        self.ask_direct(sid, identity, AskDirect::Leave).await?
    }

    async fn ask_direct<T>(
        &self,
        sid: &ParticipantSid,
        identity: &Identity,
        ask: impl FnOnce(oneshot::Sender<T>) -> AskDirect,
    ) -> Result<T, RoomError> {
        let (sid, identity) = (sid.clone(), identity.clone());
        self.ask(|reply| Mail::Direct { sid, identity, ask: ask(reply) }).await
    }

    /// Lets an AI in: a participant without a transport. It is told of everybody who is there.
    pub async fn join_agent(&self, options: AgentOptions) -> Result<AgentParticipant, RoomError> {
        self.ask(|reply| Mail::JoinAgent { options, reply }).await?
    }

    /// Whether this person's microphone may be tapped; not allowed until said. Returns after the media worker was told.
    pub async fn allow_tap(&self, identity: &Identity, allowed: bool) -> Result<(), RoomError> {
        self.ask(|reply| Mail::AllowTap { identity: identity.clone(), allowed, reply }).await
    }

    /// Applies what differs from the server's configuration here; returns what the room is then.
    pub async fn set_options(&self, options: RoomOptions) -> Result<proto::Room, AdminError> {
        self.with(move |room, _| room.set_options(options).map(|()| room.info())).await?
    }

    pub async fn info(&self) -> Result<proto::Room, AdminError> {
        Ok(self.with(|room, _| room.info()).await?)
    }

    pub async fn participants(&self) -> Result<Vec<proto::ParticipantInfo>, AdminError> {
        Ok(self.with(|room, _| room.list()).await?)
    }

    pub async fn participant(&self, identity: Identity) -> Result<proto::ParticipantInfo, AdminError> {
        self.with(move |room, _| room.find(&identity).map(|p| p.info())).await?
    }

    /// Takes a participant out.
    pub async fn expel(&self, identity: Identity) -> Result<(), AdminError> {
        self.with(move |room, now| room.expel(now, &identity)).await?
    }

    pub async fn force_mute(
        &self,
        identity: Identity,
        track: String,
        muted: bool,
    ) -> Result<proto::TrackInfo, AdminError> {
        self.with(move |room, _| room.force_mute(&identity, &track, muted)).await?
    }

    pub async fn update_participant(
        &self,
        identity: Identity,
        change: ParticipantChange,
    ) -> Result<proto::ParticipantInfo, AdminError> {
        self.with(move |room, now| room.update_participant(now, &identity, change)).await?
    }

    pub async fn update_subscriptions(
        &self,
        identity: Identity,
        update: proto::UpdateSubscription,
    ) -> Result<(), AdminError> {
        self.with(move |room, _| room.update_subscriptions(&identity, &update)).await?
    }

    /// Sends a data packet that is nobody's.
    pub async fn send_data(&self, request: proto::SendDataRequest) -> Result<(), AdminError> {
        self.with(move |room, now| room.send_user_data(now, request)).await?
    }

    /// Calls a method of a participant and waits for the answer, for as long as the request says.
    pub async fn call(&self, request: proto::PerformRpcRequest) -> Result<RpcOutcome, AdminError> {
        let request = Box::new(request);
        self.ask(|reply| Mail::Call { request, reply }).await?
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Room, Now) -> T + Send + 'static,
    ) -> Result<T, RoomError> {
        self.ask(|reply| {
            Mail::With(Box::new(move |room, now| {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(work(room, now));
            }))
        })
        .await
    }

    /// Ends the room: everybody is told to leave.
    pub async fn close(&self) {
        self.end(DisconnectReason::RoomDeleted, Action::Disconnect).await;
    }

    async fn end(&self, reason: DisconnectReason, action: Action) {
        // An error says that the room is closed already.
        let _ = self.ask(|reply| Mail::Close { reason, action, reply }).await;
    }

    async fn ask<T>(&self, mail: impl FnOnce(oneshot::Sender<T>) -> Mail) -> Result<T, RoomError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(mail(reply)).await.map_err(|_| RoomError::Closed)?;
        answer.await.map_err(|_| RoomError::Closed)
    }
}

fn unix_ms() -> i64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(unix.as_millis()).unwrap_or(i64::MAX)
}

/// Hands a worker's events to the rooms that they are about, in order.
async fn dispatch(rooms: std::sync::Weak<Inner>, worker: usize, mut events: mpsc::Receiver<sfu::Event>) {
    while let Some(event) = events.recv().await {
        let Some(rooms) = rooms.upgrade() else { return };
        let mailbox = rooms.by_sid.get(&event.room).map(|mailbox| mailbox.clone());
        drop(rooms);
        // A room that closed a moment ago has no use for it.
        if let Some(mailbox) = mailbox {
            let moved = matches!(event.kind, sfu::EventKind::Moved);
            let sent = mailbox.send(Mail::Event { worker, participant: event.participant, kind: event.kind }).await;
            let (reply, passed_on) = oneshot::channel();
            // What comes next of who moved goes to another room, and must not overtake what this one passes on.
            if moved && sent.is_ok() && mailbox.send(Mail::PassedOn { link: None, reply }).await.is_ok() {
                let _ = passed_on.await;
            }
        }
    }
    tracing::debug!("a media worker's events ended");
}
