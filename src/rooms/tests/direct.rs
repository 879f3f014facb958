//! Participants without a socket: they come by one offer and its answer.

use super::*;
use crate::rooms::{Agreed, Direct, ParticipantChange};

impl Story {
    fn come(&mut self, claims: Claims, how: Direct) -> Result<ParticipantSid, RoomError> {
        self.room.join_direct(self.now, claims, how, "an offer".into())
    }

    fn whip(&mut self, identity: &str) -> ParticipantSid {
        self.come(claims(identity), Direct::Publish { tracks: vec![microphone("audio")] }).expect("may join")
    }

    fn whep(&mut self, of: Option<&str>) -> ParticipantSid {
        self.come(claims("viewer"), Direct::Play { of: of.map(Into::into) }).expect("may join")
    }

    fn hear(&mut self, sid: &ParticipantSid, kind: EventKind) {
        self.room.handle_event(self.now, sid, kind);
    }

    fn answer(&mut self, sid: &ParticipantSid, offer_id: u32) {
        self.hear(sid, EventKind::Answer { offer_id, sdp: format!("answer {offer_id}"), tracks: Vec::new() });
    }

    fn joins(&self, protocol: &str, result: &str) -> u64 {
        self.metrics.participant_joins.with_label_values(&[protocol, result]).get()
    }
}

impl Seen {
    fn answers(&self) -> Vec<&Result<Box<Agreed>, RoomError>> {
        self.0
            .iter()
            .filter_map(|output| match output {
                Output::Answered { result, .. } => Some(result),
                _ => None,
            })
            .collect()
    }

    fn forgets(&self, sid: &ParticipantSid) -> bool {
        self.0.iter().any(|output| matches!(output, Output::CloseDirect(gone) if gone == sid))
    }
}

#[test]
fn one_offer_makes_a_publisher_that_others_see_and_get() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let camera = story.whip("camera");
    let seen = story.look();
    let commands: Vec<_> = seen.media().collect();
    assert!(matches!(commands[0], Command::Join { connections: Connections::One, .. }));
    let Command::Publish { track, .. } = commands[1] else { panic!() };
    assert_eq!(track.cids, ["audio"]);
    let track = track.track.clone();
    assert!(matches!(commands[2], Command::Offer { offer_id: 1, sdp, .. } if sdp == "an offer"));
    assert_eq!(seen.updates(&ada)[0].identity, "camera");
    assert!(seen.answers().is_empty());

    story.answer(&camera, 1);
    story.hear(&camera, EventKind::TrackLive { track: track.clone(), mid: "0".into() });
    story.hear(&camera, EventKind::Connected);
    let seen = story.look();
    let Ok(agreed) = seen.answers()[0] else { panic!() };
    assert_eq!((agreed.answer.as_str(), agreed.offer.as_str(), agreed.publishes), ("answer 1", "an offer", true));
    assert_eq!(seen.subscriptions(), [(ada.sid.clone(), track, true)]);
    assert_eq!(story.joins("whip", "ok"), 1);
    assert_eq!(story.metrics.join_duration.with_label_values(&["whip"]).get_sample_count(), 1);
    // It gets nothing itself.
    story.publish(&ada, microphone("mic"));
    assert!(story.look().subscriptions().is_empty());
}

#[test]
fn an_offer_that_cannot_be_answered_leaves_nobody_behind() {
    let mut story = Story::new();
    let camera = story.whip("camera");
    story.look();
    story.hear(&camera, EventKind::OfferRejected { offer_id: 1, reason: "the offer is malformed" });
    let seen = story.look();
    assert!(matches!(seen.answers()[..], [Err(RoomError::OfferRejected("the offer is malformed"))]));
    assert!(seen.forgets(&camera));
    assert_eq!((story.room.participants.len(), story.joins("whip", "failed")), (0, 1));
}

#[test]
fn a_session_belongs_to_the_identity_that_made_it() {
    let mut story = Story::new();
    let camera = story.whip("camera");
    assert!(story.room.agreed(&camera, &"camera".into()).is_none(), "nothing is agreed before the answer");
    story.answer(&camera, 1);
    assert!(story.room.agreed(&camera, &"camera".into()).is_some());
    let stranger = "stranger".into();
    assert!(story.room.agreed(&camera, &stranger).is_none());
    assert!(!story.room.offer_directly(&camera, &stranger, "another".into()));
    assert!(!story.room.leave_directly(story.now, &camera, &stranger));
    let ada = story.enter("ada");
    assert!(!story.room.leave_directly(story.now, &ada.sid, &"ada".into()), "who has a socket leaves by it");
    story.look();
    assert!(story.room.leave_directly(story.now, &camera, &"camera".into()));
    let seen = story.look();
    assert_eq!(seen.updates(&ada)[0].state(), State::Disconnected);
    assert!(seen.forgets(&camera));
}

#[test]
fn a_second_offer_is_answered_and_late_answers_to_the_first_do_not_count() {
    let mut story = Story::new();
    let camera = story.whip("camera");
    story.answer(&camera, 1);
    story.look();
    assert!(story.room.offer_directly(&camera, &"camera".into(), "a restart".into()));
    story.answer(&camera, 1);
    assert!(story.look().answers().is_empty());
    story.answer(&camera, 2);
    let seen = story.look();
    let Ok(agreed) = seen.answers()[0] else { panic!() };
    assert_eq!((agreed.offer.as_str(), agreed.answer.as_str()), ("a restart", "answer 2"));
    assert_eq!(story.joins("whip", "ok"), 1, "it joined once");
}

