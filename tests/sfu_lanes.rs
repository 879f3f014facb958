//! Lanes between rooms of one worker, and of two.

mod sfu_harness;

use sfu_harness::{Sim, vp8};
use viva::{
    id::{DataTrackSid, ParticipantSid, RoomSid, TrackSid},
    media::OpusFrame,
    sfu::{Command, Connections, LaneEnd, LaneId, MediaKind},
};

const HERE: &str = "RM_test";
const THERE: &str = "RM_other";
/// Who stands for Anna there.
const DOUBLE: &str = "PA_double";

/// Anna and Ben are in one room, Carl in another one, on the same worker or on the next.
struct World {
    workers: Vec<Sim>,
    anna: usize,
    ben: usize,
    carl: usize,
    mic: TrackSid,
    cam: TrackSid,
}

impl World {
    fn new(seed: u64, workers: usize) -> Self {
        let mut sims: Vec<_> = (0..workers as u64).map(|n| Sim::new(seed + n)).collect();
        let (now, start) = (sims[0].now, sims[0].start);
        for sim in &mut sims {
            (sim.now, sim.start) = (now, start);
        }
        let mut world = Self { workers: sims, anna: 0, ben: 0, carl: 0, mic: "".into(), cam: "".into() };
        let sim = world.here();
        let (anna, ben) = (sim.join(), sim.join());
        sim.connect();
        let (mic, cam) = (sim.publish(anna, MediaKind::Audio, "mic"), sim.publish(anna, MediaKind::Video, "cam"));
        sim.run_ms(400);
        let before = sim.now;
        let sim = world.there();
        sim.now = sim.now.max(before);
        let carl = sim.join();
        sim.connect();
        let now = sim.now;
        world.workers.iter_mut().for_each(|sim| sim.now = now);
        Self { anna, ben, carl, mic, cam, ..world }
    }

    fn here(&mut self) -> &mut Sim {
        self.workers[0].room = HERE.into();
        &mut self.workers[0]
    }

    fn there(&mut self) -> &mut Sim {
        let last = self.workers.last_mut().unwrap();
        last.room = THERE.into();
        last
    }

    /// How the end here is told of the one there, and the other way round.
    fn end(&self, lane: u64, at: usize) -> LaneEnd {
        LaneEnd { lane: LaneId(lane), worker: (self.workers.len() > 1).then_some(at) }
    }

    fn double(&mut self) {
        let (room, participant) = (RoomSid::from(THERE), ParticipantSid::from(DOUBLE));
        self.there().command(Command::Join { room, participant, connections: Connections::None });
    }

    /// A lane from this track to one there, which Carl takes.
    fn lane(&mut self, lane: u64, owner: ParticipantSid, of: &TrackSid, kind: MediaKind) -> TrackSid {
        let track = TrackSid::from(format!("TR_lane{lane}"));
        let (from, to) = (self.end(lane, 0), self.end(lane, 1));
        let (room, participant) = (RoomSid::from(THERE), ParticipantSid::from(DOUBLE));
        self.there().command(Command::PublishLane { room, participant, track: track.clone(), kind, from });
        self.here().command(Command::OpenLane { room: HERE.into(), participant: owner, track: of.clone(), to });
        let (room, subscriber) = (RoomSid::from(THERE), self.there_sid());
        self.there().command(Command::Subscribe { room, subscriber, track: track.clone(), subscribed: true });
        self.run(600);
        track
    }

    fn there_sid(&mut self) -> ParticipantSid {
        let carl = self.carl;
        self.there().clients[carl].sid.clone()
    }

    fn annas_sid(&self) -> ParticipantSid {
        self.workers[0].clients[self.anna].sid.clone()
    }

    fn annas(&mut self, lane: u64, kind: MediaKind) -> TrackSid {
        let track = if kind == MediaKind::Audio { self.mic.clone() } else { self.cam.clone() };
        self.lane(lane, self.annas_sid(), &track, kind)
    }

