//! What services do to a room, as its people notice it.

use super::*;
use crate::rooms::{AdminError, ParticipantChange, RoomOptions, RpcOutcome};

fn permission(can_publish: bool, can_subscribe: bool) -> proto::ParticipantPermission {
    proto::ParticipantPermission { can_publish, can_subscribe, can_publish_data: true, ..Default::default() }
}

fn rpc(to: &str, timeout_ms: u32) -> proto::PerformRpcRequest {
    proto::PerformRpcRequest {
        destination_identity: to.into(),
        method: "m".into(),
        payload: "p".into(),
        response_timeout_ms: timeout_ms,
        ..Default::default()
    }
}

/// How calls ended.
fn outcomes(seen: &Seen) -> Vec<(String, RpcOutcome)> {
    seen.0
        .iter()
        .filter_map(|output| match output {
            Output::RpcDone { id, outcome } => Some((id.clone(), outcome.clone())),
            _ => None,
        })
        .collect()
}

fn answer(id: &str, payload: &str) -> DataPacket {
    let value = proto::rpc_response::Value::Payload(payload.into());
    DataPacket {
        destination_identities: vec!["viva-server".into()],
        value: Some(Value::RpcResponse(proto::RpcResponse { request_id: id.into(), value: Some(value) })),
        ..Default::default()
    }
}

#[test]
fn who_may_no_longer_publish_loses_what_they_published_and_gets_a_token_that_says_so() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let track = story.publish(&ada, microphone("cid"));
    story.look();
    let change = ParticipantChange { permission: Some(permission(false, true)), ..Default::default() };
    let info = story.room.update_participant(story.now, &"ada".into(), change).unwrap();
    assert!(info.tracks.is_empty() && !info.permission.unwrap().can_publish);
    let seen = story.look();
    assert_eq!(seen.tokens(&ada), 1);
    assert!(seen.to(&ada).iter().any(|m| matches!(m, Response::TrackUnpublished(t) if t.track_sid == track.as_str())));
    assert!(seen.media().any(|c| matches!(c, Command::Unpublish { track: sid, .. } if *sid == track)));
    assert!(seen.updates(&bob).last().unwrap().tracks.is_empty());
    // And may not publish again.
    story.ask(&ada, Ask::AddTrack(microphone("again")));
    assert!(story.look().to(&ada).iter().any(|m| matches!(m, Response::RequestResponse(_))));
}

#[test]
fn who_may_no_longer_listen_is_unsubscribed() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let track = story.publish(&ada, microphone("cid"));
    story.look();
    let change = ParticipantChange { permission: Some(permission(true, false)), ..Default::default() };
    story.room.update_participant(story.now, &"bob".into(), change).unwrap();
    assert_eq!(story.look().subscriptions(), [(bob.sid.clone(), track.clone(), false)]);
    let change = ParticipantChange { permission: Some(permission(true, true)), ..Default::default() };
    story.room.update_participant(story.now, &"bob".into(), change).unwrap();
    assert_eq!(story.look().subscriptions(), [(bob.sid, track, true)]);
}

#[test]
fn nobody_opens_a_microphone_from_outside() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let track = story.publish(&ada, microphone("cid"));
    story.look();
    assert!(story.room.force_mute(&"ada".into(), track.as_str(), true).unwrap().muted);
    let seen = story.look();
    assert!(seen.to(&ada).iter().any(|m| matches!(m, Response::Mute(m) if m.muted && m.sid == track.as_str())));
    assert!(seen.updates(&bob)[0].tracks[0].muted);
    assert_eq!(story.room.force_mute(&"ada".into(), track.as_str(), false), Err(AdminError::RemoteUnmute));
    assert_eq!(story.room.force_mute(&"ada".into(), "TR_x", true), Err(AdminError::NoTrack));
    assert_eq!(story.room.force_mute(&"eve".into(), "TR_x", true), Err(AdminError::NoParticipant));
}

#[test]
fn a_call_is_answered_by_whom_it_was_made_to_or_ends_in_time() {
    let mut story = Story::new();
    let (ada, eve) = (story.enter("ada"), story.enter("eve"));
    story.room.call(story.now, "c1", rpc("ada", 500)).unwrap();
    let seen = story.look();
    let (to, packet) = &seen.data()[0];
    assert_eq!((to.as_slice(), packet.participant_identity.as_str()), ([ada.sid.clone()].as_slice(), "viva-server"));
    // Nobody else can answer for her, and her answer goes to nobody else.
    story.send(&eve, DataChannel::Reliable, &answer("c1", "forged"));
    assert!(outcomes(&story.look()).is_empty());
    story.send(&ada, DataChannel::Reliable, &answer("c1", "real"));
    let seen = story.look();
    assert_eq!(outcomes(&seen), [("c1".to_owned(), Ok("real".to_owned()))]);
    assert!(seen.data().is_empty());

    story.room.call(story.now, "c2", rpc("ada", 500)).unwrap();
    story.wait(Duration::from_millis(501));
    assert!(matches!(outcomes(&story.look()).as_slice(), [(id, Err((1502, _)))] if id == "c2"));
    story.room.call(story.now, "c3", rpc("ada", 500)).unwrap();
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    assert!(matches!(outcomes(&story.look()).as_slice(), [(id, Err((1503, _)))] if id == "c3"));
    assert_eq!(story.room.call(story.now, "c4", rpc("ada", 500)), Err(AdminError::NoParticipant));
    let calls: Vec<_> = (0..100).map(|n| story.room.call(story.now, &format!("d{n}"), rpc("eve", 500))).collect();
    assert!(calls.contains(&Err(AdminError::TooManyCalls)));
}

#[test]
fn a_rooms_own_settings_hold_within_the_servers() {
    let mut story = Story::new();
    let options = RoomOptions {
        max_participants: Some(1_000_000),
        departure_timeout_secs: Some(3),
        metadata: Some("m".into()),
        ..Default::default()
    };
    let bound = Config::default().max_participants_per_room;
    story.room.set_options(options).unwrap();
    assert_eq!(story.room.info().max_participants as usize, bound);
    for max in [1, 5] {
        story.room.set_options(RoomOptions { max_participants: Some(max), ..Default::default() }).unwrap();
        assert_eq!(story.room.info().max_participants as usize, max, "what was small may grow again");
    }
    let ada = story.enter("ada");
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    story.wait(Duration::from_secs(4));
    assert!(story.room.is_closed());
    let large = RoomOptions { metadata: Some("x".repeat(100_000)), ..Default::default() };
    assert!(matches!(story.room.set_options(large), Err(AdminError::TooLarge(_))));
}

#[test]
fn the_interviewer_is_listed_but_not_changed_from_outside() {
    let mut story = Story::new();
    story.agent();
    let agent = story.room.list().remove(0);
    let change = ParticipantChange { name: "x".into(), ..Default::default() };
    let changed = story.room.update_participant(story.now, &agent.identity.as_str().into(), change);
    assert_eq!(changed.err(), Some(AdminError::Agent));
}