#[test]
fn without_media_it_is_gone_after_the_time_that_everybody_has() {
    let mut story = Story::new();
    let camera = story.whip("camera");
    story.answer(&camera, 1);
    story.hear(&camera, EventKind::Connected);
    story.hear(&camera, EventKind::Disconnected);
    story.wait(Duration::from_secs(10));
    story.hear(&camera, EventKind::Connected);
    story.wait(Duration::from_secs(60));
    assert_eq!(story.room.participants.len(), 1, "it came back in time");
    story.hear(&camera, EventKind::Disconnected);
    story.wait(Duration::from_secs(21));
    assert_eq!(story.room.participants.len(), 0);

    let camera = story.whip("camera");
    story.answer(&camera, 1);
    story.hear(&camera, EventKind::Connected);
    story.hear(&camera, EventKind::Closed { reason: "closed by the client".into() });
    assert_eq!(story.room.participants.len(), 0, "who closes its connection has left");

    story.whip("camera");
    story.wait(Duration::from_secs(61));
    assert_eq!((story.room.participants.len(), story.joins("whip", "failed")), (0, 1), "it never connected");
}

#[test]
fn tokens_say_what_may_be_published_and_identities_are_in_a_room_once() {
    let mut story = Story::new();
    let mut only_camera = claims("ada");
    only_camera.grants.can_publish_sources = vec!["camera".into()];
    let refused = story.come(only_camera, Direct::Publish { tracks: vec![microphone("audio")] });
    assert_eq!(refused, Err(RoomError::MayNotPublish));
    let ada = story.enter("ada");
    let again = story.whip("ada");
    let seen = story.look();
    assert!(seen.leave(&ada).is_some());
    let third = story.whip("ada");
    assert!(story.look().forgets(&again));
    assert_eq!(story.room.participants.len(), 1);
    assert!(story.room.get(&third).is_some());
}

#[test]
fn a_viewer_gets_one_publisher_and_the_next_one_when_that_leaves() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let (mic, cam) = (story.publish(&bob, microphone("m")), story.publish(&bob, camera("c")));
    story.look();
    let viewer = story.whep(None);
    let seen = story.look();
    assert!(matches!(seen.media().next(), Some(Command::Join { connections: Connections::Fixed, .. })));
    assert_eq!(seen.subscriptions(), [(viewer.clone(), mic.clone(), true), (viewer.clone(), cam.clone(), true)]);
    // People see who watches, unless the token hides it.
    assert_eq!(seen.updates(&ada)[0].identity, "viewer");
    // Another publisher changes nothing while the first one is there; what that one adds is added.
    let first = story.publish(&ada, microphone("m"));
    assert!(story.look().subscriptions().iter().all(|(to, ..)| *to != viewer));
    let screen = story.publish(&bob, camera("s"));
    assert!(story.look().subscriptions().contains(&(viewer.clone(), screen, true)));
    story.ask(&bob, Ask::Leave(Default::default()));
    assert_eq!(story.look().subscriptions(), [(viewer.clone(), first, true)]);
    assert_eq!(story.joins("whep", "ok"), 0, "not before its answer");
    story.answer(&viewer, 1);
    assert_eq!(story.joins("whep", "ok"), 1);
}

#[test]
fn a_viewer_may_come_first_and_may_name_whom_it_wants() {
    let mut story = Story::new();
    let viewer = story.whep(Some("bob"));
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    story.publish(&ada, microphone("m"));
    assert!(story.look().subscriptions().iter().all(|(to, ..)| *to != viewer));
    let mic = story.publish(&bob, microphone("m"));
    assert!(story.look().subscriptions().contains(&(viewer.clone(), mic.clone(), true)));
    story.event(&bob, EventKind::TrackEnded { track: mic });
    let again = story.publish(&bob, microphone("n"));
    assert!(story.look().subscriptions().contains(&(viewer, again, true)));
}

#[test]
fn a_viewer_gets_people_before_the_interviewer_and_nothing_that_is_not_permitted() {
    let mut story = Story::new();
    let (_, voice) = story.agent();
    let viewer = story.whep(None);
    assert_eq!(story.look().subscriptions(), [(viewer.clone(), voice.clone(), true)]);
    let ada = story.enter("ada");
    let mic = story.publish(&ada, microphone("m"));
    let seen = story.look();
    let mut theirs: Vec<_> = seen.subscriptions().into_iter().filter(|(to, ..)| *to == viewer).collect();
    theirs.sort_by_key(|(.., on)| *on);
    assert_eq!(theirs, [(viewer.clone(), voice.clone(), false), (viewer.clone(), mic.clone(), true)]);
    story.ask(&ada, Ask::SubscriptionPermission(proto::SubscriptionPermission::default()));
    let mut theirs = story.look().subscriptions();
    theirs.retain(|(to, ..)| *to == viewer);
    assert!(theirs.contains(&(viewer.clone(), mic, false)) && theirs.contains(&(viewer, voice, true)), "{theirs:?}");
}

#[test]
fn a_service_may_take_the_right_to_watch_and_give_it_back() {
    let mut story = Story::new();
    let viewer = story.whep(None);
    let ada = story.enter("ada");
    let mic = story.publish(&ada, microphone("m"));
    let mut may_subscribe = |can_subscribe| {
        story.look();
        let permission = proto::ParticipantPermission { can_subscribe, ..Default::default() };
        let change = ParticipantChange { permission: Some(permission), ..Default::default() };
        story.room.update_participant(story.now, &"viewer".into(), change).unwrap();
        story.look().subscriptions()
    };
    assert_eq!(may_subscribe(false), [(viewer.clone(), mic.clone(), false)]);
    assert_eq!(may_subscribe(true), [(viewer, mic, true)]);
}