    /// Time passes, and what is between workers is handed over.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 5 {
            self.workers.iter_mut().for_each(|sim| sim.run_ms(5));
            for at in 0..self.workers.len() {
                while let Some((to, relayed)) = self.workers[at].sfu.poll_relay() {
                    assert_ne!(to, at, "what stays on a worker does not leave it");
                    let now = self.workers[to].now;
                    self.workers[to].sfu.handle_relay(now, relayed);
                    self.workers[to].settle();
                }
            }
        }
    }

    fn talk(&mut self, from: u32) {
        let (anna, mic) = (self.anna, self.mic.clone());
        for n in from..from + 10 {
            self.workers[0].send_audio(anna, &mic, n * 960, &[n as u8; 40], -20);
            self.run(20);
        }
        self.run(40);
    }

    /// Films for a while; a keyframe is sent at once whenever one is asked for. Returns how often.
    fn film(&mut self, from: u32, layers: usize) -> usize {
        let (anna, cam) = (self.anna, self.cam.clone());
        let start = self.workers[0].clients[anna].keyframe_requests.len();
        let mut asked = start;
        for n in from..from + 60 {
            let now_asked = self.workers[0].clients[anna].keyframe_requests.len();
            let keyframe = now_asked > asked;
            asked = now_asked;
            for layer in 0..layers {
                let payload = vp8(keyframe, true, n as u16, &[layer as u8, n as u8]);
                self.workers[0].send_layer(anna, &cam, layer, n * 1_800, true, &payload, None);
            }
            self.run(20);
        }
        self.run(40);
        asked - start
    }

    fn heard(&self, worker: usize, client: usize, track: &TrackSid) -> Vec<Vec<u8>> {
        self.workers[worker].received(client, track).iter().map(|packet| packet.payload.clone()).collect()
    }

    fn carl_got(&self, track: &TrackSid) -> Vec<Vec<u8>> {
        self.heard(self.workers.len() - 1, self.carl, track)
    }

    fn mute(&mut self, sid: &str, track: &TrackSid, room: &str, muted: bool) {
        let (room, participant, track) = (RoomSid::from(room), ParticipantSid::from(sid), track.clone());
        let sim = if room.as_str() == HERE { self.here() } else { self.there() };
        sim.command(Command::Mute { room, participant, track, muted });
    }

    fn lane_packets(&self) -> (u64, u64) {
        let sum = |n: usize| self.workers.iter().map(|sim| sim.sfu.stats().lane_packets[n]).sum();
        (sum(0), sum(1))
    }
}

#[test]
fn those_in_another_room_hear_the_same_packets_once_each() {
    for workers in [1, 2] {
        let mut world = World::new(61, workers);
        world.double();
        let mic = world.annas(1, MediaKind::Audio);
        world.talk(0);
        let expected: Vec<Vec<u8>> = (0..10u8).map(|n| vec![n; 40]).collect();
        assert_eq!(world.carl_got(&mic), expected, "{workers} workers");
        assert_eq!(world.heard(0, world.ben, &world.mic), expected);
        assert_eq!(world.lane_packets(), (10, 10));
        // Who speaks is seen there, too.
        let speaks = |event: &viva::sfu::Event| {
            event.participant.as_str() == DOUBLE
                && matches!(event.kind, viva::sfu::EventKind::Speaker { active: true, .. })
        };
        world.talk(10);
        world.talk(20);
        assert!(world.there().events.iter().any(speaks));
    }
}

#[test]
fn a_voice_of_the_server_goes_down_a_lane() {
    for workers in [1, 2] {
        let mut world = World::new(63, workers);
        let (room, voice) = (RoomSid::from(HERE), TrackSid::from("TR_voice"));
        let agent = world.here().join_agent();
        let participant = agent.clone();
        world.here().command(Command::PublishInjected { room: room.clone(), participant, track: voice.clone() });
        world.double();
        let track = world.lane(3, agent, &voice, MediaKind::Audio);
        for n in 0..5 {
            let frame = OpusFrame { payload: Box::new([n; 30]), starts_talk_spurt: n == 0, report: None };
            world.here().command(Command::Inject { room: room.clone(), track: voice.clone(), frame });
            world.run(20);
        }
        world.run(40);
        assert_eq!(world.carl_got(&track), (0..5u8).map(|n| vec![n; 30]).collect::<Vec<_>>());
    }
}

#[test]
fn keyframes_are_asked_for_up_the_lane_and_each_room_chooses_its_layer() {
    for workers in [1, 2] {
        let mut world = World::new(65, workers);
        world.double();
        let cam = world.annas(2, MediaKind::Video);
        assert!(world.film(0, 1) > 0, "the publisher is asked for what those there need");
        let pictures = world.carl_got(&cam);
        assert!(pictures.len() > 30 && pictures[0][4] & 1 == 0, "{} pictures, a keyframe first", pictures.len());
        // Somebody there asks anew: it reaches the publisher, once.
        let carl = world.carl;
        let before = world.here().clients[0].keyframe_requests.len();
        world.there().request_keyframe(carl, &cam);
        world.run(100);
        assert_eq!(world.workers[0].clients[world.anna].keyframe_requests.len(), before + 1);
    }
}

