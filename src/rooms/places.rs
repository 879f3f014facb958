//! The media workers as places for rooms and for parts of rooms.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::worker::WorkerHandle;

/// A media worker as a place for rooms.
pub(super) struct Placement {
    pub worker: WorkerHandle,
    /// Rooms and participants on it.
    pub load: Arc<AtomicUsize>,
}

/// The media workers, as one room sees them.
pub(super) struct Places {
    pub all: Arc<[Placement]>,
    /// The room's own one, by number.
    pub home: usize,
}

impl Places {
    pub fn home(&self) -> Option<&WorkerHandle> {
        self.all.get(self.home).map(|place| &place.worker)
    }

    /// How busy they are; `None` for those that have stopped.
    pub fn loads(&self) -> Vec<Option<usize>> {
        let load = |place: &Placement| (!place.worker.is_closed()).then(|| place.load.load(Ordering::Relaxed));
        self.all.iter().map(load).collect()
    }
}
