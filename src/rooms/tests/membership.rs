//! Joining, resuming, leaving, being told of each other.

use super::*;

#[test]
fn the_first_message_is_the_join_response_and_the_answer_comes_after_it() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let offer = proto::SessionDescription { r#type: "offer".into(), sdp: "v=0".into(), id: 7, ..Default::default() };
    let request = JoinRequest {
        client_info: Some(proto::ClientInfo { client_protocol: 2, capabilities: vec![2], ..Default::default() }),
        publisher_offer: Some(offer),
        ..Default::default()
    };
    let bob = story.join_with(claims("bob"), request).unwrap();
    let answer = EventKind::Answer { offer_id: 7, sdp: "v=0 answer".into(), tracks: vec![] };
    story.event(&bob, answer);
    let seen = story.look();
    let messages = seen.to(&bob);
    let Response::Join(join) = messages[0] else { panic!("{messages:?}") };
    assert!(join.participant.as_ref().unwrap().sid.starts_with("PA_"));
    assert!(join.room.as_ref().unwrap().sid.starts_with("RM_"));
    assert_eq!(join.other_participants.len(), 1);
    assert_eq!(join.server_info.as_ref().unwrap().version, "1.13.5");
    assert_eq!((join.ping_interval, join.ping_timeout, join.subscriber_primary), (5, 15, false));
    let answer = messages.iter().find_map(|m| if let Response::Answer(a) = m { Some(a) } else { None }).unwrap();
    assert_eq!((answer.id, answer.r#type.as_str()), (7, "answer"));
    assert_eq!(seen.tokens(&bob), 1);
    let commands: Vec<_> = seen.media().collect();
    assert!(matches!(commands[0], Command::Join { connections: Connections::One, .. }));
    assert!(matches!(commands[1], Command::Offer { offer_id: 7, .. }));
    let told = seen.updates(&ada);
    assert_eq!((told[0].identity.as_str(), told[0].client_protocol, &told[0].capabilities), ("bob", 2, &vec![2]));
}

#[test]
fn a_second_join_with_the_same_identity_ends_the_first() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let again = story.join("ada");
    let seen = story.look();
    assert_eq!(seen.leave(&ada), Some((proto::DisconnectReason::DuplicateIdentity, Action::Disconnect)));
    assert!(seen.hangs_up(&ada));
    let states: Vec<_> = seen.updates(&bob).iter().map(|info| (info.sid.clone(), info.state())).collect();
    assert_eq!(states[0], (ada.sid.as_str().to_owned(), State::Disconnected));
    assert_eq!(states[1], (again.sid.as_str().to_owned(), State::Joined));
    assert_eq!(story.metrics.participants.with_label_values(&["standard"]).get(), 2);
}

#[test]
fn nobody_learns_of_a_hidden_participant() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let mut hidden = claims("ghost");
    hidden.grants.hidden = true;
    let ghost = story.join_with(hidden, JoinRequest::default()).unwrap();
    story.event(&ghost, EventKind::Connected);
    let track = story.publish(&ghost, microphone("cid"));
    story.event(&ghost, EventKind::Speaker { level: 0.5, active: true });
    let bob = story.join("bob");
    story.event(&bob, EventKind::Connected);
    let seen = story.look();
    for client in [&ada, &bob] {
        assert!(!seen.to(client).iter().any(|m| matches!(m, Response::SpeakersChanged(_))));
    }
    assert!(seen.updates(&ada).iter().all(|info| info.identity != "ghost"));
    let Some(Response::Join(join)) = seen.first(&bob) else { panic!() };
    assert!(join.other_participants.iter().all(|info| info.identity != "ghost"));
    assert_eq!(join.room.as_ref().unwrap().num_participants, 2);
    assert!(seen.subscriptions().iter().all(|(_, sid, _)| *sid != track));
    let again = story.resume(&ada, "ada");
    story.ask(&ghost, Ask::Leave(proto::LeaveRequest::default()));
    let seen = story.look();
    assert!(seen.updates(&again).iter().all(|info| info.identity != "ghost"));
}

