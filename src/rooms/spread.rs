//! A room that is too large for one media worker: which worker has which member, and what each worker is to be told. Pure.
//!
//! Members beyond the bound come to another worker. A publisher of whom somebody on another worker takes a track has a
//! stand-in there, of the same name and without a transport, and the track crosses once by a lane, however many take it
//! there. Rooms and clients notice nothing of this; what stand-ins say of themselves is not passed on.

mod data;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use self::data::Data;
use super::forwarding::next_lane;
use crate::{
    id::{DataTrackSid, ParticipantSid, RoomSid, TrackSid},
    sfu::{Command, Connections, EventKind, LaneEnd, LaneId, MediaKind},
};

pub(super) struct Spread {
    room: RoomSid,
    /// The worker that the room was put on, and where all are who have no connection.
    home: usize,
    /// Members with connections on one worker; 0 = without bound.
    members_max: usize,
    members: HashMap<ParticipantSid, Member>,
    tracks: HashMap<TrackSid, Track>,
    data: HashMap<DataTrackSid, Data>,
    out: VecDeque<(usize, Command)>,
}

struct Member {
    worker: usize,
    connected: bool,
    /// Workers on which somebody stands in for it.
    stand_ins: BTreeSet<usize>,
}

struct Track {
    owner: ParticipantSid,
    kind: MediaKind,
    muted: bool,
    /// By the worker that they lead to.
    lanes: HashMap<usize, Lane>,
}

struct Lane {
    id: LaneId,
    subscribers: HashSet<ParticipantSid>,
}

impl Spread {
    pub fn new(room: RoomSid, home: usize, members_max: usize) -> Self {
        Self {
            room,
            home,
            members_max,
            members: HashMap::new(),
            tracks: HashMap::new(),
            data: HashMap::new(),
            out: VecDeque::new(),
        }
    }

    /// What which worker is to be told next.
    pub fn poll(&mut self) -> Option<(usize, Command)> {
        self.out.pop_front()
    }

    /// Where this member is; the room's own worker for who is not here.
    pub fn worker_of(&self, member: &ParticipantSid) -> usize {
        self.members.get(member).map_or(self.home, |member| member.worker)
    }

    /// Members by worker.
    pub fn counts(&self, workers: usize) -> Vec<usize> {
        let on = |worker: usize| self.members.values().filter(|member| member.worker == worker).count();
        (0..workers).map(on).collect()
    }

    /// Hands a command to those whom it is for. `loads`: how busy each worker is; `None` for those that have stopped.
    pub fn route(&mut self, command: Command, loads: impl FnOnce() -> Vec<Option<usize>>) {
        match command {
            Command::Join { ref participant, connections, .. } => {
                let connected = connections != Connections::None;
                let worker = if connected { self.choose(loads) } else { self.home };
                let member = Member { worker, connected, stand_ins: BTreeSet::new() };
                self.members.insert(participant.clone(), member);
                self.tell(worker, command);
            }
            Command::Leave { ref participant, .. } | Command::Move { ref participant, .. } => {
                let (participant, worker) = (participant.clone(), self.worker_of(participant));
                self.tell(worker, command);
                self.part(&participant);
            }
            Command::Close { .. } => self.tell_all(|room| Command::Close { room }),
            Command::CloseLane { lane, .. } => self.tell_all(|room| Command::CloseLane { room, lane }),
            Command::SendData { ref to, .. } if to.iter().all(|member| self.worker_of(member) == self.home) => {
                self.tell(self.home, command);
            }
            Command::SendData { room, to, channel, payload } => {
                let workers: BTreeSet<_> = to.iter().map(|member| self.worker_of(member)).collect();
                for worker in workers {
                    let to = to.iter().filter(|member| self.worker_of(member) == worker).cloned().collect();
                    let (room, payload) = (room.clone(), payload.clone());
                    self.tell(worker, Command::SendData { room, to, channel, payload });
                }
            }
            Command::CloseTap { ref track, .. } | Command::Inject { ref track, .. } => {
                let worker = self.tracks.get(track).map_or(self.home, |track| self.worker_of(&track.owner));
                self.tell(worker, command);
            }
            command => self.route_track(command),
        }
    }

