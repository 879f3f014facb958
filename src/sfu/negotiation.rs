//! What the sections of one client's peer connection carry. Pure: no SDP text, no transport, no clock.
//!
//! The client always offers. Sections on which it receives are filled with the tracks that are wished for it; where
//! there are too few, it is asked for more and offers again. Sections on which it sends are matched with the tracks
//! that it announced, in whichever order the two come. A client that offers but once ([`Negotiation::is_fixed`]) is
//! asked for nothing: its sections stay open, and tracks come and go on them.
//!
//! Invariant: a section that is not fixed never goes from one track to another in one answer. It is answered inactive
//! once between, so that the client sees the one end and the other begin.

use std::time::{Duration, Instant};

use super::{
    MediaKind, OpusOptions, PendingTrack,
    downlinks::{Downlinks, Section, Use, Wish},
    sdp::OfferedSection,
    subscription::View,
    track::TrackKey,
};
use crate::id::TrackSid;

/// Several tracks often come at once (microphone and camera): one request for sections serves all that come within.
const REQUIREMENT_DELAY: Duration = Duration::from_millis(10);
/// Requests for sections are this far apart, since each costs the client a negotiation.
const REQUIREMENT_INTERVAL: Duration = Duration::from_millis(150);
/// A request that no offer follows is made again after this, and then ever later: LiveKit's Rust core can lose one that
/// comes as it has just sent an offer.
const REQUIREMENT_AGAIN: Duration = Duration::from_secs(2);
/// How often that pause is doubled.
const DOUBLINGS_MAX: u32 = 4;
/// Browsers may change a track's id. A section and an announcement of one kind that stay alone for this long are
/// taken for each other; before that the right partner of either may still be under way.
const MATCH_BY_KIND_AFTER: Duration = Duration::from_millis(300);
/// Announced tracks that wait for their section; LiveKit's servers allow as many.
const PENDING_TRACKS_MAX: usize = 20;
/// Sections of one peer connection; offers with more are refused.
pub const SECTIONS_MAX: usize = 256;

/// A section on which the client sends.
struct Uplink {
    mid: String,
    kind: MediaKind,
    track_id: String,
    rids: Vec<String>,
    track: Option<TrackKey>,
    /// What the client announced that it sends.
    codec: String,
    opus: OpusOptions,
    /// It carries its track in another codec: the track does not end with it.
    backup: bool,
    /// Its track was taken down by us; it is matched with no other.
    retired: bool,
    since: Instant,
}

/// A track that the client announced.
struct Announced {
    track: PendingTrack,
    muted: bool,
    since: Instant,
}

/// An announced track that found its section.
#[derive(Debug)]
pub struct Published {
    pub mid: String,
    pub pending: PendingTrack,
    pub muted: bool,
}

/// What an offer changed. Sections are named by their `mid`.
#[derive(Debug, Default)]
pub struct OfferOutcome {
    /// Sections that now carry a track, and how it is wanted.
    pub attached: Vec<(String, TrackKey, View)>,
    /// Tracks that the client no longer has a section for.
    pub detached: Vec<TrackKey>,
    /// Sections that carry nothing.
    pub idle: Vec<String>,
    pub published: Vec<Published>,
    /// Tracks that the client took back.
    pub ended: Vec<TrackKey>,
}

/// What time brought.
#[derive(Debug, Default)]
pub struct TimeoutOutcome {
    /// Ask the client for this many more sections for audio and video.
    pub required: Option<(u32, u32)>,
    pub published: Vec<Published>,
}

#[derive(Default)]
pub struct Negotiation {
    fixed: bool,
    down: Downlinks,
    uplinks: Vec<Uplink>,
    pending: Vec<Announced>,
    offered: bool,
    /// Sections asked for since the last offer.
    asked: Option<[u32; 2]>,
    require_at: Option<Instant>,
    required_at: Option<Instant>,
    /// How often that was asked for in vain.
    repeated: u32,
}

impl Negotiation {
    /// `fixed`: the client offers but once.
    pub fn new(fixed: bool) -> Self {
        Self { fixed, ..Self::default() }
    }

