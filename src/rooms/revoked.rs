//! Tokens that count no more: those of somebody who was taken out of a room. Pure: time is an argument.
//!
//! A token is known by whom and which room it is for, and by its `nbf`; so a new one lets them in again.

use std::collections::{HashMap, VecDeque};

use crate::id::{Identity, RoomName};

/// Removals that are remembered; where there are more, the oldest is forgotten.
const KEPT_MAX: usize = 10_000;
/// How long one is remembered, seconds: four times as long as a token lives that does not say how long.
const KEPT_SECS: i64 = 24 * 60 * 60;

#[derive(Default)]
pub(super) struct Revoked {
    /// Tokens from before this are void, Unix seconds; until when that is remembered.
    before: HashMap<(RoomName, Identity), (i64, i64)>,
    /// In the order of their ends; an entry that was renewed is there twice.
    ends: VecDeque<(i64, (RoomName, Identity))>,
}

impl Revoked {
    /// Tokens of this identity for this room that are from before a moment, Unix seconds, are void from now on.
    pub fn revoke(&mut self, now: i64, room: RoomName, identity: Identity, before: i64) {
        let (key, end) = ((room, identity), now.saturating_add(KEPT_SECS));
        let before = self.before.get(&key).map_or(before, |(earlier, _)| before.max(*earlier));
        self.before.insert(key.clone(), (before, end));
        self.ends.push_back((end, key));
        while self.ends.front().is_some_and(|(end, _)| *end <= now) || self.ends.len() > KEPT_MAX {
            let Some((end, key)) = self.ends.pop_front() else { return };
            if self.before.get(&key).is_some_and(|(_, last)| *last == end) {
                self.before.remove(&key);
            }
        }
    }

    /// Whether a token with this `nbf` is void.
    pub fn is_void(&self, room: &RoomName, identity: &Identity, nbf: u64) -> bool {
        let issued = i64::try_from(nbf).unwrap_or(i64::MAX);
        self.before.get(&(room.clone(), identity.clone())).is_some_and(|(before, _)| issued < *before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn older_tokens_are_void_for_that_person_in_that_room() {
        let mut revoked = Revoked::default();
        revoked.revoke(NOW, "room".into(), "eve".into(), NOW);
        let void = |room: &str, who: &str, nbf| revoked.is_void(&room.into(), &who.into(), nbf);
        assert!(void("room", "eve", NOW as u64 - 1) && void("room", "eve", 0));
        assert!(!void("room", "eve", NOW as u64), "a token that was made since");
        assert!(!void("room", "ada", 0) && !void("other", "eve", 0));
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_an_end() {
        let mut revoked = Revoked::default();
        for n in 0..KEPT_MAX + 5 {
            revoked.revoke(NOW, "room".into(), format!("{n}").as_str().into(), NOW);
        }
        assert_eq!((revoked.before.len(), revoked.ends.len()), (KEPT_MAX, KEPT_MAX));
        assert!(!revoked.is_void(&"room".into(), &"0".into(), 0) && revoked.is_void(&"room".into(), &"9".into(), 0));
        revoked.revoke(NOW + KEPT_SECS, "room".into(), "late".into(), NOW);
        assert_eq!(revoked.before.len(), 1);
    }

    #[test]
    fn a_second_removal_does_not_let_in_who_the_first_kept_out() {
        let mut revoked = Revoked::default();
        revoked.revoke(NOW, "room".into(), "eve".into(), NOW);
        revoked.revoke(NOW + 10, "room".into(), "eve".into(), 5);
        assert!(revoked.is_void(&"room".into(), &"eve".into(), 100));
        revoked.revoke(NOW + KEPT_SECS + 5, "room".into(), "x".into(), NOW);
        assert!(revoked.is_void(&"room".into(), &"eve".into(), 100), "renewed, so remembered from then");
    }
}