#[test]
fn a_lost_socket_is_resumed_and_finds_everything() {
    let mut story = Story::new();
    let (ada, bob, eve) = (story.enter("ada"), story.enter("bob"), story.enter("eve"));
    story.publish(&bob, microphone("cid"));
    story.look();
    story.hang_up(&ada);
    story.ask(&eve, Ask::Leave(proto::LeaveRequest::default()));
    let seen = story.look();
    assert!(seen.updates(&bob).iter().all(|info| info.identity == "eve"), "nobody hears of a lost socket");
    let back = story.resume(&ada, "ada");
    let seen = story.look();
    let messages = seen.to(&back);
    assert!(matches!(messages[0], Response::Reconnect(_)), "{messages:?}");
    let Response::Update(update) = messages[1] else { panic!("{messages:?}") };
    let people: Vec<_> = update.participants.iter().map(|p| (p.identity.as_str(), p.state(), p.tracks.len())).collect();
    assert_eq!(people, [("eve", State::Disconnected, 0), ("ada", State::Active, 0), ("bob", State::Active, 1)]);
    assert!(matches!(messages[2], Response::RoomUpdate(_)));
    assert_eq!(seen.tokens(&back), 1);
    // What it still believes of its own tracks is wrong: it must start anew.
    let published = proto::TrackPublishedResponse {
        cid: "x".into(),
        track: Some(proto::TrackInfo { sid: "TR_unknown".into(), ..Default::default() }),
    };
    story.ask(&back, Ask::SyncState(proto::SyncState { publish_tracks: vec![published], ..Default::default() }));
    let seen = story.look();
    assert_eq!(seen.leave(&back), Some((proto::DisconnectReason::StateMismatch, Action::Reconnect)));
}

#[test]
fn a_second_socket_of_the_same_participant_replaces_the_first() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let back = story.resume(&ada, "ada");
    let seen = story.look();
    assert!(seen.hangs_up(&ada));
    story.hang_up(&ada);
    story.ask(&back, Ask::Ping(1));
    assert!(matches!(story.look().first(&back), Some(Response::Pong(1_800_000_000_000))));
}

#[test]
fn whoever_is_not_known_any_more_must_start_anew() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    for (sid, identity) in [("PA_unknown", "ada"), (ada.sid.as_str(), "mallory")] {
        let stranger = Client { sid: sid.into(), link: ada.link };
        let back = story.resume(&stranger, identity);
        let seen = story.look();
        assert_eq!(seen.to(&back).len(), 1, "the leave is the first message and the last");
        assert_eq!(seen.leave(&back), Some((proto::DisconnectReason::StateMismatch, Action::Reconnect)));
        assert!(seen.hangs_up(&back));
    }
    assert!(story.room.get(&ada.sid).is_some());
}

#[test]
fn who_never_connects_is_removed() {
    let mut story = Story::new();
    let (ada, bob) = (story.join("ada"), story.join("bob"));
    story.look();
    story.hang_up(&ada);
    assert!(story.room.get(&ada.sid).is_none(), "without media there is nothing to come back to");
    story.wait(Duration::from_secs(59));
    assert!(story.room.get(&bob.sid).is_some());
    story.wait(Duration::from_secs(2));
    let seen = story.look();
    assert_eq!(seen.leave(&bob), Some((proto::DisconnectReason::ConnectionTimeout, Action::Disconnect)));
    assert_eq!(story.metrics.participant_joins.with_label_values(&["livekit", "failed"]).get(), 2);
}

#[test]
fn media_that_is_lost_is_waited_for_then_the_participant_goes() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    story.event(&ada, EventKind::Disconnected);
    story.wait(Duration::from_secs(6));
    let seen = story.look();
    assert!(seen.hangs_up(&ada), "its client may not have noticed, and resumes when its socket closes");
    assert_eq!(seen.leave(&ada), None, "after which some would join anew");
    // It comes back in time.
    let ada = story.resume(&ada, "ada");
    story.event(&ada, EventKind::Connected);
    story.wait(Duration::from_secs(60));
    assert!(story.room.get(&ada.sid).is_some());
    // Without media and without a socket it does not.
    story.hang_up(&ada);
    story.wait(Duration::from_secs(600));
    assert!(story.room.get(&ada.sid).is_some(), "media flows: only the socket is missing");
    story.event(&ada, EventKind::Disconnected);
    story.look();
    story.wait(Duration::from_secs(19));
    assert!(story.room.get(&ada.sid).is_some());
    story.wait(Duration::from_secs(2));
    assert_eq!(story.look().updates(&bob)[0].state(), State::Disconnected);
}

/// UDP of this client was cut 5 s ago, as the media worker says now; its socket still speaks.
fn falls_silent(story: &mut Story, client: &Client) {
    let cut = story.now.at;
    story.wait(Duration::from_secs(4));
    story.ask(client, Ask::Ping(0));
    story.wait(Duration::from_secs(1));
    story.event(client, EventKind::Silent { since: cut });
}

fn is_asked_to_resume(seen: &Seen, client: &Client) -> bool {
    assert_eq!(seen.leave(client), None, "without a word, which some clients would take for more");
    seen.hangs_up(client)
}