    /// Whether sections stay open while they carry nothing.
    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    pub fn handle_offer(&mut self, now: Instant, offered: &[OfferedSection]) -> OfferOutcome {
        let mut outcome = OfferOutcome::default();
        self.offered = true;
        self.asked = None;
        self.require_at = None;
        self.repeated = 0;
        for section in offered {
            if let Some(kind) = section.kind {
                self.offer_downlink(section, kind, &mut outcome);
                self.offer_uplink(now, section, kind, &mut outcome);
            }
        }
        let idle = self.down.sections.iter().filter(|section| !matches!(section.usage, Use::Carries(_)));
        if !self.fixed {
            outcome.idle = idle.map(|section| section.mid.clone()).collect();
        }
        outcome.published = self.match_by_id();
        self.update_requirement(now);
        outcome
    }

    fn offer_downlink(&mut self, offer: &OfferedSection, kind: MediaKind, outcome: &mut OfferOutcome) {
        let at = match self.down.sections.iter().position(|section| section.mid == offer.mid) {
            Some(at) => at,
            None if !offer.receives => return,
            None => {
                self.down.sections.push(Section::new(offer.mid.clone(), kind, Use::Free));
                self.down.sections.len() - 1
            }
        };
        let section = &mut self.down.sections[at];
        section.receives = offer.receives;
        match section.usage {
            Use::Carries(track) if !offer.receives => {
                section.usage = Use::Free;
                if let Some(wish) = self.down.wishes.iter_mut().find(|wish| wish.track == track) {
                    wish.attached = false;
                    outcome.detached.push(track);
                }
            }
            Use::Carries(_) => {}
            Use::Released => section.usage = Use::Free,
            Use::Free if offer.receives => {
                let waiting = self.down.wishes.iter_mut().find(|wish| !wish.attached && wish.kind == section.kind);
                if let Some(wish) = waiting {
                    wish.attached = true;
                    section.usage = Use::Carries(wish.track);
                    outcome.attached.push((section.mid.clone(), wish.track, wish.view));
                }
            }
            Use::Free => {}
        }
    }

    fn offer_uplink(&mut self, now: Instant, offer: &OfferedSection, kind: MediaKind, outcome: &mut OfferOutcome) {
        let known = self.uplinks.iter().position(|uplink| uplink.mid == offer.mid);
        match (known, offer.sends) {
            (Some(at), false) => {
                let ended = self.uplinks.swap_remove(at);
                outcome.ended.extend(ended.track.filter(|_| !ended.backup));
            }
            (Some(at), true) => {
                let uplink = &mut self.uplinks[at];
                uplink.rids.clone_from(&offer.rids);
                // The section was taken for another track, which was announced.
                let replaced = uplink.track_id != offer.track_id
                    && self.pending.iter().any(|announced| announced.track.is(&offer.track_id));
                if replaced {
                    outcome.ended.extend(uplink.track.take().filter(|_| !uplink.backup));
                    uplink.retired = false;
                }
                uplink.track_id.clone_from(&offer.track_id);
            }
            (None, true) => self.uplinks.push(Uplink {
                mid: offer.mid.clone(),
                kind,
                track_id: offer.track_id.clone(),
                rids: offer.rids.clone(),
                track: None,
                codec: String::new(),
                opus: OpusOptions::default(),
                backup: false,
                retired: false,
                since: now,
            }),
            (None, false) => {}
        }
    }

    /// The client announced a track. The outcome is its section, if that is there and can only be its.
    pub fn publish(&mut self, now: Instant, track: PendingTrack) -> Vec<Published> {
        if self.pending.len() < PENDING_TRACKS_MAX {
            self.pending.push(Announced { track, muted: false, since: now });
        }
        self.match_by_id()
    }

    /// Forgets an announcement.
    pub fn unannounce(&mut self, track: &TrackSid) {
        self.pending.retain(|announced| announced.track.track != *track);
    }

    /// Mutes a track that is not live yet.
    pub fn mute_announced(&mut self, track: &TrackSid, muted: bool) {
        for announced in self.pending.iter_mut().filter(|announced| announced.track.track == *track) {
            announced.muted = muted;
        }
    }

    /// Tells which track a matched section became.
    pub fn bind(&mut self, mid: &str, track: TrackKey, backup: bool) {
        if let Some(uplink) = self.uplinks.iter_mut().find(|uplink| uplink.mid == mid) {
            uplink.track = Some(track);
            uplink.backup = backup;
            uplink.retired = false;
        }
    }

