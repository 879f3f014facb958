//! Participants that are shown in another room, as everybody in both notices them.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    id::RoomName,
    rooms::{
        AdminError, ParticipantChange, Rooms,
        forwarding::{Double, Opening, Showing},
    },
    sfu::{LaneEnd, MediaKind},
    worker::WorkerHandle,
};

/// Two rooms, and who is shown in the second.
struct Both {
    here: Story,
    there: Story,
}

/// What the task holds of one who is shown.
struct Shown {
    double: ParticipantSid,
    showing: Showing,
    over: CancellationToken,
}

impl Both {
    fn new() -> Self {
        let (here, mut there) = (Story::new(), Story::new());
        // Sockets have names of their own across rooms.
        there.links = 100;
        Self { here, there }
    }

    /// As the task does it, between workers 0 and 1.
    fn forward(&mut self, identity: &str) -> Result<Shown, AdminError> {
        let (double, over) = (ParticipantSid::random(), CancellationToken::new());
        let identity = identity.into();
        let showing = self.here.room.show_in(&identity, &self.there.room.sid, double.clone(), over.clone())?;
        let showing = showing.expect("not shown yet");
        let as_double = Double::new(Some(0), Some(1), over.clone());
        self.there.room.take_double(self.there.now, double.clone(), &showing, as_double, None)?;
        Ok(Shown { double, showing, over })
    }

    /// Carries over what has changed here; returns the lanes that were opened for it.
    fn carry(&mut self, shown: &Shown) -> Vec<Opening> {
        self.here.room.settle(self.here.now);
        let news = shown.showing.shown.borrow().clone();
        let lanes = self.there.room.update_double(&shown.double, &news).expect("the double is there");
        self.here.room.open_lanes(&shown.showing.source, &shown.double, lanes.clone());
        lanes
    }
}

/// The track of a double that is fed by this lane.
fn published(seen: &Seen, lane: &LaneEnd) -> (TrackSid, MediaKind, LaneEnd) {
    let found = seen.media().find_map(|command| match command {
        Command::PublishLane { track, kind, from, .. } if from.lane == lane.lane => Some((track.clone(), *kind, *from)),
        _ => None,
    });
    found.expect("the track is made")
}

#[test]
fn who_is_shown_elsewhere_is_seen_there_with_all_that_it_publishes_and_stays_here() {
    let mut both = Both::new();
    let (ada, bob, eve) = (both.here.enter("ada"), both.here.enter("bob"), both.there.enter("eve"));
    let mic = both.here.publish(&ada, microphone("mic"));
    both.here.look();
    let shown = both.forward("ada").unwrap();
    let lanes = both.carry(&shown);
    let (here, there) = (both.here.look(), both.there.look());
    assert!(here.updates(&bob).is_empty() && here.to(&ada).is_empty(), "nobody here notices");
    let [(of, to)] = &lanes[..] else { panic!("one lane for one track") };
    assert_eq!((of, to.worker), (&mic, Some(1)));
    assert!(here.media().any(|c| matches!(c, Command::OpenLane { participant, track, to: end, .. }
        if *participant == ada.sid && *track == mic && end == to)));
    let (track, kind, from) = published(&there, to);
    assert_eq!((kind, from.worker), (MediaKind::Audio, Some(0)));
    let info = *there.updates(&eve).last().unwrap();
    assert_eq!((info.identity.as_str(), info.name.as_str(), info.state()), ("ada", "ada's name", State::Active));
    assert_eq!(info.kind_details, [proto::participant_info::KindDetail::Forwarded as i32]);
    assert_eq!((info.tracks[0].sid.as_str(), info.tracks[0].mime_type.as_str()), (track.as_str(), "audio/opus"));
    assert_ne!(track, mic, "a track is of one room");
    let permission = info.permission.as_ref().unwrap();
    assert_eq!((permission.can_publish, permission.can_subscribe, permission.can_publish_data), (true, false, false));
    assert_eq!(there.subscriptions(), [(eve.sid.clone(), track, true)]);
    let room = both.there.room.info();
    assert_eq!((room.num_participants, room.num_publishers), (2, 1));
}

