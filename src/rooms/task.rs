//! The task around a [`Room`]: its mailbox, its timer, its sockets' queues.
//!
//! The only awaits are for mail, for the timer and for the media worker's queue. A slow client or agent is never
//! waited for.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use livekit_protocol as proto;
use proto::{DisconnectReason, leave_request::Action};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    AdminError, Agreed, Direct, LinkId, Listeners, Mailbox, Now, Places, RoomError, RpcOutcome, ToPeer,
    agent::{AgentEvent, AgentOptions, AgentParticipant, InjectedVoice},
    moving::{Departure, Traveller},
    quota::Seat,
    room::{Output, Room, leave_request},
    spread::Spread,
};
use crate::{
    auth::Claims,
    id::{HookId, Identity, ParticipantSid, RoomName, RoomSid},
    sfu::{Command, Connections, EventKind},
};

/// What waits for one room. A burst of joins is tens of messages, data packets come at most some hundred a second;
/// senders wait where it is full.
pub(super) const MAILBOX_CAPACITY: usize = 1024;
/// Messages waiting for one client's socket. A join into a room of 50 is about 100; a client that is this far behind
/// is cut off, and finds the full state when it resumes.
const LINK_CAPACITY: usize = 512;
/// Events waiting for an agent. At most 50 a second of reports besides what people do; where it is full data packets
/// are dropped, and an agent that misses anything else is taken out.
const AGENT_CAPACITY: usize = 1024;

/// How long a room waits for another one that does not take what it passes on. Two rooms that wait for each other, both
/// full, must not do so for ever.
const PASS_ON_PATIENCE: Duration = Duration::from_secs(5);

/// Sockets so far, of all rooms: a socket keeps its name when its participant moves.
static LINKS: AtomicU64 = AtomicU64::new(0);

/// Work on a room, in its task.
pub(super) type Work = Box<dyn FnOnce(&mut Room, Now) + Send>;

/// What a room's task is told.
pub(super) enum Mail {
    /// A client comes in, or comes back where the request says so.
    Join {
        claims: Box<Claims>,
        request: Box<proto::JoinRequest>,
        connections: Connections,
        seat: Option<Seat>,
        reply: oneshot::Sender<Result<Link, RoomError>>,
    },
    /// A client comes in without a socket.
    JoinDirect {
        claims: Box<Claims>,
        how: Direct,
        offer: String,
        seat: Option<Seat>,
        reply: oneshot::Sender<Result<Box<Agreed>, RoomError>>,
    },
    /// The participant without a socket that this identity has under this sid is asked for, or asks.
    Direct {
        sid: ParticipantSid,
        identity: Identity,
        ask: AskDirect,
    },
    Request {
        link: LinkId,
        request: Box<proto::SignalRequest>,
    },
    LinkClosed {
        link: LinkId,
    },
    /// The client behind this link has sent too much.
    PutOut {
        link: LinkId,
    },
    Event {
        worker: usize,
        participant: ParticipantSid,
        kind: EventKind,
    },
    JoinAgent {
        options: AgentOptions,
        reply: oneshot::Sender<Result<AgentParticipant, RoomError>>,
    },
    AgentAttributes {
        sid: ParticipantSid,
        attributes: HashMap<String, String>,
    },
    AgentData {
        sid: ParticipantSid,
        packet: Box<proto::DataPacket>,
    },
    AgentLeave {
        sid: ParticipantSid,
    },
    AllowTap {
        identity: Identity,
        allowed: bool,
        reply: oneshot::Sender<()>,
    },
    /// Somebody is to go to another room.
    Depart {
        identity: Identity,
        to: Destination,
        reply: oneshot::Sender<Result<(), AdminError>>,
    },
    /// Somebody comes from another room, with its socket's queue.
    Arrive {
        traveller: Box<Traveller>,
        queue: Option<mpsc::Sender<ToPeer>>,
        reply: oneshot::Sender<Result<(), AdminError>>,
    },
    /// Answered once everything before it is done and passed on. `link`: the socket that sends nothing more to this room.
    PassedOn {
        link: Option<LinkId>,
        reply: oneshot::Sender<()>,
    },
    /// Anything that is answered at once.
    With(Work),
    /// Calls a method of a participant.
    Call {
        request: Box<proto::PerformRpcRequest>,
        reply: oneshot::Sender<Result<RpcOutcome, AdminError>>,
    },
    Close {
        reason: DisconnectReason,
        action: Action,
        reply: oneshot::Sender<()>,
    },
}

