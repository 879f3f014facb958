//! What webhooks are told, and in which order.

use super::*;
use crate::rooms::RoomOptions;

impl Seen {
    /// The events, each with whom or what it is about.
    fn hooks(&self) -> Vec<String> {
        self.hook_events().map(|hook| [&hook.event, about(hook)].join(" ").trim().to_owned()).collect()
    }

    fn hook_events(&self) -> impl Iterator<Item = &proto::WebhookEvent> {
        self.0.iter().filter_map(|output| match output {
            Output::Hook(hook) => Some(&**hook),
            _ => None,
        })
    }
}

fn about(hook: &proto::WebhookEvent) -> &str {
    hook.participant.as_ref().map_or("", |info| &info.identity)
}

fn leave() -> Ask {
    Ask::Leave(proto::LeaveRequest::default())
}

#[test]
fn a_call_is_told_from_the_first_to_the_last() {
    let mut story = Story::new();
    let ada = story.join("ada");
    assert_eq!(story.look().hooks(), ["room_started"], "who has no media yet has not joined");
    story.event(&ada, EventKind::Connected);
    let seen = story.look();
    assert_eq!(seen.hooks(), ["participant_joined ada"]);
    let joined = seen.hook_events().next().unwrap();
    assert_eq!(joined.participant.as_ref().unwrap().state(), State::Active);
    assert_eq!(joined.room.as_ref().unwrap().num_participants, 1);
    story.event(&ada, EventKind::Disconnected);
    story.event(&ada, EventKind::Connected);
    assert!(story.look().hooks().is_empty(), "to be back is not to join");

    story.ask(&ada, Ask::AddTrack(microphone("mic")));
    let seen = story.look();
    assert!(seen.hooks().is_empty(), "a track without media is no track yet");
    let Some(Response::TrackPublished(published)) = seen.first(&ada) else { panic!() };
    let track = TrackSid::from(published.track.as_ref().unwrap().sid.as_str());
    for _ in 0..2 {
        story.event(&ada, EventKind::TrackLive { track: track.clone(), mid: "0".into() });
    }
    let seen = story.look();
    assert_eq!(seen.hooks(), ["track_published ada"]);
    let hook = seen.hook_events().next().unwrap();
    assert_eq!(hook.track.as_ref().unwrap().sid, track.as_str());
    assert_eq!(hook.room.as_ref().unwrap().name, "room");
    story.event(&ada, EventKind::TrackEnded { track });
    assert_eq!(story.look().hooks(), ["track_unpublished ada"]);

    let bob = story.enter("bob");
    story.publish(&bob, microphone("mic"));
    story.publish(&bob, camera("cam"));
    story.look();
    story.ask(&bob, leave());
    let seen = story.look();
    assert_eq!(seen.hooks(), ["track_unpublished bob", "track_unpublished bob", "participant_left bob"]);
    let left = seen.hook_events().last().unwrap();
    assert_eq!(left.participant.as_ref().unwrap().disconnect_reason(), proto::DisconnectReason::ClientInitiated);
    assert_eq!(left.room.as_ref().unwrap().num_participants, 1);
    story.ask(&ada, leave());
    assert_eq!(story.look().hooks(), ["participant_left ada"]);
    story.wait(Duration::from_secs(21));
    let seen = story.look();
    assert_eq!(seen.hooks(), ["room_finished"]);
    assert_eq!(seen.hook_events().next().unwrap().room_end_reason(), proto::RoomEndReason::RoomEndIdleTimeout);
}

#[test]
fn tracks_that_are_there_before_the_connection_are_told_after_the_join() {
    let mut story = Story::new();
    let ada = story.join("ada");
    story.publish(&ada, microphone("mic"));
    assert!(story.look().hooks().is_empty());
    story.event(&ada, EventKind::Connected);
    assert_eq!(story.look().hooks(), ["participant_joined ada", "track_published ada"]);
}