    /// We took the track down; its section stays unused until the client takes it back.
    pub fn retire(&mut self, track: TrackKey) {
        for uplink in self.uplinks.iter_mut().filter(|uplink| uplink.track == Some(track)) {
            uplink.track = None;
            uplink.retired = true;
        }
    }

    /// The sections that tracks of the client's are on, and whether in another codec than the track's first.
    pub fn uplinks(&self) -> Vec<(String, TrackKey, bool)> {
        self.uplinks.iter().filter_map(|uplink| Some((uplink.mid.clone(), uplink.track?, uplink.backup))).collect()
    }

    /// What the client announced for a section on which it sends: the codec, empty where it named none, and how it sends
    /// Opus.
    pub fn announced(&self, mid: &str) -> (String, OpusOptions) {
        let uplink = self.uplinks.iter().find(|uplink| uplink.mid == mid);
        uplink.map(|uplink| (uplink.codec.clone(), uplink.opus)).unwrap_or_default()
    }

    /// The track on a section that the client sends on, the rank of a layer of it, whether this is another codec than
    /// the track's first, and whether redundancy may be added to it.
    pub fn uplink(&self, mid: &str, rid: Option<&str>) -> Option<(TrackKey, u8, bool, bool)> {
        let uplink = self.uplinks.iter().find(|uplink| uplink.mid == mid)?;
        let rank = rid.and_then(|rid| uplink.rids.iter().position(|known| known == rid)).unwrap_or(0);
        let red = uplink.kind == MediaKind::Audio && uplink.opus.red;
        Some((uplink.track?, u8::try_from(rank).unwrap_or(u8::MAX), uplink.backup, red))
    }

    fn match_by_id(&mut self) -> Vec<Published> {
        self.match_by(|uplink, announced| announced.track.is(&uplink.track_id))
    }

    fn match_by_kind(&mut self, now: Instant) -> Vec<Published> {
        self.match_by(|uplink, announced| now >= match_at(uplink, announced))
    }

    fn match_by(&mut self, fits: impl Fn(&Uplink, &Announced) -> bool) -> Vec<Published> {
        let mut published = Vec::new();
        for uplink in self.uplinks.iter_mut().filter(|uplink| uplink.is_unclaimed()) {
            let is_its = |announced: &Announced| announced.track.kind == uplink.kind && fits(uplink, announced);
            if let Some(at) = self.pending.iter().position(is_its) {
                // Claimed from here on; `bind` names the track.
                uplink.retired = true;
                let Announced { track: pending, muted, .. } = self.pending.remove(at);
                uplink.codec.clone_from(&pending.codec);
                uplink.opus = pending.opus;
                published.push(Published { mid: uplink.mid.clone(), pending, muted });
            }
        }
        published
    }

    fn match_by_kind_at(&self) -> Option<Instant> {
        let unclaimed = self.uplinks.iter().filter(|uplink| uplink.is_unclaimed());
        unclaimed
            .flat_map(|uplink| {
                let of_kind = self.pending.iter().filter(|announced| announced.track.kind == uplink.kind);
                of_kind.map(|announced| match_at(uplink, announced))
            })
            .min()
    }

    /// The client is to receive this track. False where it is already, or may have no more.
    pub fn wish(&mut self, now: Instant, track: TrackKey, sid: &TrackSid, kind: MediaKind) -> bool {
        let new = self.down.wish(track, sid, kind);
        self.update_requirement(now);
        new
    }

    /// The client is not to receive this track any more.
    pub fn unwish(&mut self, now: Instant, track: TrackKey) {
        self.down.unwish(track);
        self.free_fixed();
        self.update_requirement(now);
    }

    /// Sections that are fixed need no answer to be free again.
    fn free_fixed(&mut self) {
        if self.fixed {
            let released = self.down.sections.iter_mut().filter(|section| section.usage == Use::Released);
            released.for_each(|section| section.usage = Use::Free);
        }
    }

