//! What waits for one address, and what may go next. Pure.
//!
//! Invariants: of one room at most one event is under way, and they go in the order in which they came; the oldest
//! waiting event goes first among rooms that have none under way. Where it is full the oldest waiting event is dropped:
//! a receiver that was away for long is better served by the present.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use super::Hook;

/// Requests under way to one address. Rooms behind each other's slow requests wait for a place.
const PARALLEL_MAX: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub events: usize,
    pub bytes: usize,
    pub parallel: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { events: usize::MAX, bytes: usize::MAX, parallel: PARALLEL_MAX }
    }
}

pub(super) struct Queue {
    limits: Limits,
    waiting: VecDeque<Arc<Hook>>,
    /// Of what waits.
    bytes: usize,
    /// Rooms with an event under way.
    busy: HashSet<String>,
}

impl Queue {
    pub fn new(limits: Limits) -> Self {
        Self { limits, waiting: VecDeque::new(), bytes: 0, busy: HashSet::new() }
    }

    /// Takes an event in; returns what had to go for it.
    pub fn push(&mut self, hook: Arc<Hook>) -> Vec<Arc<Hook>> {
        self.bytes += hook.body.len();
        self.waiting.push_back(hook);
        let mut dropped = Vec::new();
        while self.waiting.len() > self.limits.events || self.bytes > self.limits.bytes {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.bytes -= oldest.body.len();
            dropped.push(oldest);
        }
        dropped
    }

    /// The event that goes next, if one may. Its room waits until [`Queue::done`].
    pub fn take(&mut self) -> Option<Arc<Hook>> {
        if self.busy.len() >= self.limits.parallel {
            return None;
        }
        let at = self.waiting.iter().position(|hook| !self.busy.contains(&hook.room))?;
        let hook = self.waiting.remove(at)?;
        self.bytes -= hook.body.len();
        self.busy.insert(hook.room.clone());
        Some(hook)
    }

    /// The event of this room that was under way has arrived or was given up.
    pub fn done(&mut self, room: &str) {
        self.busy.remove(room);
    }

    /// Events that wait or are under way.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.busy.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(room: &str, id: &str) -> Arc<Hook> {
        let (event, sha256) = ("room_started".into(), String::new());
        Arc::new(Hook { event, id: id.into(), room: room.into(), body: "12345".into(), sha256 })
    }

    fn ids(hooks: impl IntoIterator<Item = Arc<Hook>>) -> Vec<String> {
        hooks.into_iter().map(|hook| hook.id.clone()).collect()
    }

    #[test]
    fn a_room_has_one_event_under_way_and_the_others_do_not_wait_for_it() {
        let mut queue = Queue::new(Limits::default());
        for (room, id) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")] {
            assert!(queue.push(hook(room, id)).is_empty());
        }
        assert_eq!(ids(std::iter::from_fn(|| queue.take())), ["a1", "b1"]);
        queue.done("b");
        assert!(queue.take().is_none());
        queue.done("a");
        assert_eq!((queue.take().unwrap().id.as_str(), queue.len()), ("a2", 2));
        queue.done("a");
        assert_eq!(queue.take().unwrap().id, "a3");
        queue.done("a");
        assert_eq!((queue.len(), queue.bytes), (0, 0));
    }

    #[test]
    fn a_full_queue_drops_its_oldest_but_never_what_is_under_way() {
        for limits in [Limits { events: 2, ..Limits::default() }, Limits { bytes: 10, ..Limits::default() }] {
            let mut queue = Queue::new(limits);
            queue.push(hook("a", "a1"));
            assert_eq!(queue.take().unwrap().id, "a1");
            queue.push(hook("a", "a2"));
            queue.push(hook("b", "b1"));
            assert_eq!(ids(queue.push(hook("c", "c1"))), ["a2"]);
            assert_eq!(ids(std::iter::from_fn(|| queue.take())), ["b1", "c1"]);
        }
    }

    #[test]
    fn requests_under_way_are_bounded() {
        let mut queue = Queue::new(Limits { parallel: 2, ..Limits::default() });
        ["a", "b", "c"].into_iter().for_each(|room| drop(queue.push(hook(room, room))));
        assert_eq!(ids(std::iter::from_fn(|| queue.take())), ["a", "b"]);
        queue.done("b");
        assert_eq!(ids(std::iter::from_fn(|| queue.take())), ["c"]);
    }
}