#[test]
fn what_changes_here_is_seen_there() {
    let mut both = Both::new();
    let (ada, eve) = (both.here.enter("ada"), both.there.enter("eve"));
    let shown = both.forward("ada").unwrap();
    both.carry(&shown);
    both.there.look();
    let cam = both.here.publish(&ada, camera("cam"));
    let lanes = both.carry(&shown);
    assert_eq!(lanes.len(), 1, "a track that comes later follows");
    let seen = both.there.look();
    let (track, kind, _) = published(&seen, &lanes[0].1);
    assert_eq!((kind, seen.subscriptions().len()), (MediaKind::Video, 1));

    both.here.ask(&ada, Ask::Mute(proto::MuteTrackRequest { sid: cam.as_str().into(), muted: true }));
    assert_eq!(both.carry(&shown), []);
    let seen = both.there.look();
    assert!(seen.updates(&eve).last().unwrap().tracks[0].muted);
    assert!(seen.media().any(|c| matches!(c, Command::Mute { track: of, muted: true, .. } if *of == track)));

    let change = ParticipantChange {
        name: "Countess".into(),
        attributes: HashMap::from([("mood".into(), "good".into())]),
        ..Default::default()
    };
    both.here.room.update_participant(both.here.now, &"ada".into(), change).unwrap();
    both.carry(&shown);
    let seen = both.there.look();
    let info = seen.updates(&eve).last().copied().unwrap();
    assert_eq!((info.name.as_str(), info.attributes["mood"].as_str()), ("Countess", "good"));
    assert_eq!(both.carry(&shown), []);
    assert!(both.there.look().updates(&eve).is_empty(), "what is no news is not told");

    both.here.event(&ada, EventKind::TrackEnded { track: cam });
    both.carry(&shown);
    let seen = both.there.look();
    assert!(seen.updates(&eve).last().unwrap().tracks.is_empty());
    assert!(seen.media().any(|c| matches!(c, Command::Unpublish { track: of, .. } if *of == track)));
}

#[test]
fn who_may_have_its_tracks_is_its_own_word_there_too() {
    let mut both = Both::new();
    let (ada, eve, fay) = (both.here.enter("ada"), both.there.enter("eve"), both.there.enter("fay"));
    both.here.publish(&ada, microphone("mic"));
    let only = |identity: &str| proto::SubscriptionPermission {
        all_participants: false,
        track_permissions: vec![proto::TrackPermission {
            participant_identity: identity.into(),
            all_tracks: true,
            ..Default::default()
        }],
    };
    both.here.ask(&ada, Ask::SubscriptionPermission(only("eve")));
    let shown = both.forward("ada").unwrap();
    both.carry(&shown);
    let gets = |seen: &Seen| -> Vec<_> { seen.subscriptions().into_iter().map(|(who, _, gets)| (who, gets)).collect() };
    let seen = both.there.look();
    let last = |who: &Client| gets(&seen).into_iter().rfind(|(of, _)| *of == who.sid).map(|(_, gets)| gets);
    assert_eq!((last(&eve), last(&fay)), (Some(true), None), "not for a moment");
    both.here.ask(&ada, Ask::SubscriptionPermission(only("fay")));
    both.carry(&shown);
    let seen = gets(&both.there.look());
    assert!(seen.contains(&(eve.sid, false)) && seen.contains(&(fay.sid, true)), "{seen:?}");
}

