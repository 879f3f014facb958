//! Videos that nobody looks at.

use super::*;

fn told(seen: &Seen, client: &Client) -> Vec<(String, String, Vec<bool>)> {
    let updates = seen.to(client).into_iter().filter_map(|message| match message {
        Response::SubscribedQualityUpdate(update) => Some(update),
        _ => None,
    });
    updates
        .map(|update| {
            let codec = &update.subscribed_codecs[0];
            let qualities: Vec<_> = codec.qualities.iter().map(|quality| quality.enabled).collect();
            (update.track_sid.clone(), codec.codec.clone(), qualities)
        })
        .collect()
}

#[test]
fn a_video_that_nobody_looks_at_is_stopped_after_a_while_and_goes_on_at_once() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let cam = story.publish(&ada, camera("cam"));
    let told_of = |on: bool| vec![(cam.as_str().to_owned(), "vp8".to_owned(), vec![on; 3])];
    assert_eq!(told(&story.look(), &ada), []);
    story.wait(Duration::from_secs(4));
    assert_eq!(told(&story.look(), &ada), [], "somebody may be about to come");
    story.wait(Duration::from_secs(1));
    assert_eq!(told(&story.look(), &ada), told_of(false));
    story.wait(Duration::from_secs(60));
    assert_eq!(told(&story.look(), &ada), []);
    let bob = story.join("bob");
    assert_eq!(told(&story.look(), &ada), told_of(true));
    story.event(&bob, EventKind::Connected);
    let looks = |disabled| {
        let settings = proto::UpdateTrackSettings {
            track_sids: vec![cam.as_str().into()],
            disabled,
            quality: 2,
            ..Default::default()
        };
        Ask::TrackSetting(settings)
    };
    story.ask(&bob, looks(true));
    story.wait(Duration::from_secs(4));
    story.ask(&bob, looks(false));
    story.wait(Duration::from_secs(60));
    assert_eq!(told(&story.look(), &ada), [], "who looks away for a moment changes nothing");
    story.ask(&bob, looks(true));
    story.wait(Duration::from_secs(5));
    assert_eq!(told(&story.look(), &ada), told_of(false));
    story.ask(&bob, looks(false));
    assert_eq!(told(&story.look(), &ada), told_of(true));
    // With the last one who looked.
    story.ask(&bob, Ask::Leave(proto::LeaveRequest::default()));
    story.wait(Duration::from_secs(5));
    assert_eq!(told(&story.look(), &ada), told_of(false));
    let ada = story.resume(&ada, "ada");
    assert_eq!(told(&story.look(), &ada), told_of(false), "she may have missed it");
}

#[test]
fn a_publisher_sends_the_layers_that_the_largest_picture_needs() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let cam = story.publish(&ada, camera("cam"));
    let (bob, cid) = (story.enter("bob"), story.enter("cid"));
    let all = |qualities: [bool; 3]| vec![(cam.as_str().to_owned(), "vp8".to_owned(), qualities.to_vec())];
    story.look();
    let sees = |quality| {
        let track_sids = vec![cam.as_str().into()];
        Ask::TrackSetting(proto::UpdateTrackSettings { track_sids, quality, ..Default::default() })
    };
    story.ask(&bob, sees(0));
    story.wait(Duration::from_secs(60));
    assert_eq!(told(&story.look(), &ada), [], "cid still sees all of it");
    story.ask(&cid, sees(1));
    assert_eq!(told(&story.look(), &ada), [], "who makes a window small may make it large again");
    story.wait(Duration::from_secs(5));
    assert_eq!(told(&story.look(), &ada), all([true, true, false]));
    story.ask(&bob, sees(2));
    assert_eq!(told(&story.look(), &ada), all([true; 3]));
    let seen = story.look();
    drop(seen);
    story.ask(&bob, sees(0));
    story.ask(&cid, sees(0));
    story.wait(Duration::from_secs(5));
    assert_eq!(told(&story.look(), &ada), all([true, false, false]));
}

#[test]
fn who_cannot_take_the_first_codec_has_the_publisher_send_the_second() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    let codec =
        |name: &str, cid: &str| proto::SimulcastCodec { codec: name.into(), cid: cid.into(), ..Default::default() };
    let request = AddTrackRequest { simulcast_codecs: vec![codec("vp9", "cam"), codec("vp8", "")], ..camera("cam") };
    let cam = story.publish(&ada, request);
    let bob = story.enter("bob");
    story.look();
    story.event(&bob, EventKind::TrackUnsupported { track: cam.clone() });
    let seen = story.look();
    let updates = seen.to(&ada).into_iter().find_map(|message| match message {
        Response::SubscribedQualityUpdate(update) => Some(update.subscribed_codecs.clone()),
        _ => None,
    });
    let codecs: Vec<_> = updates.unwrap().into_iter().map(|codec| (codec.codec, codec.qualities[0].enabled)).collect();
    assert_eq!(codecs, [("vp9".to_owned(), true), ("vp8".to_owned(), true)]);
    assert!(seen.to(&bob).is_empty(), "bob need not know");
    // She sends it as the same track.
    let second =
        AddTrackRequest { sid: cam.as_str().into(), simulcast_codecs: vec![codec("vp8", "cam2")], ..camera("cam2") };
    story.ask(&ada, Ask::AddTrack(second.clone()));
    let seen = story.look();
    assert!(seen.to(&ada).iter().any(|message| matches!(message,
        Response::TrackPublished(published) if published.cid == "cam2" && published.track.as_ref().unwrap().sid == cam.as_str())));
    assert!(
        seen.media()
            .any(|command| matches!(command, Command::Publish { track, .. } if track.backup && track.track == cam))
    );
    // What she did not announce is refused.
    let third = AddTrackRequest { simulcast_codecs: vec![codec("av1", "cam3")], ..second };
    story.ask(&ada, Ask::AddTrack(third));
    assert!(story.look().to(&ada).iter().any(|message| matches!(message, Response::RequestResponse(_))));
}

#[test]
fn sound_is_never_stopped() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.publish(&ada, microphone("mic"));
    story.wait(Duration::from_secs(60));
    assert_eq!(told(&story.look(), &ada), []);
}