#[test]
fn a_client_whose_udp_dies_is_asked_to_resume_once_and_stays_in_the_room() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    falls_silent(&mut story, &ada);
    assert!(!is_asked_to_resume(&story.look(), &ada));
    story.wait(Duration::from_secs(1));
    let seen = story.look();
    assert!(is_asked_to_resume(&seen, &ada));
    assert!(seen.to(&bob).is_empty(), "nobody else notices");
    assert_eq!(story.metrics.ice_silences.get(), 1);
    // It does, but finds no other path: that is waited for, and not asked again.
    let ada = story.resume(&ada, "ada");
    for _ in 0..4 {
        story.ask(&ada, Ask::Ping(0));
        story.wait(Duration::from_secs(5));
    }
    story.event(&ada, EventKind::Disconnected);
    story.look();
    story.wait(Duration::from_secs(19));
    assert!(!is_asked_to_resume(&story.look(), &ada));
    // It finds one in the end.
    story.event(&ada, EventKind::Heard);
    story.event(&ada, EventKind::Connected);
    story.wait(Duration::from_secs(60));
    assert!(story.room.get(&ada.sid).is_some());
    assert!(!is_asked_to_resume(&story.look(), &ada));
    assert_eq!(story.metrics.ice_silences.get(), 1);
    // Much later the same happens again.
    story.wait(Duration::from_secs(600));
    falls_silent(&mut story, &ada);
    story.wait(Duration::from_secs(1));
    assert!(is_asked_to_resume(&story.look(), &ada));
}

#[test]
fn nobody_is_asked_to_resume_without_cause_or_use() {
    let mut story = Story::new();
    // One comes back before it is asked; one came by itself already; one says nothing either; one has no media yet; one
    // has no socket; and one lives in the server.
    let [back, resumed, mute, new, lone] = ["back", "resumed", "mute", "new", "lone"].map(|name| story.enter(name));
    let fresh = story.join("fresh");
    let (agent, _) = story.agent();
    story.hang_up(&lone);
    falls_silent(&mut story, &back);
    story.event(&back, EventKind::Heard);
    falls_silent(&mut story, &resumed);
    let resumed = story.resume(&resumed, "resumed");
    let since = story.now.at - Duration::from_secs(5);
    story.event(&mute, EventKind::Silent { since });
    story.event(&lone, EventKind::Silent { since });
    story.room.handle_event(story.now, &agent, EventKind::Silent { since });
    falls_silent(&mut story, &fresh);
    story.look();
    for _ in 0..2 {
        for client in [&back, &resumed, &new, &fresh] {
            story.ask(client, Ask::Ping(0));
        }
        story.wait(Duration::from_secs(5));
    }
    let seen = story.look();
    for client in [&back, &resumed, &mute, &new, &lone, &fresh] {
        assert!(!is_asked_to_resume(&seen, client));
    }
    assert_eq!(story.metrics.ice_silences.get(), 0);
}

#[test]
fn a_client_that_closes_its_media_may_still_say_why() {
    let mut story = Story::new();
    let (ada, bob, eve, watcher) = (story.enter("ada"), story.enter("bob"), story.enter("eve"), story.enter("w"));
    for client in [&ada, &bob, &eve] {
        story.event(client, EventKind::Closed { reason: "closed by the client".into() });
    }
    assert!(story.look().updates(&watcher).is_empty());
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    story.hang_up(&bob);
    let seen = story.look();
    let reasons: Vec<_> = seen.updates(&watcher).iter().map(|info| info.disconnect_reason()).collect();
    assert_eq!(reasons, [proto::DisconnectReason::ClientInitiated; 2]);
    let again = story.resume(&eve, "eve");
    assert_eq!(story.look().leave(&again).map(|l| l.1), Some(Action::Reconnect), "without media there is no resume");
    story.wait(Duration::from_secs(2));
    assert_eq!(story.look().leave(&eve).map(|l| l.1), Some(Action::Reconnect));
}

#[test]
fn a_room_closes_when_nobody_comes_and_when_all_have_left() {
    let mut story = Story::new();
    story.wait(Duration::from_secs(299));
    assert!(!story.room.is_closed());
    let ada = story.enter("ada");
    story.wait(Duration::from_secs(3600));
    assert!(!story.room.is_closed());
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    story.wait(Duration::from_secs(19));
    assert!(!story.room.is_closed());
    story.wait(Duration::from_secs(1));
    assert!(story.room.is_closed());
    assert_eq!(story.metrics.rooms.get(), 0);
    assert_eq!(
        story.join_with(claims("bob"), JoinRequest::default()).err(),
        Some(RoomError::Closed),
        "a closed room stays closed"
    );
}

#[test]
fn a_full_room_refuses_but_lets_a_member_replace_itself() {
    let mut story = Story::with(Config { max_participants_per_room: 2, ..Config::default() });
    story.enter("ada");
    story.enter("bob");
    assert_eq!(story.join_with(claims("eve"), JoinRequest::default()).err(), Some(RoomError::RoomFull));
    assert!(story.join_with(claims("ada"), JoinRequest::default()).is_ok());
}