    /// What is about a track, and whatever is about one member alone.
    fn route_track(&mut self, command: Command) {
        match command {
            Command::Publish { ref participant, ref track, .. } => {
                self.add_track(participant.clone(), track.track.clone(), track.kind, false);
                self.tell_member(command);
            }
            Command::PublishInjected { ref participant, ref track, .. } => {
                self.add_track(participant.clone(), track.clone(), MediaKind::Audio, false);
                self.tell_member(command);
            }
            Command::PublishLane { ref participant, ref track, kind, .. } => {
                self.add_track(participant.clone(), track.clone(), kind, false);
                self.tell_member(command);
            }
            Command::Unpublish { ref track, .. } => {
                self.track_ended(&track.clone());
                self.tell_member(command);
            }
            Command::Mute { ref track, ref participant, muted, .. } => {
                if let Some(known) = self.tracks.get_mut(track) {
                    known.muted = muted;
                    let workers: Vec<_> = known.lanes.keys().copied().collect();
                    for worker in workers {
                        let (room, participant, track) = (self.room.clone(), participant.clone(), track.clone());
                        self.tell(worker, Command::Mute { room, participant, track, muted });
                    }
                }
                self.tell_member(command);
            }
            Command::Subscribe { ref subscriber, ref track, subscribed, .. } => {
                let (subscriber, track, worker) = (subscriber.clone(), track.clone(), self.worker_of(subscriber));
                if subscribed {
                    self.lay(&track, worker, &subscriber);
                }
                self.tell(worker, command);
                if !subscribed {
                    self.leave_lane(&track, worker, &subscriber);
                }
            }
            command => self.route_data(command),
        }
    }

    /// A member came from another room of the worker, which knows it already.
    pub fn adopt(
        &mut self,
        member: &ParticipantSid,
        tracks: impl Iterator<Item = (TrackSid, MediaKind, bool)>,
        data: impl Iterator<Item = (DataTrackSid, u16)>,
    ) {
        let arrived = Member { worker: self.home, connected: true, stand_ins: BTreeSet::new() };
        self.members.insert(member.clone(), arrived);
        for (track, kind, muted) in tracks {
            self.add_track(member.clone(), track, kind, muted);
        }
        for (track, handle) in data {
            self.data.insert(track, Data { owner: member.clone(), handle, takers: HashMap::new() });
        }
    }

    /// Whether a worker's word about a participant counts: who stands in for somebody speaks for nobody.
    pub fn hears(&mut self, participant: &ParticipantSid, worker: usize, event: &EventKind) -> bool {
        let Some(member) = self.members.get_mut(participant) else { return true };
        if member.worker == worker {
            if let EventKind::TrackEnded { track } = event {
                self.track_ended(&track.clone());
            }
            return true;
        }
        if matches!(event, EventKind::Closed { .. }) && member.stand_ins.remove(&worker) {
            // The room failed there. Its members come anew, and ask for all tracks anew.
            self.close_lanes(|track, to, _| track.owner == *participant && to == worker);
            let owned: HashSet<_> =
                self.data.iter().filter(|(_, it)| it.owner == *participant).map(|(sid, _)| sid.clone()).collect();
            self.unshare(|of, to, _| to == worker && owned.contains(of));
        }
        // Whether anybody takes a track is known where they are.
        matches!(event, EventKind::TrackSubscribed { .. })
    }

    /// Where the next member comes: where there are others, as far as there is room; else where there is least to do.
    fn choose(&self, loads: impl FnOnce() -> Vec<Option<usize>>) -> usize {
        let count = |worker: usize| self.members.values().filter(|it| it.connected && it.worker == worker).count();
        if self.members_max == 0 || count(self.home) < self.members_max {
            return self.home;
        }
        let alive: Vec<_> = loads().into_iter().enumerate().filter_map(|(at, load)| Some((at, load?))).collect();
        let has_room = |(at, _): &&(usize, usize)| (1..self.members_max).contains(&count(*at));
        let begun = alive.iter().find(has_room).map(|(at, _)| *at);
        let fresh = || alive.iter().filter(|(at, _)| count(*at) == 0).min_by_key(|(_, load)| *load).map(|(at, _)| *at);
        let fewest = || alive.iter().min_by_key(|(at, _)| count(*at)).map(|(at, _)| *at);
        begun.or_else(fresh).or_else(fewest).unwrap_or(self.home)
    }

    fn add_track(&mut self, owner: ParticipantSid, track: TrackSid, kind: MediaKind, muted: bool) {
        // Another encoding of a track that is there is no other track.
        self.tracks.entry(track).or_insert_with(|| Track { owner, kind, muted, lanes: HashMap::new() });
    }

