//! Offers, tracks, subscriptions, speakers.

use super::*;

#[test]
fn candidates_are_taken_and_of_no_use() {
    let mut story = Story::new();
    let ada = story.join("ada");
    story.look();
    let candidate_init = r#"{"candidate":"candidate:1","sdpMid":"0","sdpMLineIndex":0}"#.to_owned();
    story.ask(&ada, Ask::Trickle(proto::TrickleRequest { candidate_init, ..Default::default() }));
    assert!(story.look().0.is_empty());
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
    story.event(&ada, EventKind::TrackLive { track: sid.clone(), mid: "4".into() });
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
    assert_eq!(refusal(&mut story, AddTrackRequest { sid: "TR_x".into(), ..microphone("c") }), Some(Reason::NotFound));
    assert_eq!(refusal(&mut story, microphone("")), Some(Reason::LimitExceeded));
    for i in 0..20 {
        assert_eq!(refusal(&mut story, microphone(&format!("c{i}"))), None);
    }
    assert_eq!(refusal(&mut story, microphone("c20")), Some(Reason::LimitExceeded));
    assert_eq!(refusal(&mut story, microphone("c3")), None, "a repeated request gets its answer again");
}

#[test]
fn a_track_that_is_dropped_and_taken_again_at_once_comes_in_whichever_order_that_is_heard() {
    use proto::client_info::Sdk;
    // Leaving and taking, as the media worker hears of them. LiveKit's Rust core names each track in both lists.
    let heard = |sdk: Sdk, words: [bool; 2], pause: Duration| -> Vec<bool> {
        let mut story = Story::new();
        let ada = story.enter("ada");
        let track = story.publish(&ada, microphone("mic"));
        let client_info = Some(proto::ClientInfo { sdk: sdk as i32, ..Default::default() });
        let bob = story.join_with(claims("bob"), JoinRequest { client_info, ..Default::default() }).unwrap();
        story.look();
        for subscribe in words {
            let track_sids = vec![track.as_str().to_owned()];
            let by_participant =
                proto::ParticipantTracks { participant_sid: ada.sid.to_string(), track_sids: track_sids.clone() };
            let participant_tracks = vec![by_participant];
            let update = proto::UpdateSubscription { track_sids, subscribe, participant_tracks };
            story.ask(&bob, Ask::Subscription(update));
            story.now.at += pause;
        }
        story.look().subscriptions().into_iter().map(|(_, _, subscribed)| subscribed).collect()
    };
    let soon = Duration::from_millis(50);
    assert_eq!(heard(Sdk::Python, [false, true], soon), [false, true]);
    assert_eq!(heard(Sdk::Python, [true, false], soon), [false, true], "as it was meant");
    assert_eq!(heard(Sdk::Python, [true, false], Duration::from_secs(1)), [false], "that late it is meant so");
    assert_eq!(heard(Sdk::Js, [true, false], soon), [false], "browsers send in order");
}

#[test]
fn what_others_are_told_of_a_client_is_bounded() {
    let mut story = Story::new();
    let info = proto::ClientInfo { capabilities: vec![1; 10_000], ..Default::default() };
    let request = JoinRequest { client_info: Some(info), ..Default::default() };
    let ada = story.join_with(claims("ada"), request).unwrap();
    assert_eq!(story.room.get(&ada.sid).unwrap().info().capabilities.len(), 32);
    let layers = |n: usize, rid: &str| vec![proto::VideoLayer { rid: rid.into(), ..Default::default() }; n];
    let codec = |cid: &str, layers| proto::SimulcastCodec {
        codec: "vp8".into(),
        cid: cid.into(),
        layers,
        ..Default::default()
    };
    let mut refused = |request| {
        story.look();
        story.ask(&ada, Ask::AddTrack(request));
        matches!(story.look().first(&ada), Some(Response::RequestResponse(_)))
    };
    let long = "x".repeat(5_000);
    for (codecs, own, is_refused) in [
        (vec![codec("a", layers(3, "q")), codec("b", layers(3, "q"))], layers(3, "q"), false),
        (vec![codec("a", layers(17, "q"))], layers(0, ""), true),
        (vec![codec("a", layers(9, "q")), codec("b", layers(8, "q"))], layers(0, ""), true),
        (vec![codec(&long, layers(0, ""))], layers(0, ""), true),
        (vec![codec("a", layers(1, &long))], layers(0, ""), true),
        (Vec::new(), layers(1, &long), true),
    ] {
        let request = AddTrackRequest { simulcast_codecs: codecs, layers: own, ..camera("cam") };
        assert_eq!(refused(request.clone()), is_refused, "{request:?}");
    }
}

