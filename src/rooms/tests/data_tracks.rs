//! Data tracks, as their publishers and those who take them notice them.

use proto::{
    PublishDataTrackRequest, UnpublishDataTrackRequest, UpdateDataSubscription, request_response::Reason,
    update_data_subscription::Update,
};

use super::*;
use crate::{id::DataTrackSid, rooms::ParticipantChange};

fn pose(handle: u32) -> PublishDataTrackRequest {
    PublishDataTrackRequest { pub_handle: handle, name: format!("pose {handle}"), ..Default::default() }
}

fn wish(track: &DataTrackSid, subscribe: bool) -> UpdateDataSubscription {
    let update = Update { track_sid: track.as_str().into(), subscribe, options: None };
    UpdateDataSubscription { updates: vec![update] }
}

impl Story {
    fn publish_data(&mut self, client: &Client, request: PublishDataTrackRequest) -> DataTrackSid {
        self.ask(client, Ask::PublishDataTrackRequest(request));
        let seen = self.look();
        let published = seen.to(client).into_iter().find_map(|message| match message {
            Response::PublishDataTrackResponse(response) => response.info.clone(),
            _ => None,
        });
        DataTrackSid::from(published.expect("it is published").sid)
    }

    fn enter_for_all_data(&mut self, identity: &str) -> Client {
        let settings = proto::ConnectionSettings { auto_subscribe_data_track: Some(true), ..Default::default() };
        let request = JoinRequest { connection_settings: Some(settings), ..Default::default() };
        self.join_with(claims(identity), request).expect("may join")
    }
}

impl Seen {
    /// The numbers that this client was told, and of what.
    fn handles(&self, client: &Client) -> Vec<(u32, DataTrackSid)> {
        let told = self.to(client).into_iter().filter_map(|message| match message {
            Response::DataTrackSubscriberHandles(told) => Some(&told.sub_handles),
            _ => None,
        });
        told.flatten().map(|(handle, of)| (*handle, DataTrackSid::from(of.track_sid.as_str()))).collect()
    }

    /// What the media worker was told that this client gets, and by which number.
    fn data_subscriptions(&self, client: &Client) -> Vec<(DataTrackSid, Option<u16>)> {
        let subscribe = self.media().filter_map(|command| match command {
            Command::SubscribeData { subscriber, track, handle, .. } if *subscriber == client.sid => {
                Some((track.clone(), *handle))
            }
            _ => None,
        });
        subscribe.collect()
    }

    fn reason(&self, client: &Client) -> Option<Reason> {
        self.to(client).into_iter().find_map(|message| match message {
            Response::RequestResponse(response) => Some(response.reason()),
            _ => None,
        })
    }
}

#[test]
fn a_data_track_is_told_to_all_and_given_to_those_who_ask_each_by_a_number_of_its_own() {
    let mut story = Story::new();
    let (ada, bob, eve) = (story.enter("ada"), story.enter("bob"), story.enter("eve"));
    story.ask(&ada, Ask::PublishDataTrackRequest(pose(7)));
    let seen = story.look();
    let track = seen.updates(&bob).last().unwrap().data_tracks[0].clone();
    assert!(track.sid.starts_with("DTR_") && track.name == "pose 7" && track.pub_handle == 7, "{track:?}");
    assert!(seen.media().any(|c| matches!(c, Command::PublishData { handle: 7, .. })));
    assert!(seen.data_subscriptions(&bob).is_empty(), "nobody asked");
    let (first, second) = (DataTrackSid::from(track.sid.as_str()), story.publish_data(&ada, pose(8)));
    story.ask(&bob, Ask::UpdateDataSubscription(wish(&second, true)));
    story.ask(&bob, Ask::UpdateDataSubscription(wish(&first, true)));
    let seen = story.look();
    assert_eq!(seen.handles(&bob), [(1, second.clone()), (2, first.clone())]);
    assert_eq!(seen.data_subscriptions(&bob), [(second.clone(), Some(1)), (first.clone(), Some(2))]);
    assert!(seen.handles(&eve).is_empty());
    // A client that asks twice has lost the number: it is told again, and nothing changes.
    story.ask(&bob, Ask::UpdateDataSubscription(wish(&first, true)));
    let seen = story.look();
    assert_eq!((seen.handles(&bob), seen.data_subscriptions(&bob)), (vec![(2, first.clone())], vec![]));
    story.ask(&bob, Ask::UpdateDataSubscription(wish(&first, false)));
    assert_eq!(story.look().data_subscriptions(&bob), [(first, None)]);
    // Taken back, and gone for everybody.
    story.ask(&ada, Ask::UnpublishDataTrackRequest(UnpublishDataTrackRequest { pub_handle: 8 }));
    let seen = story.look();
    assert!(seen.to(&ada).iter().any(|m| matches!(m, Response::UnpublishDataTrackResponse(_))));
    assert_eq!(seen.updates(&bob).last().unwrap().data_tracks.len(), 1);
    story.ask(&bob, Ask::UpdateDataSubscription(wish(&second, true)));
    let lost = |m: &&Response| matches!(m, Response::SubscriptionResponse(r) if r.track_sid == second.as_str());
    assert!(story.look().to(&bob).iter().any(lost));
}

