//! Stories of one client's sections, told by offers, wishes and time.

use super::*;
use crate::sfu::downlinks::WISHES_MAX;
use crate::sfu::slots::Slots;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Keys that differ; what they name does not matter here.
fn keys<const N: usize>() -> [TrackKey; N] {
    use crate::sfu::{participant::ParticipantKey, track::Track};
    let mut slots = Slots::default();
    let track = || Track::new("TR_x".into(), ParticipantKey::dangling(), MediaKind::Audio);
    std::array::from_fn(|_| slots.insert(track()))
}

/// By which clients know a track, which does not matter here either.
fn sid() -> TrackSid {
    "TR_x".into()
}

fn downlink(mid: &str, kind: MediaKind) -> OfferedSection {
    let (track_id, rids) = (String::new(), Vec::new());
    OfferedSection {
        mid: mid.to_owned(),
        kind: Some(kind),
        sends: false,
        receives: true,
        track_id,
        rids,
        formats: Vec::new(),
    }
}

fn uplink(mid: &str, kind: MediaKind, track_id: &str) -> OfferedSection {
    let (track_id, rids) = (track_id.to_owned(), Vec::new());
    OfferedSection {
        mid: mid.to_owned(),
        kind: Some(kind),
        sends: true,
        receives: false,
        track_id,
        rids,
        formats: Vec::new(),
    }
}

fn pending(sid: &str, kind: MediaKind, cid: &str) -> PendingTrack {
    PendingTrack {
        track: sid.into(),
        kind,
        cids: vec![String::new(), cid.to_owned()],
        codec: String::new(),
        opus: OpusOptions::default(),
        backup: false,
        screen: false,
    }
}

use MediaKind::{Audio, Video};

#[test]
fn wishes_fill_free_sections_and_ask_for_what_lacks_once() {
    let (start, [a, b, c]) = (Instant::now(), keys());
    let mut negotiation = Negotiation::default();
    negotiation.wish(start, a, &sid(), Audio);
    assert_eq!(negotiation.poll_timeout(), None, "nothing is asked before the first offer");
    let outcome = negotiation.handle_offer(start, &[downlink("0", Audio), downlink("1", Video)]);
    assert_eq!(outcome.attached, [("0".to_owned(), a, View::default())]);

    negotiation.wish(start, b, &sid(), Audio);
    negotiation.wish(start, c, &sid(), Video);
    assert_eq!(negotiation.poll_timeout(), Some(start + REQUIREMENT_DELAY));
    assert_eq!(negotiation.handle_timeout(start + ms(10)).required, Some((1, 0)));
    assert_eq!(negotiation.handle_timeout(start + ms(500)).required, None, "asked already");
    let offer = [downlink("0", Audio), downlink("1", Video), downlink("2", Audio)];
    let outcome = negotiation.handle_offer(start + ms(600), &offer);
    assert_eq!(outcome.attached, [("1".to_owned(), c, View::default()), ("2".to_owned(), b, View::default())]);
    assert_eq!(negotiation.poll_timeout(), None);
}

#[test]
fn requests_are_spaced_and_later_wishes_ask_for_the_difference() {
    let (start, [a, b]) = (Instant::now(), keys());
    let mut negotiation = Negotiation::default();
    negotiation.handle_offer(start, &[]);
    negotiation.wish(start, a, &sid(), Audio);
    assert_eq!(negotiation.handle_timeout(start + ms(10)).required, Some((1, 0)));
    negotiation.wish(start + ms(20), b, &sid(), Audio);
    assert_eq!(negotiation.poll_timeout(), Some(start + ms(10) + REQUIREMENT_INTERVAL));
    assert_eq!(negotiation.handle_timeout(start + ms(160)).required, Some((1, 0)));
}

#[test]
fn a_request_that_no_offer_follows_is_made_again_and_adds_no_sections() {
    let (start, [a, b]) = (Instant::now(), keys());
    let mut negotiation = Negotiation::default();
    negotiation.handle_offer(start, &[]);
    negotiation.wish(start, a, &sid(), Audio);
    let mut asked = Vec::new();
    while let Some(at) = negotiation.poll_timeout().filter(|at| *at < start + ms(100_000)) {
        asked.push(((at - start).as_secs(), negotiation.handle_timeout(at).required));
    }
    let again = [2, 6, 14, 30, 62, 94].map(|secs| (secs, Some((0, 0))));
    assert_eq!(asked, [vec![(0, Some((1, 0)))], again.to_vec()].concat());
    // Another wish does not wait for that, and who offers is asked for no more than lacks.
    let later = start + ms(100_000);
    negotiation.wish(later, b, &sid(), Audio);
    assert_eq!(negotiation.handle_timeout(later + REQUIREMENT_DELAY).required, Some((1, 0)));
    negotiation.handle_offer(later + ms(20), &[downlink("0", Audio), downlink("1", Audio)]);
    assert_eq!(negotiation.poll_timeout(), None);
    negotiation.unwish(later + ms(30), a);
    assert_eq!(negotiation.handle_timeout(later + ms(200)).required, Some((0, 0)));
    assert_eq!(negotiation.poll_timeout(), Some(later + ms(200) + REQUIREMENT_AGAIN), "the pauses begin anew");
}

