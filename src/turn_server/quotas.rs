//! How many allocations there may be: in all, and for each user name.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Which bound was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// This user's.
    User,
    /// The server's.
    Total,
}

/// Counts allocations; each gives its place back when its [`Slot`] is dropped.
#[derive(Debug)]
pub struct Quotas {
    user_max: usize,
    total_max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    users: HashMap<String, usize>,
}

impl Quotas {
    pub fn new(user_max: usize, total_max: usize) -> Arc<Self> {
        Arc::new(Self { user_max, total_max, held: Mutex::default() })
    }

    pub fn take(self: &Arc<Self>, user: &str) -> Result<Slot, Full> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = held.users.get(user).copied().unwrap_or(0);
        if of_user >= self.user_max {
            return Err(Full::User);
        }
        if held.total >= self.total_max {
            return Err(Full::Total);
        }
        held.total += 1;
        held.users.insert(user.to_owned(), of_user + 1);
        Ok(Slot { quotas: self.clone(), user: user.to_owned() })
    }
}

/// A place among the allocations.
#[derive(Debug)]
pub struct Slot {
    quotas: Arc<Quotas>,
    user: String,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.quotas.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total = held.total.saturating_sub(1);
        let left = held.users.get(&self.user).map_or(0, |of_user| of_user.saturating_sub(1));
        match left {
            0 => _ = held.users.remove(&self.user),
            left => _ = held.users.insert(self.user.clone(), left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_what_others_need() {
        let quotas = Quotas::new(2, 3);
        let ada = [quotas.take("ada").unwrap(), quotas.take("ada").unwrap()];
        assert_eq!(quotas.take("ada").unwrap_err(), Full::User);
        let bob = quotas.take("bob").unwrap();
        assert_eq!(quotas.take("eve").unwrap_err(), Full::Total);
        drop(bob);
        assert!(quotas.take("eve").is_ok(), "given back at once");
        drop(ada);
        assert!(quotas.held.lock().unwrap().users.is_empty(), "nobody is remembered");
    }
}
