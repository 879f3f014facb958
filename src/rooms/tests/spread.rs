//! A room on several media workers: what each of them is told.

use super::*;
use crate::{
    id::DataTrackSid,
    rooms::spread::Spread,
    sfu::{LaneEnd, LaneId, MediaKind, OpusOptions, PendingTrack},
};

/// A room of which two may be on a worker, and what its workers were told since the last look.
struct Told(Spread);

fn room() -> RoomSid {
    "RM_large".into()
}

impl Told {
    fn new(members_max: usize) -> Self {
        Self(Spread::new(room(), 1, members_max))
    }

    /// Three workers, of which the last has the least to do and the first has stopped.
    fn tell(&mut self, command: Command) -> Vec<String> {
        self.0.route(command, || vec![None, Some(9), Some(5), Some(3)]);
        self.look()
    }

    fn look(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.0.poll()).map(|(worker, command)| format!("{worker}: {}", name(&command))).collect()
    }

    fn join(&mut self, who: &str) -> Vec<String> {
        let (participant, connections) = (who.into(), Connections::One);
        self.tell(Command::Join { room: room(), participant, connections })
    }

    fn leave(&mut self, who: &str) -> Vec<String> {
        self.tell(Command::Leave { room: room(), participant: who.into() })
    }

    fn publish(&mut self, who: &str, track: &str) -> Vec<String> {
        let (codec, backup) = (String::new(), false);
        let track = PendingTrack {
            track: track.into(),
            kind: MediaKind::Video,
            cids: Vec::new(),
            codec,
            opus: OpusOptions::default(),
            backup,
            screen: false,
        };
        self.tell(Command::Publish { room: room(), participant: who.into(), track })
    }

    fn take(&mut self, who: &str, track: &str, subscribed: bool) -> Vec<String> {
        self.tell(Command::Subscribe { room: room(), subscriber: who.into(), track: track.into(), subscribed })
    }

    fn mute(&mut self, who: &str, track: &str, muted: bool) -> Vec<String> {
        self.tell(Command::Mute { room: room(), participant: who.into(), track: track.into(), muted })
    }

    /// Ada and Bob are on worker 1, Cyd and Dan on worker 3.
    fn with_four() -> Self {
        let mut told = Self::new(2);
        assert_eq!(told.join("ada"), ["1: join ada"]);
        assert_eq!(told.join("bob"), ["1: join bob"]);
        assert_eq!(told.join("cyd"), ["3: join cyd"]);
        assert_eq!(told.join("dan"), ["3: join dan"], "next to Cyd, as long as there is room");
        told
    }
}

fn name(command: &Command) -> String {
    let to = |end: &LaneEnd| format!("with {}", end.worker.expect("another worker"));
    match command {
        Command::Join { participant, connections: Connections::None, .. } => format!("stand in for {participant}"),
        Command::Join { participant, .. } => format!("join {participant}"),
        Command::Leave { participant, .. } => format!("leave {participant}"),
        Command::Publish { track, .. } => format!("publish {}", track.track),
        Command::PublishLane { track, participant, from, .. } => format!("end {track} of {participant} {}", to(from)),
        Command::OpenLane { track, to: end, .. } => format!("begin {track} {}", to(end)),
        Command::CloseLane { .. } => "close".to_owned(),
        Command::Unpublish { track, .. } => format!("unpublish {track}"),
        Command::Subscribe { subscriber, subscribed: true, .. } => format!("{subscriber} takes"),
        Command::Subscribe { subscriber, .. } => format!("{subscriber} drops"),
        Command::Mute { track, muted, .. } => format!("mute {track} {muted}"),
        Command::SendData { to, .. } => format!("data to {}", to.len()),
        Command::PublishData { participant, handle, .. } => format!("data track {handle} of {participant}"),
        Command::UnpublishData { .. } => "no data track".to_owned(),
        Command::SubscribeData { subscriber, .. } => format!("{subscriber} data"),
        Command::ShareData { worker, shared, .. } => format!("share with {worker} {shared}"),
        Command::Close { .. } => "over".to_owned(),
        _ => "else".to_owned(),
    }
}

#[test]
fn a_room_without_a_bound_or_below_it_is_on_one_worker() {
    for mut told in [Told::new(0), Told::new(3)] {
        for who in ["ada", "bob", "cyd"] {
            assert_eq!(told.join(who), [format!("1: join {who}")]);
        }
        assert_eq!(told.publish("ada", "cam"), ["1: publish cam"]);
        assert_eq!(told.take("bob", "cam", true), ["1: bob takes"]);
        assert_eq!(told.mute("ada", "cam", true), ["1: mute cam true"]);
        assert_eq!(told.leave("ada"), ["1: leave ada"]);
    }
}

