//! A room for fuzzers: whatever two clients say in it, it answers within its bounds.

use std::sync::{Arc, LazyLock};

use livekit_protocol as proto;

use super::{
    Config, LinkId, Now,
    room::{Output, Room},
};
use crate::{
    auth::{Claims, Grants},
    id::{ParticipantSid, RoomSid},
    sfu::{Connections, DataChannel, EventKind},
    telemetry::Metrics,
};

/// What one message may make the room say: a few words to each of those who are in it, and commands for as many tracks
/// as one message may name.
const OUTPUTS_MAX: usize = 4096;

/// A room of two, both connected.
fn room() -> (Room, Now, [(LinkId, ParticipantSid); 2]) {
    static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(|| Arc::new(Metrics::new()));
    let now = Now { at: std::time::Instant::now(), unix_ms: 1_800_000_000_000 };
    let mut room = Room::new("room".into(), RoomSid::from("RM_1"), Config::default(), METRICS.clone(), now);
    let mut enter = |n: u64, identity: &str| {
        let claims = Claims::new(&identity.into(), Grants::participant(&"room".into()));
        let sid = room.join(now, LinkId(n), claims, proto::JoinRequest::default(), Connections::One);
        let sid = sid.unwrap_or_else(|_| ParticipantSid::from(""));
        room.handle_event(now, &sid, EventKind::Connected);
        room.handle_event(now, &sid, EventKind::DataChannelOpen { channel: DataChannel::Reliable });
        (LinkId(n), sid)
    };
    let people = [enter(1, "ada"), enter(2, "bob")];
    drain(&mut room);
    (room, now, people)
}

fn drain(room: &mut Room) {
    let mut outputs = 0;
    while let Some(output) = room.poll_output() {
        outputs += 1;
        assert!(outputs <= OUTPUTS_MAX, "one message made the room say too much");
        drop::<Output>(output);
    }
}

/// A client's messages, one after the other.
pub fn requests(requests: impl Iterator<Item = proto::SignalRequest>) {
    let (mut room, now, people) = room();
    for request in requests.take(64) {
        room.handle_request(now, people[0].0, request);
        drain(&mut room);
        room.handle_timeout(now);
        drain(&mut room);
    }
}

/// A third client that joins with this request, or resumes.
pub fn join(request: proto::JoinRequest) {
    let (mut room, now, _) = room();
    let claims = Claims::new(&"eve".into(), Grants::participant(&"room".into()));
    if request.reconnect {
        room.resume(now, LinkId(3), claims, request);
    } else {
        let _ = room.join(now, LinkId(3), claims, request, Connections::One);
    }
    drain(&mut room);
}

/// A data packet of a client's.
pub fn data_packet(bytes: &[u8]) {
    let (mut room, now, people) = room();
    for channel in [DataChannel::Reliable, DataChannel::Lossy] {
        room.data_from_client(now, &people[0].1, channel, &bytes.to_vec().into());
        drain(&mut room);
    }
}