    /// Where sections are fixed, gives those that are free to the wishes that wait: section, track, how it is wanted.
    pub fn fill(&mut self) -> Vec<(String, TrackKey, View)> {
        let mut attached = Vec::new();
        if !self.fixed {
            return attached;
        }
        for section in self.down.sections.iter_mut().filter(|section| section.receives && section.usage == Use::Free) {
            let waiting = self.down.wishes.iter_mut().find(|wish| !wish.attached && wish.kind == section.kind);
            if let Some(wish) = waiting {
                wish.attached = true;
                section.usage = Use::Carries(wish.track);
                attached.push((section.mid.clone(), wish.track, wish.view));
            }
        }
        attached
    }

    /// The client is to receive nothing of what it received.
    pub fn unwish_all(&mut self, now: Instant) {
        self.down.unwish_all();
        self.free_fixed();
        self.update_requirement(now);
    }

    pub fn set_view(&mut self, track: TrackKey, view: View) {
        self.down.set_view(track, view);
    }

    /// The track that a section carries to the client.
    pub fn carried(&self, mid: &str) -> Option<TrackKey> {
        self.down.carried(mid)
    }

    /// How many sections lack for the wishes: `[audio, video]`.
    fn lacking(&self) -> [u32; 2] {
        let mut lacking = [0u32; 2];
        for wish in self.down.wishes.iter().filter(|wish| !wish.attached) {
            lacking[wish.kind.index()] += 1;
        }
        for section in self.down.sections.iter().filter(|section| section.receives && section.usage == Use::Free) {
            let lacking = &mut lacking[section.kind.index()];
            *lacking = lacking.saturating_sub(1);
        }
        if self.down.sections.len() + (lacking[0] + lacking[1]) as usize > SECTIONS_MAX {
            return [0; 2];
        }
        lacking
    }

    fn must_negotiate(&self) -> bool {
        let released = self.down.sections.iter().any(|section| section.usage == Use::Released);
        let fillable = |wish: &Wish| {
            let free = |section: &Section| section.receives && section.usage == Use::Free && section.kind == wish.kind;
            self.lacking()[wish.kind.index()] > 0 || self.down.sections.iter().any(free)
        };
        released || self.down.wishes.iter().any(|wish| !wish.attached && fillable(wish))
    }

    fn update_requirement(&mut self, now: Instant) {
        let lacking = self.lacking();
        let covered = self.asked.is_some_and(|asked| lacking[0] <= asked[0] && lacking[1] <= asked[1]);
        if self.fixed || !self.offered || !self.must_negotiate() {
            self.require_at = None;
        } else if covered {
            self.require_at = self.required_at.map(|at| at + REQUIREMENT_AGAIN * (1 << self.repeated));
        } else if self.require_at.is_none_or(|at| at > now + REQUIREMENT_INTERVAL) {
            let spaced = self.required_at.map(|at| at + REQUIREMENT_INTERVAL);
            self.require_at = Some((now + REQUIREMENT_DELAY).max(spaced.unwrap_or(now)));
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.require_at, self.match_by_kind_at()].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Instant) -> TimeoutOutcome {
        let published = self.match_by_kind(now);
        let required = self.require_at.take_if(|at| now >= *at).map(|_| {
            let lacking = self.lacking();
            let asked = self.asked.unwrap_or_default();
            let more = [lacking[0].saturating_sub(asked[0]), lacking[1].saturating_sub(asked[1])];
            if more == [0; 2] && self.asked.is_some() {
                self.repeated = (self.repeated + 1).min(DOUBLINGS_MAX);
            }
            self.asked = Some([asked[0] + more[0], asked[1] + more[1]]);
            self.required_at = Some(now);
            (more[0], more[1])
        });
        if required.is_some() {
            self.update_requirement(now);
        }
        TimeoutOutcome { required, published }
    }
}

fn match_at(uplink: &Uplink, announced: &Announced) -> Instant {
    uplink.since.max(announced.since) + MATCH_BY_KIND_AFTER
}

impl Uplink {
    fn is_unclaimed(&self) -> bool {
        self.track.is_none() && !self.retired
    }
}

impl PendingTrack {
    fn is(&self, track_id: &str) -> bool {
        !track_id.is_empty() && self.cids.iter().any(|cid| cid == track_id)
    }
}

#[cfg(test)]
mod tests;