/// Another room, for who goes there.
pub(super) struct Destination {
    pub name: RoomName,
    pub sid: RoomSid,
    pub mailbox: mpsc::Sender<Mail>,
    /// Its media worker, by number.
    pub worker: usize,
}

/// What is wanted of a participant without a socket.
pub(super) enum AskDirect {
    Agreed(oneshot::Sender<Result<Box<Agreed>, RoomError>>),
    Offer { sdp: String, reply: oneshot::Sender<Result<Box<Agreed>, RoomError>> },
    Leave(oneshot::Sender<Result<(), RoomError>>),
}

/// A client's connection to the room, before it is dressed for the signalling side.
pub(super) struct Link {
    pub id: LinkId,
    pub outbound: mpsc::Receiver<ToPeer>,
}

pub(super) struct RoomTask {
    room: Room,
    mailbox: mpsc::Receiver<Mail>,
    /// Given to agents.
    sender: mpsc::WeakSender<Mail>,
    places: Places,
    spread: Spread,
    /// What this room counts for how busy the workers are: itself and its participants.
    counted: Vec<usize>,
    links: HashMap<LinkId, mpsc::Sender<ToPeer>>,
    /// Who waits for the answer to a participant's last offer.
    offers: HashMap<ParticipantSid, oneshot::Sender<Result<Box<Agreed>, RoomError>>>,
    agents: HashMap<ParticipantSid, mpsc::Sender<AgentEvent>>,
    listeners: Listeners,
    /// Where somebody goes who is about to, and who waits for that.
    departing: Option<(Destination, oneshot::Sender<Result<(), AdminError>>)>,
    /// Where what still comes for those who went, and from their sockets, is passed on to.
    departed: HashMap<ParticipantSid, mpsc::Sender<Mail>>,
    departed_links: HashMap<LinkId, mpsc::Sender<Mail>>,
    /// Who waits for the answers to calls, by their ids.
    calls: HashMap<String, oneshot::Sender<Result<RpcOutcome, AdminError>>>,
    /// Answered once everything that the mail caused has gone out.
    replies: Vec<oneshot::Sender<()>>,
}

impl RoomTask {
    pub fn new(
        room: Room,
        mailbox: mpsc::Receiver<Mail>,
        sender: mpsc::WeakSender<Mail>,
        places: Places,
        listeners: Listeners,
    ) -> Self {
        let spread = Spread::new(room.sid.clone(), places.home, room.config.participants_per_worker);
        Self {
            room,
            mailbox,
            sender,
            counted: vec![0; places.all.len()],
            places,
            spread,
            links: HashMap::new(),
            offers: HashMap::new(),
            agents: HashMap::new(),
            listeners,
            departing: None,
            departed: HashMap::new(),
            departed_links: HashMap::new(),
            calls: HashMap::new(),
            replies: Vec::new(),
        }
    }

    pub async fn run(mut self) {
        while !self.room.is_closed() {
            let timer = self.room.poll_timeout().map(Instant::from_std);
            tokio::select! {
                mail = self.mailbox.recv() => match mail {
                    Some(mail) => if let Some(mail) = self.pass_on(mail).await { self.handle(mail) },
                    None => self.room.close(now(), DisconnectReason::RoomClosed, Action::Disconnect),
                },
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => self.room.handle_timeout(now()),
            }
            self.flush().await;
        }
    }

