//! How many connections one source may have at a time.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts connections by source. Counts nothing unless made with a bound.
#[derive(Clone, Default)]
pub struct Crowd(Option<Arc<Inner>>);

struct Inner {
    max: usize,
    /// What an address counts as; `None` where it is not counted.
    source: Box<dyn Fn(IpAddr) -> Option<IpAddr> + Send + Sync>,
    here: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place; free again when it is dropped.
pub struct Place(Option<(Arc<Inner>, IpAddr)>);

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.0.is_some()).finish()
    }
}

impl fmt::Debug for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Crowd").field(&self.0.as_ref().map(|inner| inner.max)).finish()
    }
}

impl Crowd {
    /// At most `max` connections of what `source` makes of an address. 0: without limit.
    pub fn new(max: usize, source: impl Fn(IpAddr) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        let inner = || Arc::new(Inner { max, source: Box::new(source), here: Mutex::default() });
        Self((max > 0).then(inner))
    }

    /// A place for a connection from this address, if there is one.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let Some(inner) = &self.0 else { return Some(Place(None)) };
        let Some(source) = (inner.source)(address) else { return Some(Place(None)) };
        let mut here = inner.here.lock().unwrap_or_else(PoisonError::into_inner);
        let count = here.entry(source).or_default();
        if *count >= inner.max {
            return None;
        }
        *count += 1;
        Some(Place(Some((inner.clone(), source))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((inner, source)) = self.0.take() else { return };
        let mut here = inner.here.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = here.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                here.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_has_so_many_places_and_nobody_is_remembered_who_has_gone() {
        let proxy = IpAddr::from([10, 0, 0, 1]);
        let crowd = Crowd::new(2, move |address| (address != proxy).then_some(address));
        let eve = IpAddr::from([203, 0, 113, 1]);
        let (first, second) = (crowd.enter(eve).unwrap(), crowd.enter(eve).unwrap());
        assert!(crowd.enter(eve).is_none() && crowd.enter([203, 0, 113, 2].into()).is_some());
        assert!((0..10).map(|_| crowd.enter(proxy)).collect::<Vec<_>>().iter().all(Option::is_some));
        drop(first);
        assert!(crowd.enter(eve).is_some());
        drop(second);
        assert!(crowd.0.unwrap().here.lock().unwrap().is_empty());
        assert!(Crowd::default().enter(eve).is_some());
    }
}
