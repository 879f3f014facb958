//! Data packets.

use super::*;

#[test]
fn data_is_stamped_routed_and_taken_once() {
    let mut story = Story::new();
    let (ada, bob, eve) = (story.enter("ada"), story.enter("bob"), story.enter("eve"));
    let mut lie = user_packet("hello", 1);
    lie.participant_identity = "eve".into();
    lie.participant_sid = eve.sid.as_str().into();
    story.send(&ada, DataChannel::Reliable, &lie);
    let seen = story.look();
    let (to, packet) = &seen.data()[0];
    assert_eq!(to, &[bob.sid.clone(), eve.sid.clone()]);
    assert_eq!((packet.participant_identity.as_str(), packet.participant_sid.as_str()), ("ada", ada.sid.as_str()));
    assert_eq!(packet.sequence, 1, "receivers tell doubles by it");
    story.send(&ada, DataChannel::Reliable, &user_packet("hello again", 1));
    assert!(story.look().data().is_empty());
    let mut secret = user_packet("psst", 2);
    secret.destination_identities = vec!["eve".into()];
    story.send(&ada, DataChannel::Reliable, &secret);
    assert_eq!(story.look().data()[0].0, std::slice::from_ref(&eve.sid));
    story.send(&ada, DataChannel::Lossy, &user_packet("lossy", 0));
    story.send(&ada, DataChannel::Lossy, &user_packet("lossy", 0));
    assert_eq!(story.look().data().len(), 2);
    story.event(&ada, EventKind::Data { channel: DataChannel::Lossy, payload: Bytes::from_static(b"\xff\xff") });
    let speakers = Value::Transcription(proto::Transcription::default());
    story.send(&ada, DataChannel::Lossy, &DataPacket { value: Some(speakers), ..Default::default() });
    assert!(story.look().data().is_empty(), "nonsense, and what only agents may send, goes nowhere");
    let mut mute = claims("mute");
    mute.grants.can_publish_data = Some(false);
    let mute = story.join_with(mute, JoinRequest::default()).unwrap();
    story.look();
    story.send(&mute, DataChannel::Reliable, &user_packet("x", 1));
    assert!(story.look().data().is_empty());
}

#[test]
fn a_user_packet_sent_twice_with_one_nonce_arrives_once() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.enter("bob");
    let user = proto::UserPacket { nonce: vec![1, 2, 3], ..Default::default() };
    let packet = DataPacket { value: Some(Value::User(user)), ..Default::default() };
    story.send(&ada, DataChannel::Lossy, &packet);
    story.send(&ada, DataChannel::Lossy, &packet);
    assert_eq!(story.look().data().len(), 1);
}

#[test]
fn reliable_data_reaches_those_who_are_about_to_connect_and_those_who_resume() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.send(&ada, DataChannel::Reliable, &user_packet("before", 1));
    story.now.at += Duration::from_millis(10);
    let bob = story.join("bob");
    story.send(&ada, DataChannel::Reliable, &user_packet("while joining", 2));
    assert_eq!(story.look().data().len(), 0);
    story.event(&bob, EventKind::DataChannelOpen { channel: DataChannel::Reliable });
    let seen = story.look();
    let sequences: Vec<_> = seen.data().iter().map(|(_, packet)| packet.sequence).collect();
    assert_eq!(sequences, [2]);
    story.event(&bob, EventKind::Connected);
    story.send(&ada, DataChannel::Reliable, &user_packet("lost on the way", 3));
    story.hang_up(&bob);
    let bob = story.resume(&bob, "bob");
    story.look();
    let state = proto::DataChannelReceiveState { publisher_sid: ada.sid.as_str().into(), last_seq: 2 };
    story.ask(&bob, Ask::SyncState(proto::SyncState { datachannel_receive_states: vec![state], ..Default::default() }));
    let seen = story.look();
    let sequences: Vec<_> = seen.data().iter().map(|(_, packet)| packet.sequence).collect();
    assert_eq!(sequences, [3]);
    // Who has got nothing at all gets everything since it joined.
    story.ask(&bob, Ask::SyncState(proto::SyncState::default()));
    let seen = story.look();
    let sequences: Vec<_> = seen.data().iter().map(|(_, packet)| packet.sequence).collect();
    assert_eq!(sequences, [2, 3]);
}

#[test]
fn a_packet_larger_than_clients_send_goes_nowhere() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.enter("bob");
    for (bytes, passes) in [(64_000, 1), (64_001, 0)] {
        let around = user_packet(&"x".repeat(60_000), 0).encoded_len() - 60_000;
        let packet = user_packet(&"x".repeat(bytes - around), 0);
        assert_eq!(packet.encoded_len(), bytes);
        story.send(&ada, DataChannel::Lossy, &packet);
        assert_eq!(story.look().data().len(), passes, "{bytes}");
    }
}

#[test]
fn a_blob_is_kept_for_others_as_long_as_who_keeps_it_is_there() {
    let mut story = Story::new();
    let (ada, bob) = (story.enter("ada"), story.enter("bob"));
    let key = |name: &str| proto::DataBlobKey { key: Some(proto::data_blob_key::Key::Generic(name.into())) };
    let store = |id, name: &str, bytes: usize| {
        let blob = proto::DataBlob { key: Some(key(name)), contents: vec![7; bytes] };
        Ask::StoreDataBlobRequest(proto::StoreDataBlobRequest { request_id: id, blob: Some(blob) })
    };
    let get = |id, of: &str, name: &str| {
        let (participant_identity, key) = (of.to_owned(), Some(key(name)));
        Ask::GetDataBlobRequest(proto::GetDataBlobRequest { request_id: id, participant_identity, key })
    };
    let refused = |seen: &Seen, client: &Client| match seen.first(client) {
        Some(Response::RequestResponse(response)) => Some((response.request_id, response.reason())),
        _ => None,
    };
    use proto::request_response::Reason;
    story.ask(&ada, store(1, "pose", 10));
    assert!(matches!(story.look().first(&ada), Some(Response::StoreDataBlobResponse(r)) if r.request_id == 1));
    // Stored again is replaced.
    story.ask(&ada, store(2, "pose", 20));
    story.look();
    story.ask(&bob, get(3, "ada", "pose"));
    let seen = story.look();
    let Some(Response::GetDataBlobResponse(got)) = seen.first(&bob) else { panic!() };
    assert_eq!((got.request_id, got.blob.as_ref().map(|blob| blob.contents.len())), (3, Some(20)));
    for (ask, reason) in [
        (get(4, "ada", "other"), Reason::NotFound),
        (get(5, "eve", "pose"), Reason::NotFound),
        (store(6, "large", 50_001), Reason::LimitExceeded),
        (Ask::StoreDataBlobRequest(proto::StoreDataBlobRequest { request_id: 7, blob: None }), Reason::InvalidRequest),
    ] {
        story.ask(&bob, ask);
        assert_eq!(refused(&story.look(), &bob).map(|(_, reason)| reason), Some(reason));
    }
    for n in 0..16 {
        story.ask(&bob, store(10 + n, &format!("blob {n}"), 1));
    }
    story.look();
    story.ask(&bob, store(99, "one more", 1));
    assert_eq!(refused(&story.look(), &bob), Some((99, Reason::LimitExceeded)));
    story.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    story.look();
    story.ask(&bob, get(100, "ada", "pose"));
    assert_eq!(refused(&story.look(), &bob), Some((100, Reason::NotFound)));
}