#[test]
fn a_section_is_answered_inactive_once_between_two_tracks() {
    let (start, [a, b]) = (Instant::now(), keys());
    let mut negotiation = Negotiation::default();
    negotiation.wish(start, a, &sid(), Audio);
    let offer = [downlink("0", Audio)];
    negotiation.handle_offer(start, &offer);
    negotiation.unwish(start, a);
    negotiation.wish(start, b, &sid(), Audio);
    // More than one section is asked for here only because the old one is not free yet.
    assert_eq!(negotiation.handle_timeout(start + ms(10)).required, Some((1, 0)));
    let outcome = negotiation.handle_offer(start + ms(20), &offer);
    assert_eq!((outcome.attached.len(), outcome.idle), (0, vec!["0".to_owned()]));
    assert_eq!(negotiation.carried("0"), None);
    // It is free now: another negotiation fills it.
    assert_eq!(negotiation.handle_timeout(start + ms(200)).required, Some((0, 0)));
    assert_eq!(negotiation.handle_offer(start + ms(210), &offer).attached, [("0".to_owned(), b, View::default())]);
}

#[test]
fn a_section_that_the_client_closes_gives_its_track_back_to_the_wishes() {
    let (start, [a]) = (Instant::now(), keys());
    let mut negotiation = Negotiation::default();
    negotiation.wish(start, a, &sid(), Audio);
    negotiation.handle_offer(start, &[downlink("0", Audio)]);
    let mut closed = downlink("0", Audio);
    closed.receives = false;
    assert_eq!(negotiation.handle_offer(start, &[closed]).detached, [a]);
    assert_eq!(negotiation.handle_timeout(start + ms(10)).required, Some((1, 0)));
}

#[test]
fn announcements_and_sections_find_each_other_in_either_order() {
    let start = Instant::now();
    let mut negotiation = Negotiation::default();
    assert!(negotiation.publish(start, pending("TR_a", Audio, "mic")).is_empty());
    let outcome = negotiation.handle_offer(start, &[uplink("3", Audio, "mic"), uplink("4", Video, "cam")]);
    assert_eq!(outcome.published.len(), 1);
    assert_eq!(outcome.published[0].mid, "3");
    let published = negotiation.publish(start, pending("TR_v", Video, "cam"));
    assert_eq!(published[0].mid, "4");
    assert_eq!(negotiation.poll_timeout(), None);
}

#[test]
fn an_id_that_the_browser_changed_is_matched_by_kind_after_a_while() {
    let start = Instant::now();
    let mut negotiation = Negotiation::default();
    negotiation.publish(start, pending("TR_screen", Video, "screen"));
    negotiation.handle_offer(start, &[uplink("3", Video, "{camera}")]);
    // Not at once: the announcement of the camera is still under way.
    assert!(negotiation.handle_timeout(start + ms(100)).published.is_empty());
    let camera = negotiation.publish(start + ms(100), pending("TR_camera", Video, "{camera}"));
    assert_eq!(camera[0].mid, "3");
    let outcome =
        negotiation.handle_offer(start + ms(200), &[uplink("3", Video, "{camera}"), uplink("4", Video, "{x}")]);
    assert!(outcome.published.is_empty());
    let published = negotiation.handle_timeout(start + ms(200) + MATCH_BY_KIND_AFTER).published;
    assert_eq!((published[0].mid.as_str(), published[0].pending.track.as_str()), ("4", "TR_screen"));
}

#[test]
fn a_section_taken_back_ends_its_track_and_one_taken_down_is_not_matched_again() {
    let (start, [a]) = (Instant::now(), keys());
    let mut negotiation = Negotiation::default();
    negotiation.publish(start, pending("TR_a", Audio, "mic"));
    negotiation.handle_offer(start, &[uplink("3", Audio, "mic")]);
    negotiation.bind("3", a, false);
    assert_eq!(negotiation.uplink("3", None), Some((a, 0, false, true)));
    let mut stopped = uplink("3", Audio, "mic");
    stopped.sends = false;
    assert_eq!(negotiation.handle_offer(start, &[stopped.clone()]).ended, [a]);

    negotiation.publish(start, pending("TR_b", Audio, "mic2"));
    negotiation.handle_offer(start, &[uplink("3", Audio, "mic2")]);
    negotiation.bind("3", a, false);
    negotiation.retire(a);
    negotiation.publish(start, pending("TR_c", Audio, "mic3"));
    assert!(negotiation.handle_timeout(start + ms(1_000)).published.is_empty());
}

#[test]
fn announcements_and_wishes_are_bounded() {
    let (start, tracks) = (Instant::now(), keys::<300>());
    let mut negotiation = Negotiation::default();
    for _ in 0..1_000 {
        negotiation.publish(start, pending("TR_a", Audio, "mic"));
    }
    assert_eq!(negotiation.pending.len(), PENDING_TRACKS_MAX);
    let taken = tracks.into_iter().filter(|track| negotiation.wish(start, *track, &sid(), Audio)).count();
    assert_eq!(taken, WISHES_MAX);
}

#[test]
fn an_announcement_that_was_taken_back_is_not_taken_for_a_later_section() {
    let start = Instant::now();
    let mut negotiation = Negotiation::default();
    negotiation.publish(start, pending("TR_cancelled", Video, "cam 1"));
    negotiation.unannounce(&"TR_cancelled".into());
    let later = start + ms(31_000);
    negotiation.publish(later, pending("TR_camera", Video, "cam 2"));
    negotiation.handle_offer(later, &[uplink("3", Video, "{changed}")]);
    let published = negotiation.handle_timeout(later + MATCH_BY_KIND_AFTER).published;
    assert_eq!(published.iter().map(|p| p.pending.track.as_str()).collect::<Vec<_>>(), ["TR_camera"]);
}