#[test]
fn nobody_asks_anything_of_a_double_and_no_agent_hears_of_it() {
    let mut both = Both::new();
    let ada = both.here.enter("ada");
    both.here.publish(&ada, microphone("mic"));
    both.there.agent();
    // Somebody of this name has agreed there: that was for themselves.
    both.there.room.allow_tap(&"ada".into(), true);
    let eve = both.there.enter("eve");
    both.there.look();
    let shown = both.forward("ada").unwrap();
    both.carry(&shown);
    both.there.room.allow_tap(&"ada".into(), true);
    both.there.send(&eve, DataChannel::Lossy, &user_packet("hello", 0));
    let seen = both.there.look();
    assert_eq!((seen.taps(), seen.agent_events()), ((0, 0), vec!["data"]), "only what eve says");
    assert!(seen.data().is_empty(), "there is nobody to get it");
    // An agent that comes later hears of eve alone.
    let options = AgentOptions { identity: "other".into(), name: "Other".into(), attributes: HashMap::new() };
    both.there.room.join_agent(both.there.now, options).unwrap();
    let seen = both.there.look();
    let told = seen.agent_events().into_iter().filter(|event| *event == "joined").count();
    assert_eq!((told, seen.taps()), (1, (0, 0)));

    let (room, now, ada) = (&mut both.there.room, both.there.now, Identity::from("ada"));
    let track = room.find(&ada).unwrap().info().tracks[0].sid.clone();
    assert_eq!(room.force_mute(&ada, &track, true).err(), Some(AdminError::Forwarded));
    assert_eq!(room.update_participant(now, &ada, Default::default()).err(), Some(AdminError::Forwarded));
    assert_eq!(room.update_subscriptions(&ada, &Default::default()).err(), Some(AdminError::Forwarded));
    let call = proto::PerformRpcRequest { destination_identity: "ada".into(), ..Default::default() };
    assert_eq!(room.call(now, "1", call).err(), Some(AdminError::Forwarded));
    assert_eq!(room.may_show(&ada), Err(AdminError::Forwarded), "it is shown from its own room alone");
    // A token for that room does not make its holder the double.
    let double = Client { sid: shown.double.clone(), link: LinkId(0) };
    let thief = both.there.resume(&double, "ada");
    assert_eq!(both.there.look().leave(&thief).map(|(_, action)| action), Some(Action::Reconnect));
    assert!(!shown.over.is_cancelled());
}

#[test]
fn a_video_that_is_shown_elsewhere_goes_on_though_nobody_here_looks_at_it() {
    let mut both = Both::new();
    let ada = both.here.enter("ada");
    both.here.publish(&ada, camera("cam"));
    let shown = both.forward("ada").unwrap();
    both.carry(&shown);
    let stopped = |seen: &Seen| {
        seen.to(&ada).iter().any(|m| {
            matches!(m, Response::SubscribedQualityUpdate(u)
        if u.subscribed_codecs[0].qualities.iter().all(|quality| !quality.enabled))
        })
    };
    both.here.wait(Duration::from_secs(60));
    assert!(!stopped(&both.here.look()));
    both.here.room.stop_showing(&shown.showing.source, &shown.double);
    both.here.wait(Duration::from_secs(6));
    assert!(stopped(&both.here.look()));
}

