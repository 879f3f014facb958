//! Words about subscriptions that come in the wrong order. LiveKit's Rust core, which is in most native SDKs, sends each by
//! a task of its own: where a program drops a track and takes it again at once, *take* may come before *leave*. Believed
//! in that order, the client would never get the track that it asked for last.
//!
//! What gives it away is that the client takes what it has, and leaves it right after. Who truly says that gets for a
//! while what it does not want, which is better than to lack what it wants; so the other way round, where nothing would be
//! missing, is left as it comes.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use livekit_protocol::client_info::Sdk;

use super::subscribe::WISHES_MAX;
use crate::id::TrackSid;

/// How much later the word comes that was overtaken. On a busy machine, tens of milliseconds.
const WITHIN: Duration = Duration::from_millis(500);

/// Whether this SDK has LiveKit's Rust core. The others send in order.
pub(super) fn may_overtake(sdk: Sdk) -> bool {
    matches!(sdk, Sdk::Rust | Sdk::Python | Sdk::Node | Sdk::Cpp | Sdk::Unity)
}

/// What one client said too early, as it seems.
#[derive(Default)]
pub(super) struct Overtaking {
    /// Tracks that it took while it had them: how often, and when last.
    early: HashMap<TrackSid, (u32, Instant)>,
}

impl Overtaking {
    /// The client takes or leaves these tracks; `has` says which it would get without this. Returns those that it leaves
    /// first and takes then, if what came is put in order.
    pub fn handle(
        &mut self,
        now: Instant,
        tracks: HashSet<TrackSid>,
        takes: bool,
        has: impl Fn(&TrackSid) -> bool,
    ) -> Vec<TrackSid> {
        self.early.retain(|_, (_, at)| now < *at + WITHIN);
        let mut in_order = Vec::new();
        for track in tracks.into_iter().filter(has) {
            let full = self.early.len() >= WISHES_MAX;
            match self.early.get_mut(&track) {
                Some((times, at)) if takes => (*times, *at) = (times.saturating_add(1), now),
                Some((times, _)) => {
                    *times -= 1;
                    if *times == 0 {
                        self.early.remove(&track);
                    }
                    in_order.push(track);
                }
                None if takes && !full => drop(self.early.insert(track, (1, now))),
                None => {}
            }
        }
        in_order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Story {
        now: Instant,
        overtaking: Overtaking,
    }

    impl Story {
        fn new() -> Self {
            Self { now: Instant::now(), overtaking: Overtaking::default() }
        }

        /// Whether what the client says of a track that it has amounts to taking it anew.
        fn says(&mut self, takes: bool) -> bool {
            let tracks = HashSet::from(["TR_1".into()]);
            !self.overtaking.handle(self.now, tracks, takes, |_| true).is_empty()
        }
    }

    #[test]
    fn who_takes_what_it_has_and_leaves_it_right_after_meant_the_other_order() {
        let mut story = Story::new();
        assert!(!story.says(true));
        story.now += WITHIN / 2;
        assert!(story.says(false));
        assert!(!story.says(false), "one word overtook one");
    }

    #[test]
    fn as_many_are_put_in_order_as_came_too_early() {
        let mut story = Story::new();
        assert!(!story.says(true) && !story.says(true));
        assert!(story.says(false) && story.says(false));
        assert!(!story.says(false));
    }

    #[test]
    fn who_leaves_a_track_some_time_after_it_took_it_once_more_means_that() {
        let mut story = Story::new();
        assert!(!story.says(true));
        story.now += WITHIN;
        assert!(!story.says(false));
    }

    #[test]
    fn a_track_that_the_client_did_not_have_is_taken_and_left_as_it_says() {
        let (now, mut overtaking) = (Instant::now(), Overtaking::default());
        let track = || HashSet::from(["TR_1".into()]);
        assert!(overtaking.handle(now, track(), true, |_| false).is_empty());
        assert!(overtaking.handle(now, track(), false, |_| true).is_empty());
    }

    #[test]
    fn what_is_kept_of_words_is_bounded() {
        let (now, mut overtaking) = (Instant::now(), Overtaking::default());
        let many = (0..2 * WISHES_MAX).map(|n| TrackSid::from(format!("TR_{n}").as_str())).collect();
        overtaking.handle(now, many, true, |_| true);
        assert_eq!(overtaking.early.len(), WISHES_MAX);
        overtaking.handle(now + WITHIN, HashSet::new(), true, |_| true);
        assert!(overtaking.early.is_empty());
    }
}
