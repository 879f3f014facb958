//! What each receiver gets follows what its network carries.

mod sfu_harness;

use sfu_harness::{Link, Received, Sim, vp8};
use viva::{
    id::TrackSid,
    sfu::{Command, EventKind, MediaKind, View},
};

/// What the layers take, kbit/s, and their pictures: 25 a second.
const KBPS: [u64; 3] = [150, 500, 1_500];
const FPS: u64 = 25;

struct Call {
    sim: Sim,
    anna: usize,
    ben: usize,
    camera: TrackSid,
    mic: TrackSid,
    n: u32,
    asked: usize,
    due: Option<u32>,
}

impl Call {
    /// Anna publishes sound and three layers; Ben receives.
    fn new(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        let (anna, ben) = (sim.join(), sim.join());
        sim.connect();
        let camera = TrackSid::from("TR_camera");
        sim.announce(anna, MediaKind::Video, &camera, "cid");
        sim.add_uplink(anna, MediaKind::Video, &camera, "cid", &["q", "h", "f"]);
        let mic = sim.publish(anna, MediaKind::Audio, "mic");
        sim.run_ms(400);
        Self { sim, anna, ben, camera, mic, n: 0, asked: 0, due: Some(0) }
    }

    /// Sends sound and picture for this long.
    fn run(&mut self, ms: u64) {
        let Self { sim, anna, camera, mic, .. } = self;
        for _ in 0..ms * FPS / 1_000 {
            let asked = sim.clients[*anna].keyframe_requests.len();
            if asked > std::mem::replace(&mut self.asked, asked) {
                self.due = Some(self.n + 1);
            }
            let keyframe = self.due.take_if(|at| *at <= self.n).is_some();
            for (layer, kbps) in KBPS.iter().enumerate() {
                let size = (kbps * 125 / FPS) as usize * if keyframe { 3 } else { 1 };
                let parts = size.div_ceil(1_100);
                for part in 0..parts {
                    let body = [vec![layer as u8], vec![0; size / parts]].concat();
                    let payload = vp8(keyframe, part == 0, self.n as u16, &body);
                    sim.send_layer(*anna, camera, layer, self.n * 3_600, part == parts - 1, &payload, None);
                }
            }
            for half in 0..2 {
                sim.send_audio(*anna, mic, (self.n * 2 + half) * 960, &[0; 80], -20);
                sim.run_ms(1_000 / FPS / 2);
            }
            self.n += 1;
        }
    }

    fn link(&mut self, kbps: u64) {
        let link = Link::new(self.sim.now, kbps * 1_000);
        self.sim.links.insert(self.ben, link);
    }

    /// Packets of each layer that reached Ben since it was asked last.
    fn layers(&mut self) -> [usize; 3] {
        let mut counts = [0; 3];
        for packet in self.sim.received(self.ben, &self.camera) {
            counts[usize::from(packet.payload[5])] += 1;
        }
        let heard: Vec<Received> = std::mem::take(&mut self.sim.clients[self.ben].received);
        drop(heard);
        counts
    }

    fn states(&self) -> Vec<bool> {
        let paused =
            |kind: &EventKind| if let EventKind::StreamState { paused, .. } = kind { Some(*paused) } else { None };
        self.sim.events.iter().filter_map(|event| paused(&event.kind)).collect()
    }
}

#[test]
fn the_layer_follows_the_network_down_and_up_again() {
    let mut call = Call::new(1);
    call.link(4_000);
    call.run(6_000);
    call.layers();
    call.run(2_000);
    let [low, middle, high] = call.layers();
    assert!(high > 0 && low == 0 && middle == 0, "{low} {middle} {high}");
    // To 400 kbit/s: the estimator needs a few seconds, of which the first loses packets.
    call.link(400);
    call.run(4_000);
    call.layers();
    call.sim.links.get_mut(&call.ben).unwrap().dropped = 0;
    let before = call.sim.links[&call.ben].bytes;
    call.run(4_000);
    let link = call.sim.links[&call.ben];
    let [low, middle, high] = call.layers();
    assert!(low > 60 && middle < 20 && high == 0, "{low} {middle} {high}");
    assert!(link.dropped <= 20, "{} dropped", link.dropped);
    let kbps = (link.bytes - before) * 8 / 4_000;
    assert!(kbps <= 400, "{kbps} kbit/s");
    // And back up within eight seconds.
    call.link(4_000);
    call.run(8_000);
    call.layers();
    call.run(1_000);
    let [_, _, high] = call.layers();
    assert!(high > 20, "{high}");
    assert!(call.states().is_empty(), "it was never paused");
}

