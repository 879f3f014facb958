//! What the control plane asks of a room: offers, announcements, subscriptions, data.

use std::{collections::HashMap, time::Instant};

use bytes::Bytes;
use str0m::media::Mid;

use super::{
    Context, DataChannel, EventKind, MediaKind, PendingTrack,
    negotiation::{OfferOutcome, SECTIONS_MAX},
    participant::{Leg, Participant, ParticipantKey},
    room::Room,
    sdp::{self, SectionPlan},
    slots::Slots,
    subscription::{Subscription, View},
    track::TrackKey,
    transport::OfferError,
};
use crate::id::{ParticipantSid, TrackSid};

/// The largest offer that is read. Chromium's with 20 sections are 60 kB.
const OFFER_BYTES_MAX: usize = 512 * 1024;

impl Room {
    pub fn offer(&mut self, now: Instant, sid: &ParticipantSid, offer_id: u32, offer: &str, cx: &mut Context) {
        let Some(key) = self.by_sid.get(sid).copied() else { return };
        match self.answer(now, key, offer, cx) {
            Ok((outcome, sdp, tracks)) => {
                self.emit(key, EventKind::Answer { offer_id, sdp, tracks }, cx);
                self.apply(now, key, outcome, cx);
            }
            Err(reason) => self.emit(key, EventKind::OfferRejected { offer_id, reason }, cx),
        }
        self.settle(now, cx);
    }