    fn handle(&mut self, mail: Mail) {
        let now = now();
        match mail {
            Mail::Join { claims, request, connections, seat, reply } => {
                let result = self.join(now, *claims, *request, connections, seat);
                // A connection that nobody waits for any more: its socket is closed already.
                if let Err(Ok(link)) = reply.send(result) {
                    self.links.remove(&link.id);
                    self.room.handle_link_closed(now, link.id);
                }
            }
            Mail::JoinDirect { claims, how, offer, seat, reply } => {
                match self.room.join_direct(now, *claims, how, offer) {
                    Ok(participant) => {
                        self.room.seat(&participant, seat);
                        tracing::info!(room = %self.room.sid, %participant, "joined without a socket");
                        self.offers.insert(participant, reply);
                    }
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Mail::Direct { sid, identity, ask } => self.ask_direct(now, sid, &identity, ask),
            Mail::Request { link, request } => self.room.handle_request(now, link, *request),
            Mail::LinkClosed { link } => {
                self.links.remove(&link);
                self.room.handle_link_closed(now, link);
            }
            Mail::PutOut { link } => self.room.put_out(now, link),
            Mail::Event { worker, participant, kind } => {
                if self.spread.hears(&participant, worker, &kind) {
                    self.room.handle_event(now, &participant, kind);
                }
            }
            Mail::JoinAgent { options, reply } => {
                let result = self.join_agent(now, options);
                // An agent that nobody waits for leaves by being dropped here.
                drop(reply.send(result));
            }
            Mail::AgentAttributes { sid, attributes } => self.room.agent_attributes(&sid, attributes),
            Mail::AgentData { sid, packet } => self.room.data_from_agent(now, &sid, *packet),
            Mail::AgentLeave { sid } => self.room.agent_leave(now, &sid),
            Mail::AllowTap { identity, allowed, reply } => {
                self.room.allow_tap(&identity, allowed);
                self.replies.push(reply);
            }
            Mail::With(work) => work(&mut self.room, now),
            Mail::Depart { identity, to, reply } => self.let_go(now, &identity, to, reply),
            Mail::Arrive { traveller, queue, reply } => {
                let arrived = self.arrive(now, traveller, queue);
                drop(reply.send(arrived.map_err(AdminError::from)));
            }
            Mail::PassedOn { link, reply } => {
                if let Some(link) = link {
                    self.departed_links.remove(&link);
                }
                self.replies.push(reply);
            }
            Mail::Call { request, reply } => {
                let id = ulid::Ulid::new().to_string();
                match self.room.call(now, &id, *request) {
                    Ok(()) => _ = self.calls.insert(id, reply),
                    Err(error) => _ = reply.send(Err(error)),
                }
            }
            Mail::Close { reason, action, reply } => {
                self.room.close(now, reason, action);
                self.replies.push(reply);
            }
        }
    }

    fn join(
        &mut self,
        now: Now,
        claims: Claims,
        request: proto::JoinRequest,
        connections: Connections,
        seat: Option<Seat>,
    ) -> Result<Link, RoomError> {
        let id = LinkId(LINKS.fetch_add(1, Ordering::Relaxed) + 1);
        let (tx, outbound) = mpsc::channel(LINK_CAPACITY);
        let result = if request.reconnect {
            let label = match self.room.resume(now, id, claims, request) {
                Some(participant) => {
                    tracing::info!(room = %self.room.sid, %participant, "resumed");
                    "resumed"
                }
                None => "refused",
            };
            self.room.metrics.participant_joins.with_label_values(&["livekit", label]).inc();
            Ok(())
        } else {
            self.room.join(now, id, claims, request, connections).map(|participant| {
                self.room.seat(&participant, seat);
                tracing::info!(room = %self.room.sid, %participant, "joined");
                self.room.metrics.participant_joins.with_label_values(&["livekit", "ok"]).inc();
            })
        };
        result.map(|()| {
            self.links.insert(id, tx);
            Link { id, outbound }
        })
    }

    /// An answer that nobody waits for any more is no loss: the client asks again.
    fn ask_direct(&mut self, now: Now, sid: ParticipantSid, identity: &Identity, ask: AskDirect) {
        match ask {
            AskDirect::Agreed(reply) => {
                let agreed = self.room.agreed(&sid, identity);
                drop(reply.send(agreed.map(Box::new).ok_or(RoomError::NotHere)));
            }
            AskDirect::Offer { sdp, reply } => match self.room.offer_directly(&sid, identity, sdp) {
                true => drop(self.offers.insert(sid, reply)),
                false => drop(reply.send(Err(RoomError::NotHere))),
            },
            AskDirect::Leave(reply) => {
                let left = self.room.leave_directly(now, &sid, identity);
                drop(reply.send(if left { Ok(()) } else { Err(RoomError::NotHere) }));
            }
        }
    }

    fn answered(&mut self, participant: &ParticipantSid, result: Result<Box<Agreed>, RoomError>) {
        let Some(reply) = self.offers.remove(participant) else { return };
        if reply.send(result).is_err() {
            self.room.abandon(now(), participant);
        }
    }

    fn join_agent(&mut self, now: Now, options: AgentOptions) -> Result<AgentParticipant, RoomError> {
        let mailbox = self.sender.upgrade().ok_or(RoomError::Closed)?;
        let identity = options.identity.clone();
        let (sid, track) = self.room.join_agent(now, options)?;
        tracing::info!(room = %self.room.sid, participant = %sid, "an agent joined");
        let (tx, events) = mpsc::channel(AGENT_CAPACITY);
        self.agents.insert(sid.clone(), tx);
        let room = self.room.sid.clone();
        let voice = InjectedVoice {
            room: room.clone(),
            track: track.clone(),
            worker: self.places.home().ok_or(RoomError::NoWorker)?.clone(),
            mailbox: mailbox.clone(),
            metrics: self.room.metrics.clone(),
        };
        Ok(AgentParticipant::new(room, sid, identity, track, events, Arc::new(voice), mailbox))
    }

    /// Tells the media workers. A room that has lost one of them has lost its people there.
    async fn media(&mut self, command: Command) {
        let joining = if let Command::Join { participant, .. } = &command { Some(participant.clone()) } else { None };
        let Self { spread, places, .. } = self;
        spread.route(command, || places.loads());
        if let Some(participant) = joining {
            self.room.put_on(&participant, self.spread.worker_of(&participant));
        }
        self.tell_workers().await;
    }

    async fn tell_workers(&mut self) {
        while let Some((worker, command)) = self.spread.poll() {
            let Some(place) = self.places.all.get(worker) else { continue };
            if place.worker.send(command).await.is_err() {
                tracing::error!(room = %self.room.sid, "the media worker is gone; the room closes");
                self.room.close(now(), DisconnectReason::ServerShutdown, Action::Reconnect);
            }
        }
    }

    /// Counts this room and its people among what the workers have to do.
    fn count(&mut self) {
        let mut loads = self.spread.counts(self.places.all.len());
        if let Some(home) = loads.get_mut(self.places.home) {
            *home += 1;
        }
        if self.room.is_closed() {
            loads.fill(0);
        }
        for ((place, counted), load) in self.places.all.iter().zip(&mut self.counted).zip(loads) {
            place.load.fetch_add(load, Ordering::Relaxed);
            place.load.fetch_sub(std::mem::replace(counted, load), Ordering::Relaxed);
        }
    }

    /// Carries out what the room wants, until it wants nothing more.
    async fn flush(&mut self) {
        self.room.settle(now());
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Signal { link, message } => self.send(link, message),
                Output::CloseLink(link) => drop(self.links.remove(&link)),
                Output::Answered { participant, result } => self.answered(&participant, result),
                Output::CloseDirect(participant) => {
                    // In a room that closed one may try again; who was replaced must not replace in turn.
                    let error = if self.room.is_closed() { RoomError::Closed } else { RoomError::TakenOut };
                    if let Some(reply) = self.offers.remove(&participant) {
                        drop(reply.send(Err(error)));
                    }
                }
                Output::Media(command) => self.media(command).await,
                Output::Agent { agent, event } => self.tell(&agent, event),
                Output::RpcDone { id, outcome } => {
                    if let Some(reply) = self.calls.remove(&id) {
                        // Whoever asked may have stopped waiting.
                        let _ = reply.send(Ok(outcome));
                    }
                }
                Output::CloseAgent(agent) => drop(self.agents.remove(&agent)),
                Output::Depart(traveller) => self.depart(traveller).await,
                Output::Hook(event) => self.tell_listeners(event),
            }
        }
        self.tell_workers().await;
        self.count();
        for reply in self.replies.drain(..) {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(());
        }
    }