#[test]
fn it_is_gone_there_when_it_leaves_here_and_stays_here_when_it_is_removed_there() {
    let mut both = Both::new();
    let (ada, eve) = (both.here.enter("ada"), both.there.enter("eve"));
    both.here.publish(&ada, microphone("mic"));
    let shown = both.forward("ada").unwrap();
    let lanes = both.carry(&shown);
    both.there.look();
    both.there.room.expel(both.there.now, &"ada".into()).unwrap();
    assert!(shown.over.is_cancelled(), "the task hears of it");
    let seen = both.there.look();
    assert_eq!(seen.updates(&eve).last().map(|info| info.state()), Some(State::Disconnected));
    assert!(seen.media().any(|c| matches!(c, Command::Leave { participant, .. } if *participant == shown.double)));
    both.here.look();
    both.here.room.stop_showing(&shown.showing.source, &shown.double);
    let seen = both.here.look();
    assert!(seen.media().any(|c| matches!(c, Command::CloseLane { lane, .. } if *lane == lanes[0].1.lane)));
    assert_eq!(both.here.room.list().len(), 1);
    // And again, until it leaves.
    let shown = both.forward("ada").unwrap();
    both.carry(&shown);
    assert!(!shown.showing.shown.has_changed().expect("she is here"));
    both.here.ask(&ada, Ask::Leave(proto::LeaveRequest::default()));
    assert!(shown.showing.shown.has_changed().is_err(), "the task hears of it");
    both.there.room.remove_double(both.there.now, &shown.double);
    assert_eq!(both.there.look().updates(&eve).last().map(|info| info.state()), Some(State::Disconnected));
    assert_eq!(both.there.metrics.tracks.with_label_values(&["audio"]).get(), 0);
}

#[test]
fn who_cannot_be_shown_there_is_told_why() {
    let mut both = Both::new();
    both.here.enter("ada");
    let why = |both: &mut Both, identity: &str| both.forward(identity).err().expect("refused");
    assert_eq!(why(&mut both, "nobody"), AdminError::NoParticipant);
    both.there.enter("ada");
    assert_eq!(why(&mut both, "ada"), AdminError::AlreadyThere, "a person is not put out for a double");
    let (sid, sid_of) = (both.here.room.sid.clone(), ParticipantSid::random());
    both.here.enter("bob");
    both.there = Story::with(Config { max_participants_per_room: 1, ..Config::default() });
    both.there.links = 200;
    both.there.enter("eve");
    assert_eq!(why(&mut both, "bob"), AdminError::Room(RoomError::RoomFull));
    both.there = Story::new();
    for _ in 0..16 {
        let (double, over) = (ParticipantSid::random(), CancellationToken::new());
        assert!(both.here.room.show_in(&"bob".into(), &RoomSid::random(), double, over).is_ok_and(|it| it.is_some()));
    }
    // Bob was left over from the room that was full; the task would have ended that.
    assert_eq!(both.here.room.may_show(&"bob".into()), Err(AdminError::TooManyForwards));
    let over = CancellationToken::new();
    assert_eq!(both.here.room.show_in(&"bob".into(), &sid, sid_of, over).err(), Some(AdminError::TooManyForwards));
}

#[test]
fn who_comes_in_person_takes_the_place_of_the_double() {
    let mut both = Both::new();
    let (_ada, eve) = (both.here.enter("ada"), both.there.enter("eve"));
    let shown = both.forward("ada").unwrap();
    both.carry(&shown);
    both.there.look();
    let herself = both.there.enter("ada");
    assert!(shown.over.is_cancelled());
    assert_eq!(both.there.room.find(&"ada".into()).unwrap().sid, herself.sid);
    assert_eq!(both.there.room.list().len(), 2);
    drop(eve);
}

/// A server with two workers of which only the commands are seen.
struct Server {
    rooms: Rooms,
    told: Vec<mpsc::Receiver<Command>>,
}

impl Server {
    fn new() -> Self {
        let (workers, told): (Vec<_>, Vec<_>) = (0..2).map(|_| WorkerHandle::detached()).unzip();
        let workers = workers.into_iter().map(|worker| (worker, mpsc::channel(1).1)).collect();
        Self { rooms: Rooms::new(Config::default(), workers, Arc::new(Metrics::new())), told }
    }

    async fn join(&self, identity: &str, room: &str) -> crate::rooms::SignalLink {
        let claims = Claims::new(&identity.into(), Grants::participant(&room.into()));
        self.rooms.join(claims, JoinRequest::default(), Connections::One).await.expect("may join")
    }

    async fn forward(&self, identity: &str, from: &str, to: &str) -> Result<(), AdminError> {
        self.rooms.forward_participant(&from.into(), identity.into(), &to.into(), "key").await
    }

