//! What one API key may hold of the server at a time. Keys are ours, so there are few.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dashmap::DashMap;

/// Places of one kind, counted by API key.
#[derive(Default)]
pub(super) struct Quota {
    /// 0: as many as there are.
    max: usize,
    taken: DashMap<String, Arc<AtomicUsize>>,
}

/// One place; free again when it is dropped, however that comes.
pub(super) struct Seat(Arc<AtomicUsize>);

impl Quota {
    pub fn new(max: usize) -> Self {
        Self { max, taken: DashMap::new() }
    }

    /// A place, if the key has one left.
    pub fn take(&self, key: &str) -> Option<Seat> {
        let taken = self.taken.entry(key.to_owned()).or_default().clone();
        let free = |n: usize| (self.max == 0 || n < self.max).then_some(n + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(Seat(taken))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_so_many_places_and_gets_them_back() {
        let quota = Quota::new(2);
        let (first, _second) = (quota.take("a").unwrap(), quota.take("a").unwrap());
        assert!(quota.take("a").is_none() && quota.take("b").is_some());
        drop(first);
        assert!(quota.take("a").is_some());
        let open = Quota::new(0);
        assert!((0..1_000).map(|_| open.take("a")).collect::<Vec<_>>().iter().all(Option::is_some));
    }
}
