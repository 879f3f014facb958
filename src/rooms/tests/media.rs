//! Offers, tracks, subscriptions, speakers.

use super::*;

#[test]
fn candidates_before_the_offer_are_held_until_it_comes() {
    let mut story = Story::new();
    let ada = story.join("ada");
    let trickle = |line: &str| {
        let candidate_init = format!(r#"{{"candidate":"{line}","sdpMid":"0","sdpMLineIndex":0}}"#);
        Ask::Trickle(proto::TrickleRequest { candidate_init, ..Default::default() })
    };
    story.look();
    story.ask(&ada, trickle("candidate:1"));
    story.ask(&ada, trickle(""));
    story.ask(&ada, Ask::Trickle(proto::TrickleRequest { candidate_init: "{".into(), ..Default::default() }));
    assert_eq!(story.look().media().count(), 0);
    story.ask(&ada, Ask::Offer(proto::SessionDescription::default()));
    story.ask(&ada, trickle("candidate:2"));
    let seen = story.look();
    let kinds: Vec<_> = seen
        .media()
        .map(|command| match command {
            Command::Offer { .. } => "offer".to_owned(),
            Command::Trickle { candidate, .. } => candidate.clone(),
            _ => "?".to_owned(),
        })
        .collect();
    assert_eq!(kinds, ["offer", "candidate:1", "candidate:2"]);
}

#[test]
fn a_participant_is_active_once_media_flows_and_is_told_that_its_connection_is_good() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let bob = story.join("bob");
    story.look();
    story.event(&bob, EventKind::Connected);
    let seen = story.look();
    assert_eq!(seen.updates(&ada)[0].state(), State::Active);
    assert_eq!(seen.updates(&bob)[0].state(), State::Active);
    let quality = seen.to(&ada).into_iter().find_map(|m| match m {
        Response::ConnectionQuality(update) => Some(update.updates[0].quality()),
        _ => None,
    });
    assert_eq!(quality, Some(proto::ConnectionQuality::Excellent));
    assert_eq!(story.metrics.join_duration.with_label_values(&["livekit"]).get_sample_count(), 2);
}

#[test]
fn a_track_is_announced_when_its_media_is_there_and_only_then_subscribed() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    story.ask(&ada, Ask::AddTrack(camera("cid-1")));
    let seen = story.look();
    let Some(Response::TrackPublished(published)) = seen.first(&ada) else { panic!() };
    let track = published.track.clone().unwrap();
    assert_eq!((published.cid.as_str(), track.stream.as_str()), ("cid-1", "camera"));
    assert!(track.sid.starts_with("TR_"));
    assert!(seen.to(&bob).is_empty(), "pending tracks are nobody's business");
    let sid = TrackSid::from(track.sid.as_str());
    story.event(&ada, EventKind::TrackLive { track: sid.clone(), mid: "4".into(), mime_type: "video/VP8".into() });
    let seen = story.look();
    assert_eq!(seen.updates(&bob)[0].tracks[0].mid, "4");
    assert_eq!(seen.subscriptions(), [(bob.sid.clone(), sid.clone(), true)]);
    let order = seen.0.iter().position(|o| matches!(o, Output::Signal { link, .. } if *link == bob.link));
    let media = seen.0.iter().position(|o| matches!(o, Output::Media(Command::Subscribe { .. })));
    assert!(order < media, "the announcement goes first");
    // Somebody who comes later finds it in the join response, and gets it.
    let eve = story.join("eve");
    let seen = story.look();
    let Some(Response::Join(join)) = seen.first(&eve) else { panic!() };
    assert_eq!(join.other_participants[0].tracks[0].sid, track.sid);
    assert_eq!(seen.subscriptions(), [(eve.sid.clone(), sid.clone(), true)]);
    // The map of an answer names only tracks that the client has heard of.
    let tracks = vec![("5".to_owned(), sid), ("6".to_owned(), TrackSid::random())];
    story.event(&eve, EventKind::Answer { offer_id: 1, sdp: String::new(), tracks });
    let seen = story.look();
    let Some(Response::Answer(answer)) = seen.first(&eve) else { panic!() };
    assert_eq!(answer.mid_to_track_id, HashMap::from([("5".to_owned(), track.sid)]));
}

#[test]
fn a_track_that_the_client_takes_back_is_gone_for_all() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let track = story.publish(&ada, camera("cid"));
    story.look();
    story.event(&ada, EventKind::TrackEnded { track });
    let seen = story.look();
    assert!(seen.updates(&bob)[0].tracks.is_empty());
    assert_eq!(story.metrics.tracks.with_label_values(&["video"]).get(), 0);
}

#[test]
fn publishing_needs_the_right_source_and_room_for_it() {
    let mut story = Story::new();
    let mut only_voice = claims("ada");
    only_voice.grants.can_publish_sources = vec!["microphone".into()];
    let ada = story.join_with(only_voice, JoinRequest::default()).unwrap();
    let refusal = |story: &mut Story, request| {
        story.look();
        story.ask(&ada, Ask::AddTrack(request));
        match story.look().first(&ada) {
            Some(Response::RequestResponse(response)) => Some(response.reason()),
            _ => None,
        }
    };
    use proto::request_response::Reason;
    assert_eq!(refusal(&mut story, camera("c")), Some(Reason::NotAllowed));
    assert_eq!(
        refusal(&mut story, AddTrackRequest { sid: "TR_x".into(), ..microphone("c") }),
        Some(Reason::UnsupportedType)
    );
    assert_eq!(refusal(&mut story, microphone("")), Some(Reason::LimitExceeded));
    for i in 0..20 {
        assert_eq!(refusal(&mut story, microphone(&format!("c{i}"))), None);
    }
    assert_eq!(refusal(&mut story, microphone("c20")), Some(Reason::LimitExceeded));
    assert_eq!(refusal(&mut story, microphone("c3")), None, "a repeated request gets its answer again");
}