#[test]
fn a_track_crosses_once_for_all_who_take_it_there() {
    let mut told = Told::with_four();
    assert_eq!(told.publish("ada", "cam"), ["1: publish cam"]);
    assert_eq!(told.take("bob", "cam", true), ["1: bob takes"]);
    let laid = ["3: stand in for ada", "3: end cam of ada with 1", "1: begin cam with 3", "3: cyd takes"];
    assert_eq!(told.take("cyd", "cam", true), laid);
    assert_eq!(told.take("dan", "cam", true), ["3: dan takes"]);
    assert_eq!(told.mute("ada", "cam", true), ["3: mute cam true", "1: mute cam true"]);
    assert_eq!(told.take("cyd", "cam", false), ["3: cyd drops"]);
    assert_eq!(told.take("dan", "cam", false), ["3: dan drops", "3: unpublish cam", "1: close"]);
    let again = ["3: end cam of ada with 1", "3: mute cam true", "1: begin cam with 3", "3: dan takes"];
    assert_eq!(told.take("dan", "cam", true), again, "it is muted still");
    // The other way, and by leaving.
    told.publish("dan", "mic");
    let laid = ["1: stand in for dan", "1: end mic of dan with 3", "3: begin mic with 1", "1: bob takes"];
    assert_eq!(told.take("bob", "mic", true), laid);
    assert_eq!(told.leave("dan"), ["3: leave dan", "1: leave dan", "3: unpublish cam", "1: close"]);
    assert_eq!(told.leave("ada"), ["1: leave ada", "3: leave ada"]);
}

#[test]
fn when_the_last_one_of_a_worker_leaves_nobody_stands_in_there() {
    let mut told = Told::with_four();
    told.publish("ada", "cam");
    told.take("cyd", "cam", true);
    told.leave("dan");
    assert_eq!(told.leave("cyd"), ["3: leave cyd", "3: unpublish cam", "1: close", "3: leave ada"]);
    assert_eq!(told.tell(Command::Close { room: room() }), ["1: over"]);
    assert_eq!(told.join("cyd"), ["3: join cyd"], "a new one begins there anew");
    assert_eq!(told.take("cyd", "cam", true)[0], "3: stand in for ada");
}

#[test]
fn data_goes_to_where_its_receivers_are_and_data_tracks_cross_once() {
    let mut told = Told::with_four();
    let send = |to: &[&str]| Command::SendData {
        room: room(),
        to: to.iter().map(|who| (*who).into()).collect(),
        channel: DataChannel::Lossy,
        payload: Bytes::new(),
    };
    assert_eq!(told.tell(send(&["ada", "bob"])), ["1: data to 2"]);
    assert_eq!(told.tell(send(&["ada", "cyd", "dan"])), ["1: data to 1", "3: data to 2"]);
    let track = || DataTrackSid::from("DTR_pose");
    let publish = Command::PublishData { room: room(), participant: "cyd".into(), track: track(), handle: 7 };
    assert_eq!(told.tell(publish), ["3: data track 7 of cyd"]);
    let take =
        |who: &str, handle| Command::SubscribeData { room: room(), subscriber: who.into(), track: track(), handle };
    let laid = ["1: stand in for cyd", "1: data track 7 of cyd", "3: share with 1 true", "1: ada data"];
    assert_eq!(told.tell(take("ada", Some(1))), laid);
    assert_eq!(told.tell(take("bob", Some(1))), ["1: bob data"]);
    assert_eq!(told.tell(take("dan", Some(1))), ["3: dan data"]);
    assert_eq!(told.leave("bob"), ["1: leave bob"]);
    assert_eq!(told.tell(take("ada", None)), ["1: ada data", "1: no data track", "3: share with 1 false"]);
    told.tell(take("ada", Some(2)));
    let end = Command::UnpublishData { room: room(), participant: "cyd".into(), track: track() };
    assert_eq!(told.tell(end), ["1: no data track", "3: no data track"]);
}

#[test]
fn who_stands_in_for_somebody_speaks_for_nobody() {
    let mut told = Told::with_four();
    told.publish("ada", "cam");
    told.take("cyd", "cam", true);
    let (ada, speaks) = (ParticipantSid::from("ada"), EventKind::Speaker { level: 1.0, active: true });
    assert!(told.0.hears(&ada, 1, &speaks) && !told.0.hears(&ada, 3, &speaks));
    assert!(told.0.hears(&ada, 3, &EventKind::TrackSubscribed { track: "cam".into() }));
    assert!(told.0.hears(&"PA_gone".into(), 3, &EventKind::Connected));
    // The room fails on one worker: those there come anew, the others stay.
    let closed = EventKind::Closed { reason: "failed".into() };
    assert!(!told.0.hears(&ada, 3, &closed) && told.0.hears(&"dan".into(), 3, &closed));
    assert_eq!(told.look(), ["3: unpublish cam", "1: close"]);
    let laid = ["3: stand in for ada", "3: end cam of ada with 1", "1: begin cam with 3", "3: dan takes"];
    assert_eq!(told.take("dan", "cam", true), laid);
    // A client takes its track back.
    assert!(told.0.hears(&ada, 1, &EventKind::TrackEnded { track: "cam".into() }));
    assert_eq!(told.look(), ["3: unpublish cam"]);
}

#[test]
fn where_all_workers_are_full_the_next_one_comes_to_where_fewest_are() {
    let mut told = Told::new(1);
    let joined: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().flat_map(|who| told.join(who)).collect();
    assert_eq!(joined[..3], ["1: join a", "3: join b", "2: join c"]);
    told.leave("b");
    assert_eq!(told.join("f").len(), 1);
    assert_eq!(told.0.counts(4).iter().sum::<usize>(), 5);
    assert_eq!(told.0.counts(4)[0], 0, "none on a worker that has stopped");
    // Those without connections are where the room is.
    let agent = Command::Join { room: room(), participant: "viva".into(), connections: Connections::None };
    assert_eq!(told.tell(agent), ["1: stand in for viva"]);
    assert_eq!(told.tell(Command::CloseLane { room: room(), lane: LaneId(0) }).len(), 3, "whose it was is not kept");
}
