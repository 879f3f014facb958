//! What a client may say, and how often: what it and the others notice when it says more.

use super::*;

fn rename(request_id: u32) -> Ask {
    Ask::UpdateMetadata(proto::UpdateParticipantMetadata {
        name: format!("Ada {request_id}"),
        request_id,
        ..Default::default()
    })
}

fn offer_of(bytes: usize) -> proto::SessionDescription {
    proto::SessionDescription { r#type: "offer".into(), sdp: "x".repeat(bytes), id: 3, ..Default::default() }
}

#[test]
fn who_changes_their_name_without_end_is_told_that_it_is_too_often() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    (0..200).for_each(|n| story.ask(&ada, rename(n)));
    let seen = story.look();
    assert_eq!(seen.updates(&bob).len(), 30, "bob is not flooded");
    let refusals: Vec<_> = seen.responses(&ada).into_iter().filter(|r| r.reason() == Reason::LimitExceeded).collect();
    assert_eq!(refusals.len(), 170);
    assert_eq!(refusals[0].request_id, 30, "each refusal says which request it is of");
    story.wait(Duration::from_secs(2));
    story.ask(&ada, rename(1_000));
    let seen = story.look();
    assert_eq!(seen.updates(&bob).last().map(|info| info.name.as_str()), Some("Ada 1000"));
    assert_eq!(story.metrics.limited.with_label_values(&["metadata"]).get(), 170);
}

#[test]
fn an_offer_that_is_too_large_ends_the_attempt_with_a_reason() {
    let mut story = Story::new();
    let request = JoinRequest { publisher_offer: Some(offer_of(64 * 1024 + 1)), ..Default::default() };
    let ada = story.join_with(claims("ada"), request).unwrap();
    let seen = story.look();
    assert_eq!(seen.leave(&ada), Some((proto::DisconnectReason::JoinFailure, Action::Disconnect)));
    assert!(!seen.media().any(|command| matches!(command, Command::Offer { .. })));
    // A later one may be as large as a full room makes it; beyond, the client starts anew.
    let bob = story.enter("bob");
    story.ask(&bob, Ask::Offer(offer_of(1_000)));
    story.ask(&bob, Ask::Offer(offer_of(300 * 1024)));
    assert_eq!(story.look().media().filter(|command| matches!(command, Command::Offer { .. })).count(), 2);
    story.ask(&bob, Ask::Offer(offer_of(400 * 1024)));
    assert_eq!(story.look().leave(&bob), Some((proto::DisconnectReason::JoinFailure, Action::Reconnect)));
}

#[test]
fn a_join_that_announces_tracks_without_end_gets_as_many_as_it_may() {
    let mut story = Story::new();
    let add_track_requests = (0..10_000).map(|n| microphone(&format!("cid-{n}"))).collect();
    let ada = story.join_with(claims("ada"), JoinRequest { add_track_requests, ..Default::default() }).unwrap();
    let seen = story.look();
    let published = seen.to(&ada).into_iter().filter(|m| matches!(m, Response::TrackPublished(_))).count();
    assert_eq!(published, 20);
    let refusals = seen.responses(&ada);
    assert_eq!(refusals.len(), 1, "and hears once that the rest is too much");
    assert_eq!(refusals[0].reason(), Reason::LimitExceeded);
}

#[test]
fn permissions_beyond_the_bound_permit_nothing() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let track = story.publish(&ada, microphone("cid"));
    story.look();
    let sids = |named_at: usize| {
        let mut sids: Vec<String> = (0..2_000).map(|n| format!("TR_{n}")).collect();
        sids[named_at] = track.as_str().to_owned();
        proto::TrackPermission { participant_sid: bob.sid.as_str().to_owned(), track_sids: sids, ..Default::default() }
    };
    let permission = |entry| {
        let track_permissions = vec![entry];
        Ask::SubscriptionPermission(proto::SubscriptionPermission { all_participants: false, track_permissions })
    };
    story.ask(&ada, permission(sids(1_999)));
    let unsubscribed = |command: &Command| matches!(command, Command::Subscribe { subscribed: false, .. });
    assert!(story.look().media().any(unsubscribed), "what was not read is not granted");
    story.ask(&ada, permission(sids(0)));
    assert!(story.look().media().any(|command| matches!(command, Command::Subscribe { subscribed: true, .. })));
}

#[test]
fn a_client_that_is_put_out_is_told_to_stay_away() {
    let mut story = Story::new();
    let (ada, eve) = (story.enter("ada"), story.enter("eve"));
    story.room.put_out(story.now, eve.link);
    let seen = story.look();
    assert_eq!(seen.leave(&eve), Some((proto::DisconnectReason::ParticipantRemoved, Action::Disconnect)));
    assert!(seen.hangs_up(&eve) && !seen.hangs_up(&ada));
    assert_eq!(seen.updates(&ada)[0].state(), State::Disconnected);
}

/// A browser that publishes and hears for ten seconds that its own connection is lost starts anew, and makes it worse.
#[test]
fn t6_nobody_is_told_that_a_connection_is_lost_however_bad_it_is() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let mut told = 0;
    let mut check = |seen: Seen| {
        for message in [seen.to(&ada), seen.to(&bob)].concat() {
            let Response::ConnectionQuality(update) = message else { continue };
            told += update.updates.len();
            assert!(update.updates.iter().all(|one| one.quality() != proto::ConnectionQuality::Lost), "{update:?}");
        }
    };
    for _ in 0..3 {
        story.event(&ada, EventKind::Disconnected);
        story.wait(Duration::from_secs(4));
        check(story.look());
        story.event(&ada, EventKind::Connected);
        check(story.look());
    }
    story.event(&ada, EventKind::Disconnected);
    story.wait(Duration::from_secs(60));
    let seen = story.look();
    assert!(
        seen.updates(&bob).iter().any(|info| info.state() == State::Disconnected),
        "that is how others learn of it"
    );
    check(seen);
    assert!(told >= 12, "both were told of each change: {told}");
}