#[test]
fn mute_is_told_at_once_to_everyone_and_the_media_worker() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let track = story.publish(&ada, microphone("cid"));
    story.look();
    let mute = |muted| Ask::Mute(proto::MuteTrackRequest { sid: track.as_str().into(), muted });
    story.ask(&ada, mute(true));
    let seen = story.look();
    assert!(seen.updates(&bob)[0].tracks[0].muted && seen.updates(&ada)[0].tracks[0].muted);
    assert!(seen.media().any(|c| matches!(c, Command::Mute { muted: true, .. })));
    story.ask(&ada, mute(true));
    assert!(story.look().0.is_empty(), "nothing changed, nothing is said");
}

#[test]
fn versions_only_grow() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let track = story.publish(&ada, microphone("cid"));
    for muted in [true, false, true] {
        story.ask(&ada, Ask::Mute(proto::MuteTrackRequest { sid: track.as_str().into(), muted }));
    }
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    let seen = story.look();
    let versions: Vec<_> = seen.updates(&bob).iter().map(|info| info.version).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

#[test]
fn subscriptions_follow_wishes_permissions_and_settings() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let track = story.publish(&ada, camera("cid"));
    let settings = proto::ConnectionSettings { auto_subscribe: false, ..Default::default() };
    let request = JoinRequest { connection_settings: Some(settings), ..Default::default() };
    let eve = story.join_with(claims("eve"), request).unwrap();
    assert_eq!(
        story.look().subscriptions(),
        [(bob.sid.clone(), track.clone(), true)],
        "eve takes only what she asks for"
    );
    let wish = |subscribe| {
        let track_sids = vec![track.as_str().to_owned()];
        Ask::Subscription(proto::UpdateSubscription { track_sids, subscribe, ..Default::default() })
    };
    story.ask(&eve, wish(true));
    assert_eq!(story.look().subscriptions(), [(eve.sid.clone(), track.clone(), true)]);
    story.ask(&bob, wish(false));
    assert_eq!(story.look().subscriptions(), [(bob.sid.clone(), track.clone(), false)]);
    story.ask(&bob, wish(true));
    story.look();
    let settings =
        proto::UpdateTrackSettings { track_sids: vec![track.as_str().into()], disabled: true, ..Default::default() };
    story.ask(&bob, Ask::TrackSetting(settings));
    assert!(story.look().media().any(|c| matches!(c, Command::Pause { paused: true, .. })));
    // Ada lets only bob see her.
    let permission = proto::TrackPermission {
        participant_identity: "bob".into(),
        track_sids: vec![track.as_str().into()],
        ..Default::default()
    };
    let only_bob = proto::SubscriptionPermission { all_participants: false, track_permissions: vec![permission] };
    story.ask(&ada, Ask::SubscriptionPermission(only_bob));
    let seen = story.look();
    assert_eq!(seen.subscriptions(), [(eve.sid.clone(), track.clone(), false)]);
    let Some(Response::SubscriptionPermissionUpdate(update)) = seen.first(&eve) else { panic!() };
    assert!(!update.allowed);
    story.ask(&eve, wish(true));
    assert!(story.look().subscriptions().is_empty(), "to ask again does not help");
    let all = proto::SubscriptionPermission { all_participants: true, ..Default::default() };
    story.ask(&ada, Ask::SubscriptionPermission(all));
    assert_eq!(story.look().subscriptions(), [(eve.sid.clone(), track, true)]);
}

#[test]
fn a_token_without_can_subscribe_gets_nothing() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let mut deaf = claims("bob");
    deaf.grants.can_subscribe = Some(false);
    story.join_with(deaf, JoinRequest::default()).unwrap();
    story.look();
    story.publish(&ada, microphone("cid"));
    assert!(story.look().subscriptions().is_empty());
}

#[test]
fn speakers_are_told_as_they_change() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    story.event(&ada, EventKind::Speaker { level: 0.5, active: true });
    story.event(&ada, EventKind::Speaker { level: 0.0, active: false });
    let seen = story.look();
    for client in [&ada, &bob] {
        let told: Vec<_> = seen
            .to(client)
            .into_iter()
            .map(|m| match m {
                Response::SpeakersChanged(s) => (s.speakers[0].sid.clone(), s.speakers[0].active),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [(ada.sid.as_str().to_owned(), true), (ada.sid.as_str().to_owned(), false)]);
    }
}

#[test]
fn an_offer_that_cannot_be_answered_ends_the_attempt() {
    let mut story = Story::new();
    let ada = story.join("ada");
    story.look();
    story.event(&ada, EventKind::OfferRejected { offer_id: 1, reason: "no codecs".into() });
    let seen = story.look();
    assert_eq!(seen.leave(&ada), Some((proto::DisconnectReason::JoinFailure, Action::Disconnect)));
}