#[test]
fn a_shutdown_tells_everyone_to_start_anew() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.agent();
    story.look();
    story.room.close(story.now, proto::DisconnectReason::ServerShutdown, Action::Reconnect);
    let seen = story.look();
    assert_eq!(seen.leave(&ada), Some((proto::DisconnectReason::ServerShutdown, Action::Reconnect)));
    assert!(seen.hangs_up(&ada));
    assert!(seen.agent_events().contains(&"closed"));
}

#[test]
fn tokens_are_refreshed_after_joining_and_every_five_minutes_with_what_changed() {
    let mut story = Story::new();
    let ada = story.join("ada");
    story.event(&ada, EventKind::Connected);
    assert_eq!(story.look().tokens(&ada), 1);
    let update = proto::UpdateParticipantMetadata { name: "Ada L.".into(), ..Default::default() };
    story.ask(&ada, Ask::UpdateMetadata(update));
    story.look();
    story.wait(Duration::from_secs(601));
    let seen = story.look();
    assert_eq!(seen.tokens(&ada), 2);
    let renamed = seen
        .0
        .iter()
        .any(|o| matches!(o, Output::Signal { message: ToPeer::RefreshToken(claims), .. } if claims.name == "Ada L."));
    assert!(renamed);
}

#[test]
fn metadata_changes_are_granted_told_to_all_and_never_touch_what_the_server_sets() {
    use proto::request_response::Reason;
    let mut story = Story::new();
    let mut own = claims("ada").with_attribute("viva.role", "interviewer");
    own.grants.can_update_own_metadata = Some(true);
    let info = proto::ClientInfo { protocol: 17, ..Default::default() };
    let ada = story.join_with(own, JoinRequest { client_info: Some(info), ..Default::default() }).unwrap();
    let bob = story.enter("bob");
    let change = |story: &mut Story, key: &str, value: &str| {
        story.look();
        let attributes = HashMap::from([(key.to_owned(), value.to_owned())]);
        let update = proto::UpdateParticipantMetadata { attributes, request_id: 9, ..Default::default() };
        story.ask(&ada, Ask::UpdateMetadata(update));
        let seen = story.look();
        let reason = seen.to(&ada).into_iter().find_map(|m| match m {
            Response::RequestResponse(r) if r.request_id == 9 => Some(r.reason()),
            _ => None,
        });
        let told = seen.updates(&bob).first().map(|info| info.attributes.get(key).cloned().unwrap_or_default());
        assert_eq!(told.is_some(), !seen.updates(&ada).is_empty(), "the sender hears of it like all others");
        (reason, told)
    };
    assert_eq!(change(&mut story, "hand", "up"), (Some(Reason::Ok), Some("up".into())));
    assert_eq!(change(&mut story, "hand", ""), (Some(Reason::Ok), Some(String::new())));
    assert_eq!(change(&mut story, "viva.role", "interviewee"), (Some(Reason::NotAllowed), None));
    assert_eq!(change(&mut story, "viva.role", "interviewer").0, Some(Reason::Ok), "no change is no offence");
    assert_eq!(change(&mut story, "big", &"x".repeat(70_000)), (Some(Reason::LimitExceeded), None));
}

#[test]
fn the_scenarios_of_clients_tests_do_what_they_say() {
    use proto::simulate_scenario::Scenario;
    let simulate = |s| Ask::Simulate(proto::SimulateScenario { scenario: Some(s) });
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.ask(&ada, simulate(Scenario::LeaveRequestFullReconnect(true)));
    assert_eq!(story.look().leave(&ada).map(|l| l.1), Some(Action::Reconnect));
    let ada = story.enter("ada");
    story.ask(&ada, simulate(Scenario::ServerLeave(true)));
    assert_eq!(story.look().leave(&ada).map(|l| l.1), Some(Action::Disconnect));
    let ada = story.enter("ada");
    story.ask(&ada, simulate(Scenario::NodeFailure(true)));
    let seen = story.look();
    assert!(seen.leave(&ada).is_none() && seen.hangs_up(&ada));
    let ada = story.enter("ada");
    story.ask(&ada, simulate(Scenario::DisconnectSignalOnResumeNoMessages(true)));
    let once = story.resume(&ada, "ada");
    let seen = story.look();
    assert!(seen.to(&once).is_empty() && seen.hangs_up(&once));
    let twice = story.resume(&once, "ada");
    assert!(matches!(story.look().first(&twice), Some(Response::Reconnect(_))));
    story.ask(&twice, simulate(Scenario::SpeakerUpdate(3)));
    story.wait(Duration::from_secs(4));
    assert_eq!(story.look().to(&twice).len(), 2);
}
