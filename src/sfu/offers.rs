//! What we offer to a client on the connection that it receives by (two peer connections: LiveKit's `/rtc`). Pure: no SDP
//! text, no transport, no clock.
//!
//! Here the server always offers, one offer at a time. What changes while one is under way waits for its answer.
//!
//! Invariants: a section carries a track only from the answer on; a section never goes from one track to another in one
//! offer, it is offered inactive once between, so that the client sees the one end and the other begin. Nor does it go back
//! to a track that it had before while the connection may have more sections: LiveKit's Rust core, which is in most SDKs,
//! announces a track once for each section and never again. And no description names one track twice, or that core cannot
//! read it: what a client drops while it is being offered is over with the answer, even if it takes the same track again.

use std::time::{Duration, Instant};

use super::{
    MediaKind,
    downlinks::{Downlinks, Section, Use},
    subscription::View,
    track::TrackKey,
};
use crate::id::TrackSid;

/// Several tracks often come at once: one offer serves all that come within.
const OFFER_DELAY: Duration = Duration::from_millis(10);
/// Sections of one connection.
const SECTIONS_MAX: usize = 256;

/// What an offer is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferPlan {
    pub id: u32,
    pub ice_restart: bool,
    /// Sections that end.
    pub release: Vec<String>,
    /// Free sections that carry a track again.
    pub reuse: Vec<(String, TrackKey, MediaKind)>,
    /// Tracks that need a new section.
    pub add: Vec<(TrackKey, MediaKind)>,
}

struct InFlight {
    id: u32,
    release: Vec<String>,
    carry: Vec<Carry>,
}

/// A section of an offer, and the track that it carries once that is answered.
struct Carry {
    mid: String,
    track: TrackKey,
    sid: Option<TrackSid>,
    kind: MediaKind,
    /// The client dropped the track meanwhile: clients show what they are offered before they answer.
    dropped: bool,
}

/// What an answer made true.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AnswerOutcome {
    /// Sections that now carry a track, and how it is wanted.
    pub attached: Vec<(String, TrackKey, View)>,
    /// Sections that carry nothing now.
    pub idle: Vec<String>,
}

pub struct Offers {
    down: Downlinks,
    in_flight: Option<InFlight>,
    offers_made: u32,
    ice_restart: bool,
    offer_at: Option<Instant>,
}

impl Offers {
    /// The first offer is due at once: it brings the data channels, whether there are tracks or not.
    pub fn new(now: Instant) -> Self {
        Self {
            down: Downlinks::default(),
            in_flight: None,
            offers_made: 0,
            ice_restart: false,
            offer_at: Some(now + OFFER_DELAY),
        }
    }

    /// The client is to receive this track. False where it is already, or may have no more.
    pub fn wish(&mut self, now: Instant, track: TrackKey, sid: &TrackSid, kind: MediaKind) -> bool {
        let new = self.down.wish(track, sid, kind);
        self.schedule(now);
        new
    }

    /// The client is not to receive this track any more.
    pub fn unwish(&mut self, now: Instant, track: TrackKey) {
        self.down.unwish(track);
        for carry in self.carried_by_offer().filter(|carry| carry.track == track) {
            carry.dropped = true;
        }
        self.schedule(now);
    }

    /// The client is to receive nothing of what it received. What is being offered to it ends with the answer.
    pub fn unwish_all(&mut self, now: Instant) {
        self.down.unwish_all();
        for carry in self.carried_by_offer() {
            carry.dropped = true;
        }
        self.schedule(now);
    }

    fn carried_by_offer(&mut self) -> impl Iterator<Item = &mut Carry> {
        self.in_flight.iter_mut().flat_map(|offer| &mut offer.carry)
    }

    pub fn set_view(&mut self, track: TrackKey, view: View) {
        self.down.set_view(track, view);
    }

    /// The track that a section carries to the client.
    pub fn carried(&self, mid: &str) -> Option<TrackKey> {
        self.down.carried(mid)
    }