#[test]
fn an_announced_track_that_never_comes_is_forgotten_on_both_sides() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let live = story.publish(&ada, microphone("live"));
    for i in 0..20 {
        story.ask(&ada, Ask::AddTrack(microphone(&format!("c{i}"))));
    }
    story.wait(Duration::from_secs(20));
    story.ask(&ada, Ask::AddTrack(microphone("c0")));
    story.look();
    story.wait(Duration::from_secs(11));
    let forgotten = |seen: &Seen| seen.media().filter(|c| matches!(c, Command::Unpublish { .. })).count();
    assert_eq!(forgotten(&story.look()), 19, "one was asked for again");
    let tracks = &story.room.get(&ada.sid).unwrap().tracks;
    assert_eq!((tracks.len(), &tracks[0].sid), (2, &live));
    story.ask(&ada, Ask::AddTrack(microphone("new")));
    assert!(matches!(story.look().first(&ada), Some(Response::TrackPublished(_))));
    story.wait(Duration::from_secs(40));
    assert_eq!(forgotten(&story.look()), 2);
    assert_eq!(story.room.get(&ada.sid).unwrap().tracks.len(), 1, "what is live stays");
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
    assert!(story.look().media().any(|c| matches!(c, Command::View { view: View { paused: true, .. }, .. })));
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

/// The speakers of each message: who, and whether they speak.
fn told_speakers(seen: &Seen, client: &Client) -> Vec<Vec<(ParticipantSid, bool)>> {
    let speakers = |s: &proto::SpeakersChanged| s.speakers.iter().map(|s| (s.sid.as_str().into(), s.active)).collect();
    seen.to(client)
        .into_iter()
        .filter_map(|m| match m {
            Response::SpeakersChanged(changed) => Some(speakers(changed)),
            _ => None,
        })
        .collect()
}

#[test]
fn speakers_are_told_as_they_change_and_those_who_go_on_stay_named() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    story.event(&ada, EventKind::Speaker { level: 0.5, active: true });
    story.event(&bob, EventKind::Speaker { level: 0.3, active: true });
    story.event(&ada, EventKind::Speaker { level: 0.0, active: false });
    let seen = story.look();
    let (a, b) = (ada.sid.clone(), bob.sid.clone());
    for client in [&ada, &bob] {
        let expected = [
            vec![(a.clone(), true)],
            vec![(a.clone(), true), (b.clone(), true)],
            vec![(b.clone(), true), (a.clone(), false)],
        ];
        assert_eq!(told_speakers(&seen, client), expected);
    }
}

#[test]
fn who_comes_or_comes_back_is_told_who_speaks_and_how_well_others_are_connected() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    story.event(&ada, EventKind::Speaker { level: 0.5, active: true });
    story.look();
    let cleo = story.join("cleo");
    story.event(&cleo, EventKind::Connected);
    let bob = story.resume(&bob, "bob");
    let seen = story.look();
    for client in [&cleo, &bob] {
        assert_eq!(told_speakers(&seen, client), [vec![(ada.sid.clone(), true)]]);
    }
    let qualities = |client: &Client| -> Vec<Vec<ParticipantSid>> {
        let of = |u: &proto::ConnectionQualityUpdate| {
            u.updates.iter().map(|u| u.participant_sid.as_str().into()).collect::<Vec<_>>()
        };
        let told = seen.to(client).into_iter().filter_map(|m| match m {
            Response::ConnectionQuality(update) => Some(of(update)),
            _ => None,
        });
        told.collect()
    };
    assert_eq!(qualities(&cleo), [vec![ada.sid.clone(), bob.sid.clone()], vec![cleo.sid.clone()]]);
    assert_eq!(qualities(&bob), [vec![ada.sid.clone(), cleo.sid.clone()]]);
    // Who left does not speak any more.
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    story.look();
    let dora = story.join("dora");
    story.event(&dora, EventKind::Connected);
    assert!(told_speakers(&story.look(), &dora).is_empty());
}