#[test]
fn who_wants_all_data_gets_what_is_there_and_what_comes() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let first = story.publish_data(&ada, pose(1));
    let bob = story.enter_for_all_data("bob");
    let seen = story.look();
    let Some(Response::Join(join)) = seen.first(&bob) else { panic!() };
    assert_eq!(join.other_participants[0].data_tracks[0].sid, first.as_str());
    assert_eq!((seen.handles(&bob).len(), seen.data_subscriptions(&bob)), (1, vec![(first.clone(), Some(1))]));
    story.ask(&ada, Ask::PublishDataTrackRequest(pose(2)));
    assert_eq!(story.look().handles(&bob).len(), 1);
    // One that it leaves is left, also when something else changes.
    story.ask(&bob, Ask::UpdateDataSubscription(wish(&first, false)));
    story.publish_data(&ada, pose(3));
    assert_eq!(story.look().data_subscriptions(&bob), []);
    story.room.expel(story.now, &"ada".into()).unwrap();
    let gone = story.look();
    assert!(gone.updates(&bob).last().unwrap().data_tracks.is_empty());
}

#[test]
fn what_may_not_be_published_is_refused_with_the_reason() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.publish_data(&ada, pose(1));
    let named = |name: &str| PublishDataTrackRequest { name: name.into(), ..pose(2) };
    let long = "n".repeat(257);
    let schema = Some(proto::DataTrackSchemaId { name: "s".repeat(2000), encoding: None });
    for (request, reason) in [
        (pose(0), Reason::InvalidHandle),
        (pose(65_536), Reason::InvalidHandle),
        (named(""), Reason::InvalidName),
        (named(&long), Reason::InvalidName),
        (PublishDataTrackRequest { name: "other".into(), ..pose(1) }, Reason::DuplicateHandle),
        (named("pose 1"), Reason::DuplicateName),
        (PublishDataTrackRequest { schema, ..pose(2) }, Reason::LimitExceeded),
    ] {
        story.ask(&ada, Ask::PublishDataTrackRequest(request));
        assert_eq!(story.look().reason(&ada), Some(reason));
    }
    story.ask(&ada, Ask::UnpublishDataTrackRequest(UnpublishDataTrackRequest { pub_handle: 9 }));
    assert_eq!(story.look().reason(&ada), Some(Reason::NotFound));
    for handle in 2..=32 {
        story.publish_data(&ada, pose(handle));
    }
    story.ask(&ada, Ask::PublishDataTrackRequest(pose(33)));
    assert_eq!(story.look().reason(&ada), Some(Reason::LimitExceeded));
    let mut mute = claims("mute");
    mute.grants.can_publish_data = Some(false);
    let mute = story.join_with(mute, JoinRequest::default()).unwrap();
    story.look();
    story.ask(&mute, Ask::PublishDataTrackRequest(pose(1)));
    assert_eq!(story.look().reason(&mute), Some(Reason::NotAllowed));
}

#[test]
fn data_tracks_obey_permissions_when_they_change() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter_for_all_data("bob"));
    let track = story.publish_data(&ada, pose(1));
    let permission = |can_publish_data, can_subscribe| {
        let permission =
            proto::ParticipantPermission { can_publish: true, can_publish_data, can_subscribe, ..Default::default() };
        ParticipantChange { permission: Some(permission), ..Default::default() }
    };
    story.room.update_participant(story.now, &"bob".into(), permission(true, false)).unwrap();
    assert_eq!(story.look().data_subscriptions(&bob), [(track.clone(), None)]);
    story.room.update_participant(story.now, &"bob".into(), permission(true, true)).unwrap();
    assert_eq!(story.look().data_subscriptions(&bob), [(track.clone(), Some(2))]);
    // Her own word counts as well.
    story.ask(&ada, Ask::SubscriptionPermission(proto::SubscriptionPermission::default()));
    assert_eq!(story.look().data_subscriptions(&bob), [(track, None)]);
    story.room.update_participant(story.now, &"ada".into(), permission(false, true)).unwrap();
    let seen = story.look();
    assert!(seen.to(&ada).iter().any(|m| matches!(m, Response::UnpublishDataTrackResponse(_))));
    assert!(seen.updates(&bob).last().unwrap().data_tracks.is_empty());
}

#[test]
fn a_hidden_participants_data_is_nobodys() {
    let mut story = Story::new();
    let bob = story.enter_for_all_data("bob");
    let mut hidden = claims("hidden");
    hidden.grants.hidden = true;
    let hidden = story.join_with(hidden, JoinRequest::default()).unwrap();
    story.look();
    story.ask(&hidden, Ask::PublishDataTrackRequest(pose(1)));
    let seen = story.look();
    assert!(seen.data_subscriptions(&bob).is_empty() && seen.updates(&bob).is_empty());
}

#[test]
fn who_resumes_is_told_its_numbers_again_and_what_it_gave_up_ends() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter_for_all_data("bob"));
    let (kept, given_up) = (story.publish_data(&ada, pose(1)), story.publish_data(&ada, pose(2)));
    let bob = story.resume(&bob, "bob");
    assert_eq!(story.look().handles(&bob).len(), 2);
    let ada = story.resume(&ada, "ada");
    let believed = |sid: &DataTrackSid| {
        let info = proto::DataTrackInfo { sid: sid.as_str().into(), ..Default::default() };
        vec![proto::PublishDataTrackResponse { info: Some(info) }]
    };
    let state = proto::SyncState { publish_data_tracks: believed(&kept), ..Default::default() };
    story.ask(&ada, Ask::SyncState(state));
    let seen = story.look();
    assert!(seen.leave(&ada).is_none());
    let left: Vec<_> = seen.updates(&bob).last().unwrap().data_tracks.iter().map(|info| info.sid.clone()).collect();
    assert_eq!(left, [kept.as_str()]);
    // A track that we do not know was lost with another life of the server.
    let state = proto::SyncState { publish_data_tracks: believed(&given_up), ..Default::default() };
    story.ask(&ada, Ask::SyncState(state));
    assert_eq!(story.look().leave(&ada), Some((proto::DisconnectReason::StateMismatch, Action::Reconnect)));
}