    /// Sees to it that the track is there for a subscriber on this worker.
    fn lay(&mut self, sid: &TrackSid, worker: usize, subscriber: &ParticipantSid) {
        let Some(track) = self.tracks.get_mut(sid) else { return };
        let Some(owner) = self.members.get_mut(&track.owner).filter(|owner| owner.worker != worker) else { return };
        if let Some(lane) = track.lanes.get_mut(&worker) {
            lane.subscribers.insert(subscriber.clone());
            return;
        }
        let id = next_lane();
        track.lanes.insert(worker, Lane { id, subscribers: HashSet::from([subscriber.clone()]) });
        let (participant, kind, muted, from) = (track.owner.clone(), track.kind, track.muted, owner.worker);
        let (room, track) = (|| self.room.clone(), sid.clone());
        let mut told = Vec::new();
        if owner.stand_ins.insert(worker) {
            let connections = Connections::None;
            told.push((worker, Command::Join { room: room(), participant: participant.clone(), connections }));
        }
        let (p, t, end) = (participant.clone(), track.clone(), LaneEnd { lane: id, worker: Some(from) });
        told.push((worker, Command::PublishLane { room: room(), participant: p, track: t, kind, from: end }));
        if muted {
            let (participant, track) = (participant.clone(), track.clone());
            told.push((worker, Command::Mute { room: room(), participant, track, muted }));
        }
        let to = LaneEnd { lane: id, worker: Some(worker) };
        told.push((from, Command::OpenLane { room: room(), participant, track, to }));
        self.out.extend(told);
    }

    /// A subscriber on this worker takes the track no more. With the last one the lane goes.
    fn leave_lane(&mut self, sid: &TrackSid, worker: usize, subscriber: &ParticipantSid) {
        let Some(lane) = self.tracks.get_mut(sid).and_then(|track| track.lanes.get_mut(&worker)) else { return };
        lane.subscribers.remove(subscriber);
        if lane.subscribers.is_empty() {
            let id = lane.id;
            self.close_lanes(|_, _, lane| lane.id == id);
        }
    }

    /// Takes lanes up, at both ends.
    fn close_lanes(&mut self, which: impl Fn(&Track, usize, &Lane) -> bool) {
        let mut told = Vec::new();
        for (sid, track) in &mut self.tracks {
            let closing: Vec<_> =
                track.lanes.iter().filter(|(to, lane)| which(track, **to, lane)).map(|(to, _)| *to).collect();
            for to in closing {
                let Some(lane) = track.lanes.remove(&to) else { continue };
                let (room, participant, track_sid) = (self.room.clone(), track.owner.clone(), sid.clone());
                told.push((to, Command::Unpublish { room, participant, track: track_sid }));
                if let Some(owner) = self.members.get(&track.owner) {
                    told.push((owner.worker, Command::CloseLane { room: self.room.clone(), lane: lane.id }));
                }
            }
        }
        self.out.extend(told);
    }

    /// The track is gone, or about to go, where its owner is.
    fn track_ended(&mut self, sid: &TrackSid) {
        let Some(track) = self.tracks.remove(sid) else { return };
        for worker in track.lanes.into_keys() {
            let (room, participant) = (self.room.clone(), track.owner.clone());
            self.tell(worker, Command::Unpublish { room, participant, track: sid.clone() });
        }
    }

    /// A member is gone where it was; who stood in for it goes, too.
    fn part(&mut self, participant: &ParticipantSid) {
        let Some(gone) = self.members.remove(participant) else { return };
        self.tracks.retain(|_, track| track.owner != *participant);
        self.data.retain(|_, data| data.owner != *participant);
        for worker in gone.stand_ins {
            let (room, participant) = (self.room.clone(), participant.clone());
            self.tell(worker, Command::Leave { room, participant });
        }
        for track in self.tracks.values_mut() {
            if let Some(lane) = track.lanes.get_mut(&gone.worker) {
                lane.subscribers.remove(participant);
            }
        }
        self.close_lanes(|_, _, lane| lane.subscribers.is_empty());
        self.unshare(|_, worker, takers| worker == gone.worker && takers.remove(participant) && takers.is_empty());
        // Where nobody is left, nobody needs to be stood in for.
        if self.members.values().any(|member| member.worker == gone.worker) {
            return;
        }
        let mut told = Vec::new();
        for (participant, member) in &mut self.members {
            if member.stand_ins.remove(&gone.worker) {
                let (room, participant) = (self.room.clone(), participant.clone());
                told.push((gone.worker, Command::Leave { room, participant }));
            }
        }
        self.out.extend(told);
    }

    fn tell(&mut self, worker: usize, command: Command) {
        self.out.push_back((worker, command));
    }

    fn tell_all(&mut self, command: impl Fn(RoomSid) -> Command) {
        let mut workers: BTreeSet<_> = self.members.values().map(|member| member.worker).collect();
        workers.insert(self.home);
        for worker in workers {
            self.tell(worker, command(self.room.clone()));
        }
    }

    /// To the worker of the one member that the command is about.
    fn tell_member(&mut self, command: Command) {
        let worker = command.member().map_or(self.home, |member| self.worker_of(member));
        self.tell(worker, command);
    }
}