    fn let_go(
        &mut self,
        now: Now,
        identity: &Identity,
        to: Destination,
        reply: oneshot::Sender<Result<(), AdminError>>,
    ) {
        let together = self.room.find(identity).is_ok_and(|p| p.worker == to.worker);
        match self.room.depart(now, identity, (&to.name, &to.sid), together) {
            // Answered when it has arrived.
            Ok(Departure::Moved) => self.departing = Some((to, reply)),
            Ok(Departure::SentAway) => drop(reply.send(Ok(()))),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn arrive(
        &mut self,
        now: Now,
        traveller: Box<Traveller>,
        queue: Option<mpsc::Sender<ToPeer>>,
    ) -> Result<(), RoomError> {
        // Who came back here is not passed on any more.
        self.departed.remove(traveller.sid());
        if let (Some(link), Some(queue)) = (traveller.link(), queue) {
            self.departed_links.remove(&link);
            self.links.insert(link, queue);
        }
        let mut traveller = *traveller;
        traveller.participant.worker = self.places.home;
        let tracks = traveller.participant.live_tracks();
        let tracks: Vec<_> = tracks.map(|track| (track.sid.clone(), track.kind, track.info.muted)).collect();
        let data = &traveller.participant.data_tracks.published;
        let data = data.iter().map(|info| (info.sid.as_str().into(), info.pub_handle as u16));
        self.spread.adopt(traveller.sid(), tracks.into_iter(), data);
        self.room.arrive(now, traveller)
    }

    /// Sends somebody to their new room, with their socket.
    async fn depart(&mut self, mut traveller: Box<Traveller>) {
        let Some((Destination { sid: room, mailbox: to, .. }, reply)) = self.departing.take() else { return };
        let queue = traveller.link().and_then(|link| self.links.remove(&link));
        let handed_over = queue.filter(|queue| queue.try_send(ToPeer::HandOver(Mailbox(to.clone()))).is_ok());
        match traveller.link() {
            Some(link) if handed_over.is_some() => _ = self.departed_links.insert(link, to.clone()),
            // A client that does not read its messages: its socket is closed, and it may resume there.
            _ => traveller.participant.link = None,
        }
        self.departed.insert(traveller.sid().clone(), to.clone());
        let sid = traveller.sid().clone();
        tracing::info!(room = %self.room.sid, participant = %sid, "moves to another room");
        let arrival = Mail::Arrive { traveller, queue: handed_over, reply };
        if to.send_timeout(arrival, PASS_ON_PATIENCE).await.is_err() {
            // The new room is over, or stuck: with its queue gone the socket is closed, and the client joins anew.
            tracing::warn!(room = %self.room.sid, participant = %sid, "the other room does not take who moves to it");
            if let Some(worker) = self.places.home() {
                let _ = worker.send(Command::Leave { room, participant: sid }).await;
            }
        }
    }

    /// What comes for who moved, and from their socket, goes after them.
    async fn pass_on(&mut self, mail: Mail) -> Option<Mail> {
        let to = match &mail {
            Mail::Event { participant, kind: EventKind::Moved, .. } => {
                self.departed.remove(participant);
                return None;
            }
            Mail::Event { participant, .. } => self.departed.get(participant),
            Mail::Request { link, .. } | Mail::PutOut { link } => self.departed_links.get(link),
            Mail::LinkClosed { link } => match self.departed_links.remove(link) {
                Some(to) => return self.send_after(&to, mail).await,
                None => None,
            },
            _ => None,
        };
        match to.cloned() {
            Some(to) => self.send_after(&to, mail).await,
            None => Some(mail),
        }
    }

    async fn send_after(&self, to: &mpsc::Sender<Mail>, mail: Mail) -> Option<Mail> {
        if to.send_timeout(mail, PASS_ON_PATIENCE).await.is_err() {
            tracing::warn!(room = %self.room.sid, "another room does not take what is passed on to it");
        }
        None
    }

    fn send(&mut self, link: LinkId, message: ToPeer) {
        let Some(tx) = self.links.get(&link) else { return };
        if let Err(error) = tx.try_send(message) {
            if matches!(error, mpsc::error::TrySendError::Full(_)) {
                tracing::warn!(room = %self.room.sid, "a client does not read its messages; its socket is closed");
            }
            self.links.remove(&link);
            self.room.handle_link_closed(now(), link);
        }
    }

    fn tell(&mut self, agent: &ParticipantSid, event: AgentEvent) {
        let Some(tx) = self.agents.get(agent) else { return };
        match tx.try_send(event) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(AgentEvent::Data { .. })) => {
                tracing::warn!(room = %self.room.sid, "an agent is behind; a data packet to it is dropped");
            }
            Err(_) => {
                tracing::warn!(room = %self.room.sid, participant = %agent, "an agent does not listen; it is removed");
                self.agents.remove(agent);
                self.room.agent_leave(now(), agent);
            }
        }
    }

