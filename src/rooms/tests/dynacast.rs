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
        let settings =
            proto::UpdateTrackSettings { track_sids: vec![cam.as_str().into()], disabled, ..Default::default() };
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
fn sound_is_never_stopped() {
    let mut story = Story::new();
    let ada = story.enter("ada");
    story.publish(&ada, microphone("mic"));
    story.wait(Duration::from_secs(60));
    assert_eq!(told(&story.look(), &ada), []);
}