    /// The client came back on another socket: an answer that was under way is lost, and its addresses may be others.
    pub fn restart(&mut self, now: Instant) {
        if let Some(lost) = self.in_flight.take() {
            for carry in lost.carry.into_iter().filter(|carry| !carry.dropped) {
                self.detach(carry.track);
            }
        }
        self.ice_restart = true;
        self.offer_at = Some(now + OFFER_DELAY);
    }

    fn detach(&mut self, track: TrackKey) {
        for wish in self.down.wishes.iter_mut().filter(|wish| wish.track == track) {
            wish.attached = false;
        }
    }

    fn schedule(&mut self, now: Instant) {
        let waiting = self.down.wishes.iter().any(|wish| !wish.attached);
        let released = self.down.sections.iter().any(|section| section.usage == Use::Released);
        if (waiting || released || self.ice_restart) && self.offer_at.is_none() {
            self.offer_at = Some(now + OFFER_DELAY);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.offer_at.filter(|_| self.in_flight.is_none())
    }

    /// The offer to make now, if one is due. The caller must tell [`Offers::sent`] what became of it.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<OfferPlan> {
        self.poll_timeout().filter(|at| now >= *at)?;
        self.offer_at = None;
        self.offers_made += 1;
        let mut plan = OfferPlan {
            id: self.offers_made,
            ice_restart: std::mem::take(&mut self.ice_restart),
            release: Vec::new(),
            reuse: Vec::new(),
            add: Vec::new(),
        };
        let mut free: Vec<&Section> = Vec::new();
        for section in &self.down.sections {
            match section.usage {
                Use::Released => plan.release.push(section.mid.clone()),
                Use::Free => free.push(section),
                Use::Carries(_) => {}
            }
        }
        let mut room = SECTIONS_MAX.saturating_sub(self.down.sections.len());
        for wish in self.down.wishes.iter_mut().filter(|wish| !wish.attached) {
            let fits = |section: &&Section| section.kind == wish.kind && (room == 0 || !section.knows(&wish.sid));
            if let Some(at) = free.iter().position(fits) {
                plan.reuse.push((free.swap_remove(at).mid.clone(), wish.track, wish.kind));
            } else if room > 0 {
                room -= 1;
                plan.add.push((wish.track, wish.kind));
            } else {
                continue;
            }
            wish.attached = true;
        }
        Some(plan)
    }

    /// The offer was made; `mids` are the names of the sections that it adds, in the plan's order.
    pub fn sent(&mut self, plan: OfferPlan, mids: Vec<String>) {
        let added = mids.into_iter().zip(plan.add).map(|(mid, (track, kind))| (mid, track, kind));
        let sid = |track| self.down.wishes.iter().find(|wish| wish.track == track).map(|wish| wish.sid.clone());
        let carry = |(mid, track, kind)| Carry { mid, track, sid: sid(track), kind, dropped: false };
        let carry = plan.reuse.into_iter().chain(added).map(carry).collect();
        self.in_flight = Some(InFlight { id: plan.id, release: plan.release, carry });
    }

    /// The client took an offer. `None` for an answer to another one than the last.
    pub fn handle_answer(&mut self, now: Instant, id: u32) -> Option<AnswerOutcome> {
        let InFlight { release, carry, .. } = self.in_flight.take_if(|offer| offer.id == id)?;
        for section in self.down.sections.iter_mut().filter(|section| release.contains(&section.mid)) {
            section.usage = Use::Free;
        }
        let mut outcome = AnswerOutcome { attached: Vec::new(), idle: release };
        for Carry { mid, track, sid, kind, dropped } in carry {
            // It may have ended while the offer was under way. A wish that is there again is another one.
            let wish = self.down.wishes.iter().find(|wish| wish.track == track && !dropped);
            let usage = if wish.is_some() { Use::Carries(track) } else { Use::Released };
            let at = self.down.sections.iter().position(|section| section.mid == mid).unwrap_or_else(|| {
                self.down.sections.push(Section::new(mid.clone(), kind, usage));
                self.down.sections.len() - 1
            });
            if let Some(section) = self.down.sections.get_mut(at) {
                section.usage = usage;
                sid.into_iter().for_each(|sid| section.remember(sid));
            }
            if let Some(wish) = wish {
                outcome.attached.push((mid, track, wish.view));
            }
        }
        self.schedule(now);
        Some(outcome)
    }