    fn tell_listeners(&self, mut event: Box<proto::WebhookEvent>) {
        event.id = HookId::random().as_str().to_owned();
        event.created_at = now().unix_ms / 1000;
        self.listeners.tell_event(event, &self.room.metrics);
    }
}

impl Drop for RoomTask {
    fn drop(&mut self) {
        for (place, counted) in self.places.all.iter().zip(&self.counted) {
            place.load.fetch_sub(*counted, Ordering::Relaxed);
        }
        if std::thread::panicking() {
            // The room cannot say it any more. A client whose queue is full is closed all the same, and finds out.
            for link in self.links.values() {
                let leave = leave_request(DisconnectReason::StateMismatch, Action::Reconnect);
                let _ = link.try_send(ToPeer::message(leave));
            }
        }
    }
}

/// Tokio's clock, so that tests can turn it.
fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { at: Instant::now().into_std(), unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::Grants,
        id::{RoomName, RoomSid},
        rooms::{Config, Placement},
        telemetry::Metrics,
        worker::WorkerHandle,
    };

    fn places(worker: WorkerHandle) -> Places {
        Places { all: vec![Placement { worker, load: Arc::default() }].into(), home: 0 }
    }

    #[tokio::test]
    async fn a_join_that_nobody_waits_for_any_more_leaves_nothing_behind() {
        let (worker, _told) = WorkerHandle::detached();
        let (sender, mailbox) = mpsc::channel(1);
        let name = RoomName::from("room");
        let room = Room::new(name.clone(), RoomSid::random(), Config::default(), Arc::new(Metrics::new()), now());
        let mut task = RoomTask::new(room, mailbox, sender.downgrade(), places(worker), Listeners::default());
        let claims = Claims::new(&"ada".into(), Grants::participant(&name));
        let (reply, answer) = oneshot::channel();
        drop(answer);
        task.handle(Mail::Join {
            claims: Box::new(claims),
            request: Box::default(),
            connections: Connections::One,
            seat: None,
            reply,
        });
        task.flush().await;
        assert_eq!((task.links.len(), task.room.list().len()), (0, 0));
    }

    #[tokio::test]
    async fn webhooks_that_are_behind_hold_no_room_up() {
        let (worker, _told) = WorkerHandle::detached();
        let (sender, mailbox) = mpsc::channel(1);
        let (hooks, mut told) = mpsc::channel(1);
        let listeners = Listeners { hooks: Some(hooks), news: None };
        let metrics = Arc::new(Metrics::new());
        let room = Room::new("room".into(), RoomSid::random(), Config::default(), metrics.clone(), now());
        let mut task = RoomTask::new(room, mailbox, sender.downgrade(), places(worker), listeners);
        task.room.close(now(), DisconnectReason::RoomClosed, Action::Disconnect);
        task.flush().await;
        let event = told.try_recv().expect("the first event has a place");
        assert!(event.event == "room_started" && event.id.starts_with("EV_") && event.created_at > 0, "{event:?}");
        assert!(told.try_recv().is_err());
        assert_eq!(metrics.webhooks.with_label_values(&["room_finished", "dropped"]).get(), 1);
    }

    #[tokio::test]
    async fn who_is_replaced_while_it_waits_for_its_answer_hears_so() {
        let (worker, mut told) = WorkerHandle::detached();
        let (sender, mailbox) = mpsc::channel(1);
        let name = RoomName::from("room");
        let room = Room::new(name.clone(), RoomSid::random(), Config::default(), Arc::new(Metrics::new()), now());
        let mut task = RoomTask::new(room, mailbox, sender.downgrade(), places(worker), Listeners::default());
        let join = || {
            let (reply, answer) = oneshot::channel();
            let claims = Box::new(Claims::new(&"ada".into(), Grants::participant(&name)));
            (
                Mail::JoinDirect {
                    claims,
                    how: Direct::Play { of: None },
                    offer: "an offer".into(),
                    seat: None,
                    reply,
                },
                answer,
            )
        };
        let ((first, replaced), (second, answered)) = (join(), join());
        task.handle(first);
        task.flush().await;
        task.handle(second);
        task.flush().await;
        assert_eq!(replaced.await.unwrap().err(), Some(RoomError::TakenOut));
        let participant = task.offers.keys().next().unwrap().clone();
        let kind = EventKind::Answer { offer_id: 1, sdp: "an answer".into(), tracks: Vec::new() };
        task.handle(Mail::Event { worker: 0, participant, kind });
        task.flush().await;
        assert_eq!(answered.await.unwrap().ok().map(|agreed| agreed.answer), Some("an answer".to_owned()));
        assert!(task.offers.is_empty());
        // One that waits while the room closes may try in the next room of this name.
        let (third, waiting) = join();
        task.handle(third);
        task.room.close(now(), DisconnectReason::RoomClosed, Action::Disconnect);
        task.flush().await;
        assert_eq!(waiting.await.unwrap().err(), Some(RoomError::Closed));
        told.close();
    }
}