    async fn publish(&self, identity: &str, room: &str) -> TrackSid {
        let room = self.rooms.get(&room.into()).unwrap();
        let sid = ParticipantSid::from(room.participant(identity.into()).await.unwrap().sid.as_str());
        let published = room.with(move |room, now| {
            room.add_track(now, &sid, microphone("mic"));
            let track = room.get(&sid).unwrap().tracks[0].sid.clone();
            let kind = EventKind::TrackLive { track: track.clone(), mid: "0".into() };
            room.handle_event(now, &sid, kind);
            track
        });
        published.await.unwrap()
    }

    /// The next command to this worker that fits.
    async fn told<T>(&mut self, worker: usize, fits: impl Fn(&Command) -> Option<T>) -> T {
        let told = &mut self.told[worker];
        let found = async {
            loop {
                if let Some(found) = fits(&told.recv().await.expect("the rooms are there")) {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), found).await.expect("the worker is told")
    }

    /// Who is in a room, once it is as many.
    async fn people(&self, room: &str, count: usize) -> Vec<String> {
        let room = self.rooms.get(&RoomName::from(room)).expect("the room is open");
        for _ in 0..10_000 {
            let people = room.participants().await.unwrap();
            if people.len() == count {
                return people.into_iter().map(|info| info.identity).collect();
            }
            tokio::task::yield_now().await;
        }
        panic!("never {count} people");
    }
}

#[tokio::test]
async fn a_lane_is_laid_between_workers_and_taken_up_again() {
    let mut server = Server::new();
    let _ada = server.join("ada", "one").await;
    let _eve = server.join("eve", "two").await;
    let mic = server.publish("ada", "one").await;
    server.forward("ada", "one", "two").await.unwrap();
    server.forward("ada", "one", "two").await.expect("it is there already");
    let from = server.told(1, |c| if let Command::PublishLane { from, .. } = c { Some(*from) } else { None }).await;
    let open =
        |c: &Command| if let Command::OpenLane { track, to, .. } = c { Some((track.clone(), *to)) } else { None };
    let (track, to) = server.told(0, open).await;
    assert_eq!((track, from.lane), (mic, to.lane));
    assert_eq!((from.worker, to.worker), (Some(0), Some(1)));
    assert_eq!(server.people("two", 2).await, ["eve", "ada"]);

    server.rooms.get(&"two".into()).unwrap().expel("ada".into()).await.unwrap();
    let lane = server.told(0, |c| if let Command::CloseLane { lane, .. } = c { Some(*lane) } else { None }).await;
    assert_eq!(lane, to.lane);
    server.forward("ada", "one", "two").await.expect("and once more");
    assert_eq!(server.people("two", 2).await, ["eve", "ada"]);
    server.rooms.get(&"one".into()).unwrap().expel("ada".into()).await.unwrap();
    assert_eq!(server.people("two", 1).await, ["eve"]);
}

#[tokio::test]
async fn a_room_is_made_for_who_is_shown_there_and_ends_with_neither_room_waiting() {
    let server = Server::new();
    let _ada = server.join("ada", "one").await;
    assert_eq!(server.forward("ada", "none", "two").await, Err(AdminError::NoRoom));
    assert_eq!(server.forward("ada", "one", "one").await, Err(AdminError::SameRoom));
    assert_eq!(server.forward("bob", "one", "two").await, Err(AdminError::NoParticipant));
    assert!(server.rooms.get(&"two".into()).is_none(), "no room is made for nobody");
    server.forward("ada", "one", "two").await.unwrap();
    assert_eq!(server.people("two", 1).await, ["ada"]);
    assert_eq!(server.forward("ada", "two", "three").await, Err(AdminError::Forwarded));
    server.rooms.get(&"one".into()).unwrap().close().await;
    assert_eq!(server.people("two", 0).await, Vec::<String>::new());
}
