//! Participants that live in the server, and their taps.

use super::*;

#[test]
fn the_agent_is_a_participant_that_speaks_for_itself_and_for_others() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let (agent, voice) = story.agent();
    let seen = story.look();
    let info = seen.updates(&ada)[0];
    assert_eq!((info.kind(), info.state()), (proto::participant_info::Kind::Agent, State::Active));
    assert_eq!(info.tracks[0].source(), proto::TrackSource::Microphone);
    assert_eq!(seen.subscriptions(), [(ada.sid.clone(), voice, true)]);
    assert_eq!(seen.agent_events(), ["joined", "active"]);
    for (on_behalf, wanted) in [("", "viva"), ("ada", "ada")] {
        let header = Value::StreamHeader(proto::data_stream::Header::default());
        let packet = DataPacket { participant_identity: on_behalf.into(), value: Some(header), ..Default::default() };
        story.room.data_from_agent(story.now, &agent, packet);
        let seen = story.look();
        let (to, packet) = &seen.data()[0];
        assert_eq!(to, std::slice::from_ref(&ada.sid));
        assert_eq!(packet.participant_identity, wanted);
        assert_eq!(packet.participant_sid, agent.as_str());
        assert!(packet.sequence > 0);
    }
    story.send(&ada, DataChannel::Reliable, &user_packet("hello", 1));
    assert_eq!(story.look().agent_events(), ["data"]);
    let attributes = |state: &str| HashMap::from([("lk.agent.state".to_owned(), state.to_owned())]);
    story.room.agent_attributes(&agent, attributes("speaking"));
    let seen = story.look();
    assert_eq!(seen.updates(&ada)[0].attributes["lk.agent.state"], "speaking");
    assert_eq!(
        story.join_with(claims("viva"), JoinRequest::default()).err(),
        Some(RoomError::IdentityTaken),
        "nobody takes the interviewer's place"
    );
}

#[test]
fn a_tap_is_open_only_while_it_is_allowed() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let bob = story.enter("bob");
    story.publish(&ada, microphone("mic"));
    story.publish(&ada, camera("cam"));
    let screen = AddTrackRequest { source: proto::TrackSource::ScreenShareAudio as i32, ..microphone("screen") };
    story.publish(&ada, screen);
    story.publish(&bob, microphone("mic"));
    story.agent();
    assert_eq!(story.look().taps(), (0, 0), "not without consent");
    story.room.allow_tap(&"ada".into(), true);
    let seen = story.look();
    assert_eq!(seen.taps(), (1, 0), "the microphone, and nothing else of hers");
    assert_eq!(seen.agent_events(), ["tap opened"]);
    story.room.allow_tap(&"ada".into(), true);
    assert_eq!(story.look().taps(), (0, 0));
    story.room.allow_tap(&"ada".into(), false);
    let seen = story.look();
    assert_eq!(seen.taps(), (0, 1));
    assert_eq!(seen.agent_events(), ["tap closed"]);
}

#[test]
fn consent_that_came_first_opens_the_tap_as_soon_as_there_is_a_microphone() {
    let mut story = Story::new();
    story.room.allow_tap(&"ada".into(), true);
    let (agent, _) = story.agent();
    let ada = story.enter("ada");
    story.look();
    let track = story.publish(&ada, microphone("mic"));
    assert_eq!(story.look().taps(), (1, 0));
    story.event(&ada, EventKind::TrackEnded { track });
    assert_eq!(story.look().taps(), (0, 1));
    story.publish(&ada, microphone("mic 2"));
    assert_eq!(story.look().taps(), (1, 0));
    story.room.agent_leave(story.now, &agent);
    assert_eq!(story.look().taps(), (0, 1), "without a listener nothing is tapped");
    story.agent();
    assert_eq!(story.look().taps(), (0, 0), "what one was allowed, the next is not");
    story.publish(&ada, microphone("mic 3"));
    assert_eq!(story.look().taps(), (0, 0));
    story.room.allow_tap(&"ada".into(), true);
    assert_eq!(story.look().taps(), (2, 0));
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    let seen = story.look();
    assert_eq!(seen.taps(), (0, 2));
    assert_eq!(seen.agent_events(), ["tap closed", "tap closed", "left"]);
}

/// The id and the track of the tap that was opened.
fn opened(seen: &Seen) -> (TrackSid, u64) {
    let opened = seen.media().find_map(|command| match command {
        Command::OpenTap { track, id, .. } => Some((track.clone(), *id)),
        _ => None,
    });
    opened.expect("a tap was opened")
}

#[test]
fn a_tap_that_ends_by_itself_is_told_and_opened_again_with_the_next_change_only() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    story.publish(&ada, microphone("mic"));
    story.agent();
    story.look();
    story.room.allow_tap(&"ada".into(), true);
    let (track, id) = opened(&story.look());
    story.event(&ada, EventKind::TapClosed { track: track.clone(), id });
    let seen = story.look();
    assert_eq!(
        (seen.taps(), seen.agent_events()),
        ((0, 0), vec!["tap closed"]),
        "a reader that was dropped is no loop"
    );
    story.event(&ada, EventKind::TapClosed { track: track.clone(), id });
    assert!(story.look().0.is_empty());
    // Any change: a microphone, an agent, a consent.
    story.publish(&bob, microphone("mic"));
    let (again, newer) = opened(&story.look());
    assert!(again == track && newer != id);
    // News of the first tap says nothing of the second: it would stay open, unknown, after a withdrawal.
    story.event(&ada, EventKind::TapClosed { track: track.clone(), id });
    assert!(story.look().0.is_empty());
    story.room.allow_tap(&"ada".into(), false);
    assert_eq!(story.look().taps(), (0, 1));
    story.room.allow_tap(&"ada".into(), true);
    let (_, id) = opened(&story.look());
    story.event(&ada, EventKind::TapClosed { track, id });
    story.look();
    story.room.allow_tap(&"ada".into(), true);
    assert_eq!(story.look().taps(), (1, 0));
}

#[test]
fn an_agent_whose_media_is_gone_is_taken_out() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.publish(&ada, microphone("mic"));
    let (agent, _) = story.agent();
    story.room.allow_tap(&"ada".into(), true);
    story.look();
    for sid in [&ada.sid, &agent] {
        story.room.handle_event(story.now, sid, EventKind::Closed { reason: "the media worker failed".into() });
    }
    let seen = story.look();
    assert!(seen.0.iter().any(|output| matches!(output, Output::CloseAgent(gone) if *gone == agent)));
    assert_eq!(seen.updates(&ada).iter().map(|info| info.state()).collect::<Vec<_>>(), [State::Disconnected]);
    assert_eq!(seen.updates(&ada)[0].disconnect_reason(), proto::DisconnectReason::MediaFailure);
    assert_eq!(seen.taps(), (0, 1));
    // The person comes back, and a new agent speaks to them.
    let ada = story.join("ada");
    story.publish(&ada, microphone("mic"));
    story.look();
    let (_, voice) = story.agent();
    let seen = story.look();
    assert!(seen.subscriptions().contains(&(ada.sid.clone(), voice, true)));
    assert_eq!(seen.taps(), (0, 0), "it has to ask her anew");
}
