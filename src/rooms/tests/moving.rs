//! Moves to another room, as everybody in both notices them.

use super::*;
use crate::{
    id::RoomName,
    rooms::{
        AdminError,
        moving::{Departure, Traveller},
    },
};

/// A client whose protocol knows `room_moved`.
fn newer() -> JoinRequest {
    let client = proto::ClientInfo { protocol: 16, ..Default::default() };
    JoinRequest { client_info: Some(client), ..Default::default() }
}

impl Story {
    fn enter_by(&mut self, identity: &str, request: JoinRequest) -> Client {
        let client = self.join_with(claims(identity), request).expect("may join");
        self.event(&client, EventKind::Connected);
        self.look();
        client
    }

    fn depart(&mut self, identity: &str, to: &Story, together: bool) -> Result<Departure, AdminError> {
        self.room.depart(self.now, &identity.into(), (&RoomName::from("lab"), &to.room.sid), together)
    }
}

impl Seen {
    fn traveller(self) -> Traveller {
        let departs = |output| if let Output::Depart(traveller) = output { Some(*traveller) } else { None };
        self.0.into_iter().find_map(departs).expect("somebody departs")
    }

    fn moved(&self, client: &Client) -> Option<(&proto::RoomMovedResponse, &Claims)> {
        self.0.iter().find_map(|output| match output {
            Output::Signal { link, message: ToPeer::RoomMoved { moved, claims } } if *link == client.link => {
                Some((&**moved, &**claims))
            }
            _ => None,
        })
    }

    fn told_hooks(&self) -> Vec<&str> {
        let hooks = self.0.iter().filter_map(|output| match output {
            Output::Hook(event) => Some(event.event.as_str()),
            _ => None,
        });
        hooks.collect()
    }
}

#[test]
fn who_is_moved_is_in_the_other_room_with_all_that_it_publishes() {
    let (mut here, mut there) = (Story::new(), Story::new());
    // Sockets have names of their own across rooms.
    there.links = 100;
    let (ada, bob, eve) = (here.enter_by("ada", newer()), here.enter("bob"), there.enter("eve"));
    let mic = here.publish(&ada, microphone("cid"));
    let cam = there.publish(&eve, camera("cam"));
    here.look();
    there.look();
    assert_eq!(here.depart("ada", &there, true), Ok(Departure::Moved));
    let seen = here.look();
    assert_eq!(seen.updates(&bob).last().map(|info| info.state()), Some(State::Disconnected));
    let others: Vec<_> = seen.updates(&ada).iter().map(|info| (info.identity.clone(), info.state())).collect();
    assert_eq!(others, [("bob".to_owned(), State::Disconnected)], "she is told that those here are gone");
    assert!(seen.leave(&ada).is_none() && !seen.hangs_up(&ada));
    let to = there.room.sid.clone();
    assert!(
        seen.media()
            .any(|c| matches!(c, Command::Move { participant, to: t, .. } if *participant == ada.sid && *t == to))
    );
    assert!(!seen.media().any(|c| matches!(c, Command::Leave { .. })));
    assert_eq!(seen.told_hooks(), ["track_unpublished", "participant_left"]);

    there.room.arrive(there.now, seen.traveller()).unwrap();
    let seen = there.look();
    let (moved, claims) = seen.moved(&ada).expect("she is told");
    assert_eq!(moved.participant.as_ref().unwrap().sid, ada.sid.as_str(), "by this she comes back");
    assert_eq!(moved.participant.as_ref().unwrap().tracks[0].sid, mic.as_str());
    assert_eq!(moved.other_participants[0].tracks[0].sid, cam.as_str());
    assert_eq!((moved.room.as_ref().unwrap().sid.as_str(), claims.grants.room.as_str()), (to.as_str(), "lab"));
    let known = seen.updates(&eve)[0];
    assert_eq!((known.identity.as_str(), known.state(), known.tracks.len()), ("ada", State::Active, 1));
    let mut subscriptions = seen.subscriptions();
    subscriptions.sort();
    let mut expected = vec![(ada.sid.clone(), cam, true), (eve.sid.clone(), mic, true)];
    expected.sort();
    assert_eq!(subscriptions, expected);
    assert_eq!(seen.told_hooks(), ["participant_joined", "track_published"]);
    assert_eq!(seen.tokens(&ada), 1);
    // She speaks there from now on, and resumes there.
    there.ask(&ada, Ask::Ping(1));
    assert!(there.look().to(&ada).iter().any(|m| matches!(m, Response::Pong(_))));
    let again = there.resume(&ada, "ada");
    assert!(matches!(there.look().first(&again), Some(Response::Reconnect(_))));
}

#[test]
fn clients_that_do_not_know_it_and_rooms_on_other_workers_are_joined_anew() {
    let (mut here, there) = (Story::new(), Story::new());
    let (ada, bob) = (here.enter("ada"), here.enter_by("bob", newer()));
    for (identity, client, together) in [("ada", &ada, true), ("bob", &bob, false)] {
        assert_eq!(here.depart(identity, &there, together), Ok(Departure::SentAway));
        let seen = here.look();
        let told = seen.0.iter().filter_map(|output| match output {
            Output::Signal { link, message } if *link == client.link => Some(match message {
                ToPeer::RefreshToken(claims) => claims.grants.room.clone(),
                _ => "message".to_owned(),
            }),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), ["lab", "message"], "the token first: the client leaves with it");
        assert_eq!(seen.leave(client), Some((proto::DisconnectReason::Migration, Action::Reconnect)));
    }
}

#[test]
fn who_cannot_be_moved_stays() {
    let (mut here, mut there) = (Story::new(), Story::new());
    here.agent();
    let ada = here.enter_by("ada", newer());
    assert_eq!(here.depart("nobody", &there, true), Err(AdminError::NoParticipant));
    assert_eq!(here.depart("viva", &there, true), Err(AdminError::Agent));
    here.hang_up(&ada);
    assert_eq!(here.depart("ada", &there, true), Err(AdminError::NotConnected));
    there.agent();
    assert_eq!(there.room.would_take(&"viva".into()), Err(RoomError::IdentityTaken));
    assert_eq!(there.room.would_take(&"ada".into()), Ok(()));
}

#[test]
fn nobody_hears_who_is_moved_until_they_consent_there_and_a_room_that_filled_up_says_so() {
    let (mut here, mut there) = (Story::new(), Story::new());
    there.links = 100;
    let ada = here.enter_by("ada", newer());
    here.publish(&ada, microphone("cid"));
    here.agent();
    here.room.allow_tap(&"ada".into(), true);
    assert_eq!(here.look().taps(), (1, 0));
    there.agent();
    here.depart("ada", &there, true).unwrap();
    let seen = here.look();
    assert_eq!(seen.taps(), (0, 1), "the ear is closed before she goes");
    there.look();
    there.room.arrive(there.now, seen.traveller()).unwrap();
    assert_eq!(there.look().taps(), (0, 0));
    there.room.allow_tap(&"ada".into(), true);
    assert_eq!(there.look().taps(), (1, 0));

    let mut full = Story::with(Config { max_participants_per_room: 1, ..Config::default() });
    full.links = 200;
    full.enter("bob");
    there.depart("ada", &full, true).unwrap();
    let traveller = there.look().traveller();
    assert_eq!(full.room.arrive(full.now, traveller), Err(RoomError::RoomFull));
    let seen = full.look();
    assert!(seen.leave(&ada).is_some() && seen.media().any(|c| matches!(c, Command::Leave { .. })));
}