#[test]
fn sound_goes_on_where_no_picture_fits_and_that_is_told() {
    let mut call = Call::new(2);
    call.link(4_000);
    call.run(3_000);
    call.link(110);
    call.run(6_000);
    call.sim.clients[call.ben].received.clear();
    call.run(4_000);
    let heard = call.sim.received(call.ben, &call.mic).len();
    assert!(heard >= 190, "{heard} of 200 packets of sound");
    // It may be tried again now and then.
    let [low, middle, high] = call.layers();
    assert!(low <= 40 && middle == 0 && high == 0, "{low} {middle} {high}");
    assert_eq!(call.states().first(), Some(&true));
    call.link(4_000);
    call.run(10_000);
    assert_eq!(call.states().last(), Some(&false));
    call.layers();
    call.run(1_000);
    assert!(call.layers()[2] > 0, "the best layer is back");
}

#[test]
fn a_receiver_may_be_made_to_behave_as_if_its_network_were_slow() {
    let mut call = Call::new(3);
    call.run(4_000);
    let (room, participant) = (call.sim.room.clone(), call.sim.clients[call.ben].sid.clone());
    call.sim.command(Command::CapBandwidth {
        room: room.clone(),
        participant: participant.clone(),
        bps: Some(800_000),
    });
    call.run(1_000);
    call.layers();
    call.run(1_000);
    let [low, middle, high] = call.layers();
    assert!(middle > 0 && low == 0 && high == 0, "{low} {middle} {high}");
    call.sim.command(Command::CapBandwidth { room, participant, bps: None });
    call.run(3_000);
    call.layers();
    call.run(1_000);
    assert!(call.layers()[2] > 0);
}

#[test]
fn who_looks_away_while_nothing_fits_and_looks_again_later_sees_it_again() {
    let mut call = Call::new(5);
    call.run(2_000);
    let (room, participant) = (call.sim.room.clone(), call.sim.clients[call.ben].sid.clone());
    let cap = |call: &mut Call, bps| {
        call.sim.command(Command::CapBandwidth { room: room.clone(), participant: participant.clone(), bps });
    };
    cap(&mut call, Some(30_000));
    call.run(1_000);
    assert_eq!(call.states(), [true]);
    let (ben, camera) = (call.ben, call.camera.clone());
    call.sim.view(ben, &camera, View { paused: true, ..View::default() });
    call.run(3_000);
    cap(&mut call, None);
    call.run(1_000);
    call.layers();
    call.sim.view(ben, &camera, View::default());
    call.run(2_000);
    let seen: usize = call.layers().iter().sum();
    assert!(seen > 20, "{seen}");
}

#[test]
fn more_than_the_first_guess_is_found_where_the_network_carries_it() {
    let mut call = Call::new(4);
    // Four more cameras of the best layer: far above what is taken for granted at the start.
    let extra: Vec<TrackSid> =
        (0..4).map(|n| call.sim.publish(call.anna, MediaKind::Video, &format!("extra{n}"))).collect();
    call.sim.run_ms(400);
    for n in 0..400u32 {
        for track in &extra {
            for part in 0..6u8 {
                let payload = vp8(n % 100 == 0, part == 0, n as u16, &[0; 1_000]);
                call.sim.send(call.anna, track, n * 3_600, part == 5, &payload);
            }
        }
        call.sim.run_ms(40);
    }
    let seen = call.sim.received(call.ben, &extra[3]);
    let last = &seen[seen.len() - 6 * 25..];
    assert!(last.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    let late = last.iter().map(|packet| packet.at).max().unwrap();
    assert!(call.sim.now - late < std::time::Duration::from_millis(80), "nothing waits in the pacer");
    assert!(call.states().iter().filter(|paused| **paused).count() == call.states().iter().filter(|it| !**it).count());
}