#[test]
fn all_layers_of_a_camera_cross_and_a_receiver_there_sees_one_gapless_stream() {
    for workers in [1, 2] {
        let mut world = World::new(67, workers);
        let (anna, cam) = (world.anna, TrackSid::from("TR_layers"));
        let sim = world.here();
        sim.announce(anna, MediaKind::Video, &cam, "cid-layers");
        sim.add_uplink(anna, MediaKind::Video, &cam, "cid-layers", &["q", "h", "f"]);
        sim.offer(anna);
        sim.run_ms(400);
        let now = sim.now;
        world.workers.iter_mut().for_each(|sim| sim.now = now);
        world.cam = cam;
        world.double();
        let track = world.annas(4, MediaKind::Video);
        world.film(0, 3);
        assert_eq!(world.lane_packets(), (180, 180));
        let last = world.workers.len() - 1;
        let seen = world.workers[last].received(world.carl, &track);
        assert!(seen.len() > 20 && seen.last().unwrap().payload[5] == 2, "the best layer in the end");
        assert!(seen.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    }
}

#[test]
fn what_is_muted_does_not_cross_and_what_was_left_out_leaves_no_gap() {
    for workers in [1, 2] {
        let mut world = World::new(69, workers);
        world.double();
        let mic = world.annas(1, MediaKind::Audio);
        let (anna, source) = (world.annas_sid(), world.mic.clone());
        world.talk(0);
        world.mute(anna.as_str(), &source, HERE, true);
        world.mute(DOUBLE, &mic, THERE, true);
        world.talk(10);
        assert_eq!((world.carl_got(&mic).len(), world.lane_packets().0), (10, 10));
        world.mute(anna.as_str(), &source, HERE, false);
        // The rooms are told one after the other: until then nothing is heard there.
        world.talk(20);
        assert_eq!((world.carl_got(&mic).len(), world.lane_packets().0), (10, 20));
        world.mute(DOUBLE, &mic, THERE, false);
        world.talk(30);
        let last = world.workers.len() - 1;
        let seen = world.workers[last].received(world.carl, &mic);
        assert_eq!(seen.len(), 20);
        assert!(seen.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "nobody asks for what was not said");
        assert_eq!(world.heard(0, world.ben, &source).len(), 30);
    }
}

#[test]
fn a_lane_ends_with_either_track_and_the_other_goes_on() {
    for workers in [1, 2] {
        let mut world = World::new(71, workers);
        world.double();
        let mic = world.annas(1, MediaKind::Audio);
        world.talk(0);
        // There first: what still comes finds nobody, until the end here is closed.
        let (room, participant) = (RoomSid::from(THERE), ParticipantSid::from(DOUBLE));
        world.there().command(Command::Leave { room, participant });
        world.talk(10);
        assert_eq!((world.carl_got(&mic).len(), world.lane_packets()), (10, (20, 10)));
        world.here().command(Command::CloseLane { room: HERE.into(), lane: LaneId(1) });
        world.here().command(Command::CloseLane { room: HERE.into(), lane: LaneId(77) });
        world.talk(20);
        assert_eq!(world.lane_packets(), (20, 10));
        assert_eq!(world.heard(0, world.ben, &world.mic).len(), 30);
        // And here first, by leaving.
        world.double();
        world.annas(5, MediaKind::Audio);
        world.talk(30);
        assert_eq!(world.lane_packets(), (30, 20));
        let anna = world.anna;
        world.here().leave(anna);
        world.talk(40);
        assert_eq!(world.lane_packets(), (30, 20));
        // A request for keyframes that comes late finds nobody.
        let cam = world.annas(6, MediaKind::Video);
        assert_eq!(world.carl_got(&cam).len(), 0);
    }
}

#[test]
fn who_moves_takes_no_lane_along() {
    let mut world = World::new(73, 1);
    world.double();
    world.annas(1, MediaKind::Audio);
    world.talk(0);
    let participant = world.annas_sid();
    world.here().command(Command::Move { room: HERE.into(), participant, to: THERE.into() });
    world.talk(10);
    assert_eq!(world.lane_packets(), (10, 10));
}

#[test]
fn a_data_track_reaches_the_part_of_its_room_that_is_on_another_worker() {
    let (mut first, mut second) = (Sim::new(75), Sim::new(76));
    second.now = first.now;
    let anna = first.join();
    let publisher = first.clients[anna].sid.clone();
    first.connect();
    // The name that Anna has is somebody else's in another room there.
    second.room = THERE.into();
    second.join();
    second.room = HERE.into();
    let carl = second.join();
    second.connect();
    let (room, track) = (RoomSid::from(HERE), DataTrackSid::from("DTR_pose"));
    let (r, participant) = (room.clone(), publisher.clone());
    second.command(Command::Join { room: r, participant, connections: Connections::None });
    for sim in [&mut first, &mut second] {
        let (room, participant, track) = (room.clone(), publisher.clone(), track.clone());
        sim.command(Command::PublishData { room, participant, track, handle: 7 });
    }
    let (r, subscriber) = (room.clone(), second.clients[carl].sid.clone());
    second.command(Command::SubscribeData { room: r, subscriber, track: track.clone(), handle: Some(9) });
    let mut push = |shared: bool, text: &[u8]| {
        let (room, participant, track) = (room.clone(), publisher.clone(), track.clone());
        first.command(Command::ShareData { room, participant, track, worker: 1, shared });
        let packet = |handle| [&[0x18, 0, 0, handle, 0, 1, 0, 1, 0, 0, 0, 0], text].concat();
        assert!(first.send_track_data(anna, &packet(7)));
        first.run_ms(100);
        while let Some((worker, relayed)) = first.sfu.poll_relay() {
            assert_eq!(worker, 1);
            second.sfu.handle_relay(second.now, relayed);
            second.settle();
        }
        second.run_ms(100);
        (second.clients[carl].track_data.clone(), packet(9))
    };
    let (got, expected) = push(true, b"here");
    assert_eq!(got, [expected]);
    assert_eq!(push(false, b"there").0.len(), 1, "nobody takes it there any more");
}