    /// The offer that this answer is to, if it is the one that is waited for. Clients that number no answers send 0.
    pub fn awaited(&self, id: u32) -> Option<u32> {
        self.in_flight.as_ref().map(|offer| offer.id).filter(|awaited| id == *awaited || id == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::sfu::slots::Slots;

    const AUDIO: MediaKind = MediaKind::Audio;
    const VIDEO: MediaKind = MediaKind::Video;

    struct Story {
        now: Instant,
        offers: Offers,
        tracks: Slots<crate::sfu::track::Track>,
        mids: u32,
        names: u32,
    }

    impl Story {
        fn new() -> Self {
            let now = Instant::now();
            let mut story = Self { now, offers: Offers::new(now), tracks: Slots::default(), mids: 0, names: 0 };
            let first = story.offer().expect("the data channels");
            assert_eq!((first.id, first.add.len()), (1, 0));
            assert_eq!(story.offers.handle_answer(story.now, 1), Some(AnswerOutcome::default()));
            story
        }

        fn track(&mut self, kind: MediaKind) -> TrackKey {
            self.names += 1;
            self.track_named(format!("TR_{}", self.names).into(), kind)
        }

        fn track_named(&mut self, sid: TrackSid, kind: MediaKind) -> TrackKey {
            let owner = crate::sfu::participant::ParticipantKey::dangling();
            self.tracks.insert(crate::sfu::track::Track::new(sid, owner, kind))
        }

        fn sid(&self, track: TrackKey) -> TrackSid {
            self.tracks.get(track).expect("it is there").sid.clone()
        }

        fn wish(&mut self, track: TrackKey, kind: MediaKind) -> bool {
            self.offers.wish(self.now, track, &self.sid(track), kind)
        }

        /// The offer that is due, made with sections m1, m2, …
        fn offer(&mut self) -> Option<OfferPlan> {
            self.now += OFFER_DELAY;
            let plan = self.offers.handle_timeout(self.now)?;
            let mids = plan.add.iter().map(|_| {
                self.mids += 1;
                format!("m{}", self.mids)
            });
            let mids = mids.collect();
            self.offers.sent(plan.clone(), mids);
            Some(plan)
        }

        /// The offer that is due, and which tracks its sections name.
        fn describe(&mut self) -> Option<(u32, Vec<(String, TrackSid)>)> {
            let before = self.mids;
            let plan = self.offer()?;
            let named = (before + 1..).zip(&plan.add).map(|(mid, (track, _))| (format!("m{mid}"), *track));
            let named = named.chain(plan.reuse.iter().map(|(mid, track, _)| (mid.clone(), *track)));
            let carried = (1..=before).map(|mid| format!("m{mid}"));
            let carried = carried.filter_map(|mid| self.offers.carried(&mid).map(|track| (mid, track)));
            Some((plan.id, named.chain(carried).map(|(mid, track)| (mid, self.sid(track))).collect()))
        }

        fn answer(&mut self, id: u32) -> AnswerOutcome {
            self.offers.handle_answer(self.now, id).expect("it is the last offer")
        }
    }

    #[test]
    fn tracks_that_come_together_go_into_one_offer_and_flow_from_its_answer_on() {
        let mut story = Story::new();
        let (voice, face) = (story.track(AUDIO), story.track(VIDEO));
        assert!(story.wish(voice, AUDIO));
        assert!(!story.wish(voice, AUDIO), "it is wished for already");
        story.wish(face, VIDEO);
        let looked_away = View { paused: true, ..View::default() };
        story.offers.set_view(face, looked_away);
        let plan = story.offer().unwrap();
        assert_eq!(plan.add, [(voice, AUDIO), (face, VIDEO)]);
        assert_eq!(story.offers.carried("m1"), None);
        let outcome = story.answer(plan.id);
        assert_eq!(outcome.attached, [("m1".into(), voice, View::default()), ("m2".into(), face, looked_away)]);
        assert_eq!(story.offers.carried("m1"), Some(voice));
        assert_eq!(story.offer(), None);
    }

    #[test]
    fn one_offer_at_a_time_and_only_its_own_answer_counts() {
        let mut story = Story::new();
        let (one, two) = (story.track(AUDIO), story.track(AUDIO));
        story.wish(one, AUDIO);
        let first = story.offer().unwrap();
        story.wish(two, AUDIO);
        assert_eq!(story.offer(), None);
        assert_eq!(story.offers.handle_answer(story.now, first.id - 1), None);
        assert_eq!((story.offers.awaited(first.id), story.offers.awaited(0)), (Some(first.id), Some(first.id)));
        assert_eq!(story.offers.awaited(first.id - 1), None);
        story.answer(first.id);
        assert_eq!(story.offer().unwrap().add, [(two, AUDIO)]);
    }

    #[test]
    fn a_section_is_inactive_once_before_it_carries_another_track() {
        let mut story = Story::new();
        let (one, two) = (story.track(AUDIO), story.track(AUDIO));
        story.wish(one, AUDIO);
        let plan = story.offer().unwrap();
        story.answer(plan.id);
        story.offers.unwish(story.now, one);
        let plan = story.offer().unwrap();
        assert_eq!((plan.release.as_slice(), plan.reuse.len()), (["m1".to_owned()].as_slice(), 0));
        assert_eq!(story.answer(plan.id).idle, ["m1"]);
        story.wish(two, AUDIO);
        let plan = story.offer().unwrap();
        assert_eq!((plan.reuse.as_slice(), plan.add.len()), ([("m1".to_owned(), two, AUDIO)].as_slice(), 0));
        assert_eq!(story.answer(plan.id).attached, [("m1".into(), two, View::default())]);
    }

    /// Takes a track and drops it again; the offer that it was taken by.
    fn take_and_drop(story: &mut Story, track: TrackKey) -> OfferPlan {
        story.wish(track, AUDIO);
        let taken = story.offer().unwrap();
        story.answer(taken.id);
        story.offers.unwish(story.now, track);
        let dropped = story.offer().unwrap();
        story.answer(dropped.id);
        taken
    }

    #[test]
    fn a_track_that_is_taken_again_comes_on_a_section_that_never_had_it() {
        let mut story = Story::new();
        let (one, two) = (story.track(AUDIO), story.track(AUDIO));
        assert_eq!(take_and_drop(&mut story, one).add, [(one, AUDIO)]);
        assert_eq!(take_and_drop(&mut story, one).add, [(one, AUDIO)], "not on the first");
        let other = take_and_drop(&mut story, two);
        assert_eq!((other.reuse.len(), other.add.len()), (1, 0), "both are free for any other");
        for _ in 2..SECTIONS_MAX {
            assert_eq!(take_and_drop(&mut story, one).add, [(one, AUDIO)]);
        }
        assert_eq!(take_and_drop(&mut story, one).reuse.len(), 1, "better there than nowhere");
    }

    #[test]
    fn a_track_that_ends_while_it_is_offered_is_taken_back_in_the_next_offer() {
        let mut story = Story::new();
        let one = story.track(VIDEO);
        story.wish(one, VIDEO);
        let plan = story.offer().unwrap();
        story.offers.unwish(story.now, one);
        assert!(story.answer(plan.id).attached.is_empty());
        assert_eq!(story.offer().unwrap().release, ["m1"]);
    }

    #[test]
    fn a_track_that_comes_again_under_its_name_is_the_same_to_its_client() {
        let mut story = Story::new();
        let one = story.track(AUDIO);
        take_and_drop(&mut story, one);
        let again = story.track_named(story.sid(one), AUDIO);
        assert_eq!(take_and_drop(&mut story, again).add, [(again, AUDIO)], "not on the section that had it");
    }

    #[test]
    fn a_track_that_is_dropped_and_taken_again_before_the_answer_is_on_one_section_only() {
        let mut story = Story::new();
        let one = story.track(VIDEO);
        story.wish(one, VIDEO);
        let early = story.offer().unwrap();
        story.offers.unwish(story.now, one);
        story.wish(one, VIDEO);
        assert!(story.answer(early.id).attached.is_empty(), "the client dropped what was offered");
        assert_eq!(story.offers.carried("m1"), None);
        let again = story.offer().unwrap();
        assert_eq!(
            (again.release.as_slice(), again.add.as_slice()),
            (["m1".to_owned()].as_slice(), [(one, VIDEO)].as_slice())
        );
        assert_eq!(story.answer(again.id).attached, [("m2".into(), one, View::default())]);
        assert_eq!(story.offer(), None);
    }

    #[test]
    fn a_client_that_comes_back_is_offered_anew_what_was_under_way() {
        let mut story = Story::new();
        let one = story.track(VIDEO);
        story.wish(one, VIDEO);
        let lost = story.offer().unwrap();
        story.offers.restart(story.now);
        let again = story.offer().unwrap();
        assert!(again.ice_restart && again.add == [(one, VIDEO)] && again.id > lost.id);
        assert_eq!(story.offers.handle_answer(story.now, lost.id), None);
        assert_eq!(story.answer(again.id).attached.len(), 1);
    }

    #[test]
    fn what_a_client_may_receive_is_bounded() {
        let mut story = Story::new();
        for _ in 0..300 {
            let track = story.track(AUDIO);
            story.wish(track, AUDIO);
        }
        assert_eq!(story.offer().unwrap().add.len(), SECTIONS_MAX);
    }

    /// A client with LiveKit's Rust core: it takes a track when a description names it on a section for the first time.
    #[derive(Default)]
    struct Core {
        known: HashSet<(String, TrackSid)>,
        /// What its user wants, and of it what is there.
        wants: HashSet<TrackSid>,
        has: HashSet<TrackSid>,
    }

    impl Core {
        fn handle_offer(&mut self, described: &[(String, TrackSid)]) {
            let tracks: HashSet<_> = described.iter().map(|(_, track)| track).collect();
            assert_eq!(tracks.len(), described.len(), "a description with a track twice cannot be read");
            for (mid, track) in described {
                if self.known.insert((mid.clone(), track.clone())) && self.wants.contains(track) {
                    self.has.insert(track.clone());
                }
            }
        }
    }

    proptest! {
        /// Whenever its user drops tracks and takes them again, before an offer, after it, before its answer is here: in
        /// the end everything that is wanted is there; also where the track is another one by then, under the same name.
        #[test]
        fn what_is_taken_again_comes_again_whenever_that_is(steps in prop::collection::vec((0..6_u8, 0..3_usize), 1..60)) {
            let mut story = Story::new();
            let mut tracks = [VIDEO, VIDEO, AUDIO].map(|kind| (story.track(kind), kind));
            let mut core = Core::default();
            let (mut unread, mut unanswered) = (None, None);
            let quiet = (0..4).flat_map(|_| (2..5).map(|step| (step, 0)));
            for (step, which) in steps.into_iter().chain(quiet) {
                let (track, kind) = tracks[which];
                let sid = story.sid(track);
                match step {
                    0 if core.wants.insert(sid.clone()) => assert!(story.wish(track, kind)),
                    1 if core.wants.remove(&sid) => {
                        core.has.remove(&sid);
                        story.offers.unwish(story.now, track);
                    }
                    5 if !core.wants.contains(&sid) => tracks[which].0 = story.track_named(sid, kind),
                    2 => unread = story.describe().or(unread),
                    3 => {
                        if let Some((id, described)) = unread.take() {
                            core.handle_offer(&described);
                            unanswered = Some(id);
                        }
                    }
                    4 => {
                        if let Some(id) = unanswered.take() {
                            story.answer(id);
                        }
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(core.has, core.wants);
        }
    }
}