    /// Takes the offer and writes the answer; nothing else of the room changes yet.
    #[allow(clippy::type_complexity)]
    fn answer(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        offer: &str,
        cx: &mut Context,
    ) -> Result<(OfferOutcome, String, Vec<(String, TrackSid)>), &'static str> {
        if offer.len() > OFFER_BYTES_MAX {
            return Err("the offer is too large");
        }
        let sections = sdp::offered_sections(offer);
        if sections.len() > SECTIONS_MAX {
            return Err("the offer has too many sections");
        }
        let offer = sdp::without_candidates(offer);
        let accepted = self.drive(now, key, Leg::Main, cx, |transport, sink| transport.accept_offer(&offer, sink));
        let answer = accepted.ok_or("the participant has no transport")?.map_err(|OfferError(reason)| reason)?;
        self.update_ufrags(key, cx);
        self.mark_dirty(key, Leg::Main);
        let participant = self.participants.get_mut(key).ok_or("the participant left")?;
        let outcome = participant.negotiation.handle_offer(now, &sections);
        if participant.negotiation.is_fixed() {
            // The names stay while tracks come and go; one stream, so that sound and picture are played together.
            let stream = participant.sid.to_string();
            let named = |mid: &str| match sections.iter().find(|section| section.mid == mid) {
                Some(offered) if offered.sends && !offered.receives => {
                    let (_, opus) = participant.negotiation.announced(mid);
                    SectionPlan::Receive { formats: offered.formats.clone(), codec: String::new(), opus }
                }
                _ => SectionPlan::Carries { stream: stream.clone(), track: format!("{stream}-{mid}") },
            };
            return Ok((outcome, sdp::rewrite(&answer, named), Vec::new()));
        }
        let (answer, tracks) = self.rewrite(&answer, |participants, mid| {
            let offered = sections.iter().find(|section| section.mid == mid && section.kind.is_some());
            let otherwise = match offered {
                Some(offered) if offered.receives => SectionPlan::Silent { client_sends: offered.sends },
                Some(offered) if offered.sends => {
                    let announced = participants.get(key).map(|it| it.negotiation.announced(mid));
                    let (codec, opus) = announced.unwrap_or_default();
                    SectionPlan::Receive { formats: offered.formats.clone(), codec, opus }
                }
                _ => SectionPlan::Keep,
            };
            let carried = participants.get(key).and_then(|it| it.negotiation.carried(mid));
            (carried.filter(|_| offered.is_some()), otherwise)
        });
        Ok((outcome, answer, tracks))
    }

    /// Names the tracks in what str0m wrote. `section` says of each section what it carries, and what becomes of it where
    /// that is nothing.
    fn rewrite(
        &self,
        sdp: &str,
        mut section: impl FnMut(&Slots<Participant>, &str) -> (Option<TrackKey>, SectionPlan),
    ) -> (String, Vec<(String, TrackSid)>) {
        let mut tracks = Vec::new();
        let sdp = sdp::rewrite(sdp, |mid| {
            let (carried, otherwise) = section(&self.participants, mid);
            let track = carried.and_then(|track| self.tracks.get(track));
            let owner = track.and_then(|track| self.participants.get(track.owner));
            match (track, owner) {
                (Some(track), Some(owner)) => {
                    tracks.push((mid.to_owned(), track.sid.clone()));
                    SectionPlan::Carries {
                        stream: format!("{}|{}", owner.sid, track.sid),
                        track: track.sid.to_string(),
                    }
                }
                _ => otherwise,
            }
        });
        (sdp, tracks)
    }

    fn apply(&mut self, now: Instant, key: ParticipantKey, outcome: OfferOutcome, cx: &mut Context) {
        if let Some(participant) = self.participants.get_mut(key) {
            participant.forget_routes();
        }
        for mid in outcome.idle {
            self.drive(now, key, Leg::Main, cx, |transport, sink| {
                transport.remove_outlet(Mid::from(mid.as_str()), sink);
            });
        }
        for track in outcome.detached {
            self.detach(track, key);
        }
        for track in outcome.ended {
            if let Some(sid) = self.tracks.get(track).map(|it| it.sid.clone()) {
                self.remove_track(now, track, cx);
                self.emit(key, EventKind::TrackEnded { track: sid }, cx);
            }
        }
        for published in outcome.published {
            self.go_live(now, key, published, cx);
        }
        for (mid, track, view) in outcome.attached {
            self.attach(now, key, &mid, track, view, cx);
        }
        self.rearm(now, key, cx);
    }

    /// Offers what has changed to a client that receives by a connection of its own, if an offer is due.
    pub(super) fn make_offer(&mut self, now: Instant, key: ParticipantKey, cx: &mut Context) {
        let offers = self.participants.get_mut(key).and_then(Participant::offers_mut);
        let Some(plan) = offers.and_then(|offers| offers.handle_timeout(now)) else { return };
        let Some(Some((sdp, mids))) =
            self.drive(now, key, Leg::Down, cx, |transport, sink| transport.make_offer(&plan, sink))
        else {
            return;
        };
        let offer_id = plan.id;
        let added = mids.iter().cloned().zip(plan.add.iter().map(|(track, _)| *track));
        let offered: HashMap<String, TrackKey> =
            plan.reuse.iter().map(|(mid, track, _)| (mid.clone(), *track)).chain(added).collect();
        let (sdp, tracks) = self.rewrite(&sdp, |participants, mid| {
            let carried = || participants.get(key).and_then(|it| it.carried(mid));
            (offered.get(mid).copied().or_else(carried), SectionPlan::Silent { client_sends: false })
        });
        if let Some(offers) = self.participants.get_mut(key).and_then(Participant::offers_mut) {
            offers.sent(plan, mids);
        }
        self.mark_dirty(key, Leg::Down);
        self.emit(key, EventKind::Offer { offer_id, sdp, tracks }, cx);
    }

    /// The client's answer to what we offered. Others than the one that is waited for do not count.
    pub fn handle_answer(&mut self, now: Instant, sid: &ParticipantSid, offer_id: u32, answer: &str, cx: &mut Context) {
        let Some(key) = self.by_sid.get(sid).copied() else { return };
        let offers = self.participants.get_mut(key).and_then(Participant::offers_mut);
        let Some(offer_id) = offers.and_then(|offers| offers.awaited(offer_id)) else { return };
        let answer = sdp::without_candidates(answer);
        let accepted = match answer.len() {
            0..=OFFER_BYTES_MAX => {
                self.drive(now, key, Leg::Down, cx, |transport, sink| transport.accept_answer(&answer, sink))
            }
            _ => None,
        };
        if !matches!(accepted, Some(Ok(()))) {
            // The two sides no longer agree on what the connection carries.
            self.close_transport(key, "its answer cannot be used".to_owned(), cx);
            return;
        }
        self.update_ufrags(key, cx);
        self.mark_dirty(key, Leg::Down);
        let offers = self.participants.get_mut(key).and_then(Participant::offers_mut);
        let outcome = offers.and_then(|offers| offers.handle_answer(now, offer_id)).unwrap_or_default();
        for mid in outcome.idle {
            self.drive(now, key, Leg::Down, cx, |transport, sink| {
                transport.remove_outlet(Mid::from(mid.as_str()), sink);
            });
        }
        for (mid, track, view) in outcome.attached {
            self.attach(now, key, &mid, track, view, cx);
        }
        self.rearm(now, key, cx);
        self.settle(now, cx);
    }

    pub fn reoffer(&mut self, now: Instant, sid: &ParticipantSid, cx: &mut Context) {
        let Some(key) = self.by_sid.get(sid).copied() else { return };
        if let Some(offers) = self.participants.get_mut(key).and_then(Participant::offers_mut) {
            offers.restart(now);
        }
        self.rearm(now, key, cx);
    }

    fn attach(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        mid: &str,
        track_key: TrackKey,
        view: View,
        cx: &mut Context,
    ) {
        let Some(track) = self.tracks.get_mut(track_key) else { return };
        let Some(participant) = self.participants.get_mut(key) else { return };
        let Some(transport) = participant.transport_mut(participant.receiving()) else { return };
        // Without one the client rejected the section.
        let Some(outlet) = transport.outlet(Mid::from(mid)) else {
            let track = track.sid.clone();
            return self.emit(key, EventKind::TrackUnsupported { track }, cx);
        };
        let subscription = match participant.take_retired(outlet.ssrc) {
            Some(mut subscription) => {
                subscription.subscriber = key;
                subscription.hand_over(view);
                subscription
            }
            None => Subscription::new(key, outlet, track.kind, view),
        };
        let first = track.subscriptions.is_empty();
        track.subscriptions.push(subscription);
        let (owner, sid, kind) = (track.owner, track.sid.clone(), track.kind);
        if first {
            self.emit(owner, EventKind::TrackSubscribed { track: sid }, cx);
        }
        self.subscriber_needs_keyframe(now, track_key, key, cx);
        if kind == MediaKind::Video {
            self.video_attached(now, key, cx);
        }
    }

    /// A receiver gets this track no more.
    pub(super) fn detach(&mut self, track: TrackKey, key: ParticipantKey) {
        let Some(track) = self.tracks.get_mut(track) else { return };
        let ended: Vec<_> = track.subscriptions.extract_if(.., |it| it.subscriber == key).collect();
        if let Some(participant) = self.participants.get_mut(key) {
            ended.into_iter().for_each(|subscription| participant.retire(subscription));
        }
    }

    /// Gives tracks that wait to sections that are free, where that takes no negotiation.
    pub(super) fn fill(&mut self, now: Instant, key: ParticipantKey, cx: &mut Context) {
        let filled = self.participants.get_mut(key).map(|participant| participant.negotiation.fill());
        for (mid, track, view) in filled.unwrap_or_default() {
            self.attach(now, key, &mid, track, view, cx);
        }
    }

    pub fn publish(&mut self, now: Instant, sid: &ParticipantSid, track: PendingTrack, cx: &mut Context) {
        let Some(key) = self.by_sid.get(sid).copied() else { return };
        let Some(participant) = self.participants.get_mut(key) else { return };
        for published in participant.negotiation.publish(now, track) {
            self.go_live(now, key, published, cx);
        }
        self.rearm(now, key, cx);
    }

    pub fn unpublish(&mut self, now: Instant, sid: &ParticipantSid, track: &TrackSid, cx: &mut Context) {
        let Some(key) = self.by_sid.get(sid).copied() else { return };
        let Some(participant) = self.participants.get_mut(key) else { return };
        participant.negotiation.unannounce(track);
        if let Some(track) = self.track_of(key, track) {
            self.remove_track(now, track, cx);
        }
    }

    pub fn mute(&mut self, now: Instant, sid: &ParticipantSid, track: &TrackSid, muted: bool, cx: &mut Context) {
        let Some(owner) = self.by_sid.get(sid).copied() else { return };
        let Some(key) = self.track_of(owner, track) else {
            if let Some(participant) = self.participants.get_mut(owner) {
                participant.negotiation.mute_announced(track, muted);
            }
            return;
        };
        if let Some(track) = self.tracks.get_mut(key).filter(|it| it.muted != muted) {
            track.set_muted(muted);
            if !muted {
                let needed: Vec<_> = track.subscriptions.iter().filter_map(Subscription::keyframe_source).collect();
                let receivers: Vec<_> = track.subscriptions.iter().map(|it| it.subscriber).collect();
                for ssrc in needed {
                    self.need_keyframe(now, key, ssrc, cx);
                }
                for receiver in receivers {
                    self.video_attached(now, receiver, cx);
                }
            }
        }
    }

    /// A track, if it is this participant's.
    pub(super) fn track_of(&self, owner: ParticipantKey, track: &TrackSid) -> Option<TrackKey> {
        let key = *self.tracks_by_sid.get(track)?;
        self.tracks.get(key).filter(|it| it.owner == owner).map(|_| key)
    }

    pub fn subscribe(
        &mut self,
        now: Instant,
        subscriber: &ParticipantSid,
        track: &TrackSid,
        subscribed: bool,
        cx: &mut Context,
    ) {
        let Some(key) = self.by_sid.get(subscriber).copied() else { return };
        let Some(track_key) = self.tracks_by_sid.get(track).copied() else { return };
        if !subscribed {
            self.detach(track_key, key);
        }
        let Some(track) = self.tracks.get_mut(track_key) else { return };
        let Some(participant) = self.participants.get_mut(key) else { return };
        if !subscribed {
            participant.unwish(now, track_key);
        } else if track.owner != key && participant.connections() > 0 {
            participant.wish(now, track_key, &track.sid, track.kind);
        }
        self.fill(now, key, cx);
        self.rearm(now, key, cx);
    }

    pub fn set_view(
        &mut self,
        now: Instant,
        subscriber: &ParticipantSid,
        track: &TrackSid,
        view: View,
        cx: &mut Context,
    ) {
        let Some(key) = self.by_sid.get(subscriber).copied() else { return };
        let Some(track_key) = self.tracks_by_sid.get(track).copied() else { return };
        if let Some(participant) = self.participants.get_mut(key) {
            participant.set_view(track_key, view);
        }
        let subscription = self.tracks.get_mut(track_key).and_then(|track| track.subscription_mut(key));
        if subscription.is_some_and(|subscription| subscription.set_view(view)) {
            self.subscriber_needs_keyframe(now, track_key, key, cx);
        }
        self.video_attached(now, key, cx);
    }

    pub fn send_data(
        &mut self,
        now: Instant,
        to: &[ParticipantSid],
        channel: DataChannel,
        payload: &Bytes,
        cx: &mut Context,
    ) {
        for sid in to {
            if let Some(key) = self.by_sid.get(sid).copied() {
                let Some(leg) = self.participants.get(key).map(Participant::receiving) else { continue };
                self.drive(now, key, leg, cx, |transport, sink| transport.send_data(channel, payload, sink));
                self.mark_dirty(key, leg);
            }
        }
        self.settle(now, cx);
    }
}