#[test]
fn an_attempt_that_never_connects_is_told_as_aborted_and_nothing_of_its_tracks() {
    let mut story = Story::new();
    let (ada, bob) = (story.join("ada"), story.join("bob"));
    let track = story.publish(&ada, microphone("mic"));
    story.event(&ada, EventKind::TrackEnded { track });
    story.publish(&ada, microphone("mic 2"));
    story.look();
    story.hang_up(&ada);
    let seen = story.look();
    assert_eq!(seen.hooks(), ["participant_connection_aborted ada"]);
    let info = seen.hook_events().next().unwrap().participant.as_ref().unwrap();
    assert_eq!((info.sid.as_str(), info.state()), (ada.sid.as_str(), State::Disconnected));
    story.wait(Duration::from_secs(61));
    assert_eq!(story.look().hooks(), ["participant_connection_aborted bob"]);
    assert!(story.room.get(&bob.sid).is_none());
}

#[test]
fn a_second_join_with_the_same_identity_is_a_leave_and_a_join() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.publish(&ada, microphone("mic"));
    story.look();
    let again = story.join("ada");
    let seen = story.look();
    assert_eq!(seen.hooks(), ["track_unpublished ada", "participant_left ada"]);
    let left = seen.hook_events().last().unwrap().participant.as_ref().unwrap();
    assert_eq!(left.disconnect_reason(), proto::DisconnectReason::DuplicateIdentity);
    story.event(&again, EventKind::Connected);
    let seen = story.look();
    assert_eq!(seen.hooks(), ["participant_joined ada"]);
    assert_eq!(seen.hook_events().next().unwrap().participant.as_ref().unwrap().sid, again.sid.as_str());
}

#[test]
fn the_interviewer_and_hidden_participants_are_told_like_others() {
    let mut story = Story::new();
    let (agent, _) = story.agent();
    let seen = story.look();
    assert_eq!(seen.hooks(), ["room_started", "participant_joined viva", "track_published viva"]);
    let info = seen.hook_events().nth(1).unwrap().participant.as_ref().unwrap();
    assert_eq!(info.kind(), proto::participant_info::Kind::Agent);
    let mut hidden = claims("ghost");
    hidden.grants.hidden = true;
    let ghost = story.join_with(hidden, JoinRequest::default()).unwrap();
    story.event(&ghost, EventKind::Connected);
    assert_eq!(story.look().hooks(), ["participant_joined ghost"]);
    story.room.agent_leave(story.now, &agent);
    assert_eq!(story.look().hooks(), ["track_unpublished viva", "participant_left viva"]);
}

#[test]
fn a_room_that_is_closed_is_told_last() {
    for (reason, told) in [
        (proto::DisconnectReason::RoomDeleted, proto::RoomEndReason::RoomEndApiDelete),
        (proto::DisconnectReason::ServerShutdown, proto::RoomEndReason::RoomEndServerShutdown),
    ] {
        let mut story = Story::new();
        story.enter("ada");
        story.join("bob");
        story.look();
        story.room.close(story.now, reason, Action::Disconnect);
        story.room.close(story.now, reason, Action::Disconnect);
        let seen = story.look();
        assert_eq!(seen.hooks(), ["participant_left ada", "participant_connection_aborted bob", "room_finished"]);
        assert_eq!(seen.hook_events().last().unwrap().room_end_reason(), told);
    }
}

#[test]
fn a_room_that_a_service_makes_is_told_with_its_options_and_once() {
    let mut story = Story::new();
    let options = RoomOptions { metadata: Some("board".into()), ..Default::default() };
    story.room.set_options(options.clone()).unwrap();
    let seen = story.look();
    assert_eq!(seen.hooks(), ["room_started"]);
    assert_eq!(seen.hook_events().next().unwrap().room.as_ref().unwrap().metadata, "board");
    story.room.set_options(options).unwrap();
    story.join("ada");
    assert!(story.look().hooks().is_empty());
    // One that nobody ever had a use for.
    let mut story = Story::new();
    story.wait(Duration::from_secs(301));
    assert_eq!(story.look().hooks(), ["room_started", "room_finished"]);
}
