//! Data tracks of a room on several workers: they cross once, as other tracks do, and by no lane, since their packets say
//! whose they are.

use std::collections::{HashMap, HashSet};

use super::Spread;
use crate::{
    id::{DataTrackSid, ParticipantSid},
    sfu::{Command, Connections},
};

/// A data track.
pub(super) struct Data {
    pub owner: ParticipantSid,
    pub handle: u16,
    /// Who takes it, by worker, but for the owner's.
    pub takers: HashMap<usize, HashSet<ParticipantSid>>,
}

impl Spread {
    /// What is about a data track; the rest is about one member alone.
    pub(super) fn route_data(&mut self, command: Command) {
        match command {
            Command::PublishData { ref participant, ref track, handle, .. } => {
                let data = Data { owner: participant.clone(), handle, takers: HashMap::new() };
                self.data.insert(track.clone(), data);
                self.tell_member(command);
            }
            Command::UnpublishData { ref participant, ref track, .. } => {
                for worker in self.data.remove(track).into_iter().flat_map(|data| data.takers.into_keys()) {
                    let (room, participant, track) = (self.room.clone(), participant.clone(), track.clone());
                    self.tell(worker, Command::UnpublishData { room, participant, track });
                }
                self.tell_member(command);
            }
            Command::SubscribeData { ref subscriber, ref track, handle, .. } => {
                let (subscriber, track, worker) = (subscriber.clone(), track.clone(), self.worker_of(subscriber));
                if handle.is_some() {
                    self.share(&track, worker, &subscriber);
                }
                self.tell(worker, command);
                if handle.is_none() {
                    self.unshare(|of, _, takers| *of == track && takers.remove(&subscriber) && takers.is_empty());
                }
            }
            command => self.tell_member(command),
        }
    }

    /// Sees to it that a data track is there for a subscriber on this worker.
    fn share(&mut self, sid: &DataTrackSid, worker: usize, subscriber: &ParticipantSid) {
        let Some(data) = self.data.get_mut(sid) else { return };
        let Some(owner) = self.members.get_mut(&data.owner).filter(|owner| owner.worker != worker) else { return };
        let first = !data.takers.contains_key(&worker);
        data.takers.entry(worker).or_default().insert(subscriber.clone());
        if !first {
            return;
        }
        let (participant, handle, from) = (data.owner.clone(), data.handle, owner.worker);
        let (new, room, track) = (owner.stand_ins.insert(worker), self.room.clone(), sid.clone());
        if new {
            let (room, participant) = (room.clone(), participant.clone());
            self.tell(worker, Command::Join { room, participant, connections: Connections::None });
        }
        let (r, p, t) = (room.clone(), participant.clone(), track.clone());
        self.tell(worker, Command::PublishData { room: r, participant: p, track: t, handle });
        self.tell(from, Command::ShareData { room, participant, track, worker, shared: true });
    }

    /// Data tracks of which `is_over` says so are no longer wanted on that worker.
    pub(super) fn unshare(
        &mut self,
        mut is_over: impl FnMut(&DataTrackSid, usize, &mut HashSet<ParticipantSid>) -> bool,
    ) {
        let mut told = Vec::new();
        for (sid, data) in &mut self.data {
            let over: Vec<_> = data.takers.extract_if(|worker, takers| is_over(sid, *worker, takers)).collect();
            for (worker, _) in over {
                let (room, participant, track) = (self.room.clone(), data.owner.clone(), sid.clone());
                told.push((worker, Command::UnpublishData { room, participant, track }));
                if let Some(owner) = self.members.get(&data.owner) {
                    let (room, participant, track) = (self.room.clone(), data.owner.clone(), sid.clone());
                    told.push((owner.worker, Command::ShareData { room, participant, track, worker, shared: false }));
                }
            }
        }
        self.out.extend(told);
    }
}