#[test]
fn a_client_with_two_connections_is_offered_what_it_receives() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let track = story.publish(&ada, microphone("cid"));
    story.look();
    let bob = story.join_by(Connections::Two, claims("bob"), JoinRequest::default()).unwrap();
    let seen = story.look();
    let Some(Response::Join(join)) = seen.first(&bob) else { panic!() };
    assert!(join.subscriber_primary && join.fast_publish);
    assert!(seen.media().any(|c| matches!(c, Command::Join { connections: Connections::Two, .. })));
    let tracks = vec![("0".to_owned(), track.clone()), ("1".to_owned(), TrackSid::from("TR_unknown"))];
    story.event(&bob, EventKind::Offer { offer_id: 3, sdp: "offer".into(), tracks });
    let seen = story.look();
    let Some(Response::Offer(offer)) = seen.first(&bob) else { panic!() };
    assert_eq!((offer.id, offer.r#type.as_str()), (3, "offer"));
    assert_eq!(offer.mid_to_track_id, HashMap::from([("0".to_owned(), track.as_str().to_owned())]));
    let answer = proto::SessionDescription { id: 3, sdp: "answer".into(), ..Default::default() };
    story.ask(&bob, Ask::Answer(answer));
    let seen = story.look();
    assert!(seen.media().any(|c| matches!(c, Command::Answer { offer_id: 3, sdp, .. } if sdp == "answer")));
    // What was under way on the lost socket is offered anew, after the client was told that it is back.
    story.event(&bob, EventKind::Connected);
    story.look();
    let bob = story.resume(&bob, "bob");
    let seen = story.look();
    assert!(matches!(seen.first(&bob), Some(Response::Reconnect(_))));
    assert!(seen.media().any(|c| matches!(c, Command::Reoffer { .. })));
    let ada = story.resume(&ada, "ada");
    let seen = story.look();
    assert!(matches!(seen.first(&ada), Some(Response::Reconnect(_))));
    assert!(!seen.media().any(|c| matches!(c, Command::Reoffer { .. })), "who offers restarts by itself");
}

#[test]
fn an_offer_that_cannot_be_answered_ends_the_attempt() {
    let mut story = Story::new();
    let ada = story.join("ada");
    story.look();
    story.event(&ada, EventKind::OfferRejected { offer_id: 1, reason: "no codecs" });
    let seen = story.look();
    assert_eq!(seen.leave(&ada), Some((proto::DisconnectReason::JoinFailure, Action::Disconnect)));
}

#[test]
fn a_wish_is_kept_for_a_track_that_is_to_come_and_not_for_a_text_of_any_length() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let early = "TR_to_come".to_owned();
    let wish = proto::UpdateSubscription {
        track_sids: (0..40).map(|n| format!("TR_{n}_{}", "x".repeat(10_000))).chain([early.clone()]).collect(),
        subscribe: false,
        ..Default::default()
    };
    story.ask(&ada, Ask::Subscription(wish.clone()));
    let updates = wish.track_sids.into_iter().map(|track_sid| proto::update_data_subscription::Update {
        track_sid,
        subscribe: false,
        options: None,
    });
    story.ask(&ada, Ask::UpdateDataSubscription(proto::UpdateDataSubscription { updates: updates.collect() }));
    let ada = story.room.get(&ada.sid).unwrap();
    assert_eq!(ada.wanted.keys().map(|track| track.as_str()).collect::<Vec<_>>(), [early.as_str()]);
    assert_eq!(ada.data_tracks.wanted.keys().map(|track| track.as_str()).collect::<Vec<_>>(), [early.as_str()]);
}
