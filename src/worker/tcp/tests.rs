use std::{
    net::{TcpListener, TcpStream as StdTcpStream},
    sync::Arc,
};

use bytes::Bytes;
use mio::{Events, Poll};

use super::*;
use crate::worker::intake;

/// A busy machine makes a test slow, not red.
const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    connections: TcpConnections,
    now: Instant,
    /// Held once here, and once by each connection that is open.
    open: Arc<()>,
}

impl Rig {
    fn new() -> Self {
        let (poll, now) = (Poll::new().unwrap(), Instant::now());
        let connections = TcpConnections::new(now, poll.registry().try_clone().unwrap(), Token(2));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { poll, events: Events::with_capacity(64), listener, connections, now, open: Arc::new(()) }
    }

    /// A client whose connection was taken, and its path.
    fn client(&mut self, head: &[u8], heard: &mut Vec<Vec<u8>>) -> (StdTcpStream, Path) {
        let client = StdTcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (server, remote) = self.listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let local = server.local_addr().unwrap();
        let (head, guard) = (Bytes::copy_from_slice(head), Box::new(self.open.clone()));
        let newcomer = intake::Newcomer::new(TcpStream::from_std(server), remote, local, head, guard);
        self.connections.adopt(self.now, newcomer, local, |_, frame| heard.push(frame.to_vec()));
        (client, Path::tcp(local, remote))
    }

    /// One tick as the worker does it.
    fn tick(&mut self, heard: &mut Vec<Vec<u8>>) {
        self.poll.poll(&mut self.events, Some(Duration::from_millis(5))).unwrap();
        self.events.iter().for_each(|event| self.connections.handle_event(event));
        self.connections.read(self.now, |_, frame| heard.push(frame.to_vec()));
        self.connections.flush();
    }

    fn until(&mut self, heard: &mut Vec<Vec<u8>>, done: impl Fn(&Self, &[Vec<u8>]) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        while !done(self, heard) {
            assert!(Instant::now() < give_up, "out of patience");
            self.tick(heard);
        }
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(&mut out, payload);
    out
}

#[test]
fn frames_come_and_go_with_what_was_read_before_first() {
    let (mut rig, mut heard) = (Rig::new(), Vec::new());
    let (mut client, path) = rig.client(&[framed(&[1; 20]), framed(&[2; 30])[..5].to_vec()].concat(), &mut heard);
    client.write_all(&framed(&[2; 30])[5..]).unwrap();
    client.write_all(&framed(&[3])).unwrap();
    rig.until(&mut heard, |_, heard| heard.len() == 3);
    assert_eq!(heard, [vec![1; 20], vec![2; 30], vec![3]]);

    rig.connections.send(path, &[9; 700]);
    rig.connections.send(path, &[8; 1]);
    rig.connections.flush();
    let mut got = vec![0; 705];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, [framed(&[9; 700]), framed(&[8])].concat());
    assert_eq!(rig.connections.dropped, 0);
}

#[test]
fn a_client_that_does_not_read_loses_the_newest_and_holds_up_nobody() {
    let (mut rig, mut heard) = (Rig::new(), Vec::new());
    let (mut slow, slow_path) = rig.client(&[], &mut heard);
    let (mut good, good_path) = rig.client(&[], &mut heard);
    // More than every buffer of the kernel between here and the client.
    let sent = 40_000u32;
    let mut received = vec![0; 4 + LENGTH];
    const LENGTH: usize = 2;
    for n in 0..sent {
        rig.connections.send(slow_path, &[&n.to_be_bytes()[..], &[0; 1_196]].concat());
        rig.connections.flush();
        if n % 1_000 == 0 {
            rig.connections.send(good_path, &n.to_be_bytes());
            rig.connections.flush();
            good.read_exact(&mut received).unwrap();
            assert_eq!(received[LENGTH..], n.to_be_bytes(), "the other one hears at once");
        }
    }
    let dropped = rig.connections.dropped;
    println!("dropped {dropped} of {sent}");
    assert!(dropped > u64::from(sent) / 4, "{dropped}");
    let held = rig.connections.slots.iter().flatten().map(|connection| connection.outgoing.len()).max();
    assert!(held.is_some_and(|held| held <= OUTGOING_BYTES_MAX + 2));

    // When it reads again it gets whole frames, in order, and then the new ones.
    slow.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let (mut frames, mut deframer, mut buffer) = (Vec::new(), Deframer::default(), vec![0; 65_536]);
    let give_up = Instant::now() + PATIENCE;
    while frames.last() != Some(&u32::MAX) {
        assert!(Instant::now() < give_up, "out of patience");
        if let Ok(length) = slow.read(&mut buffer) {
            let read = |frame: &[u8]| frames.push(u32::from_be_bytes(frame[..4].try_into().unwrap()));
            deframer.read(&buffer[..length], read).unwrap();
        }
        rig.tick(&mut heard);
        if u64::from(sent) - dropped == frames.len() as u64 {
            rig.connections.send(slow_path, &u32::MAX.to_be_bytes());
        }
    }
    assert!(frames.is_sorted());
}

#[test]
fn who_leaves_or_talks_nonsense_is_closed_and_its_path_is_free() {
    let (mut rig, mut heard) = (Rig::new(), Vec::new());
    let (leaving, path) = rig.client(&[], &mut heard);
    let (mut nonsense, _) = rig.client(&[], &mut heard);
    drop(leaving);
    nonsense.write_all(&[0xff; 100]).unwrap();
    rig.until(&mut heard, |rig, _| rig.connections.len() == 0);
    assert_eq!(nonsense.read(&mut [0; 10]).unwrap_or(0), 0);
    rig.connections.send(path, &[1]);
    assert_eq!((rig.connections.dropped, heard.len()), (1, 0));
}

#[test]
fn a_fault_in_one_room_leaves_the_other_connections_readable() {
    let (mut rig, mut heard) = (Rig::new(), Vec::new());
    let mut clients: Vec<_> = (0..5).map(|_| rig.client(&[], &mut heard)).collect();
    rig.tick(&mut heard);
    for (n, (client, _)) in clients.iter_mut().enumerate() {
        client.write_all(&framed(&[n as u8])).unwrap();
    }
    let give_up = Instant::now() + PATIENCE;
    let mut failed = false;
    while heard.len() < 4 {
        assert!(Instant::now() < give_up, "only {heard:?}");
        rig.poll.poll(&mut rig.events, Some(Duration::from_millis(5))).unwrap();
        rig.events.iter().for_each(|event| rig.connections.handle_event(event));
        // The first frame is the faulty room's; the worker goes on after such a tick.
        let tick = std::panic::AssertUnwindSafe(|| {
            rig.connections.read(rig.now, |_, frame| {
                if !std::mem::replace(&mut failed, true) {
                    std::panic::resume_unwind(Box::new("a fault"));
                }
                heard.push(frame.to_vec());
            });
        });
        let _ = std::panic::catch_unwind(tick);
    }
    assert!(failed);
}

#[test]
fn a_connection_goes_with_its_transport_and_when_it_is_silent() {
    let (mut rig, mut heard) = (Rig::new(), Vec::new());
    let (_a, unclaimed) = rig.client(&[], &mut heard);
    let (_b, claimed) = rig.client(&[], &mut heard);
    let (mut last, begun) = ([0, 0], rig.now);
    for second in 0..70 {
        rig.now = begun + Duration::from_secs(second);
        rig.connections.sweep(rig.now, |path| path == claimed);
        for (n, path) in [unclaimed, claimed].iter().enumerate() {
            if rig.connections.by_path.contains_key(path) {
                last[n] = second;
            }
        }
    }
    assert_eq!(last, [4, 59]);
    assert_eq!(rig.connections.poll_timeout(), None);
}

/// A STUN request with this user name of ours.
fn request(ufrag: &str) -> Vec<u8> {
    let name = format!("{ufrag}:them");
    let padded = name.len().next_multiple_of(4);
    let mut request = vec![0, 1, 0, 4 + padded as u8, 0x21, 0x12, 0xa4, 0x42];
    request.extend([9; 12]);
    request.extend([0, 6, 0, name.len() as u8]);
    request.extend(name.as_bytes());
    request.resize(24 + padded, 0);
    request
}

#[test]
fn one_user_name_cannot_take_every_place_and_who_comes_anew_gets_in() {
    let (mut rig, mut heard) = (Rig::new(), Vec::new());
    let (_other, other) = rig.client(&framed(&request("bob")), &mut heard);
    let mut clients = Vec::new();
    for n in 0..CONNECTIONS_PER_UFRAG_MAX + 8 {
        rig.now += Duration::from_millis(10);
        clients.push(rig.client(&framed(&request("eve")), &mut heard));
        // The first one is in use.
        let first = clients[0].1;
        let slot = rig.connections.by_path[&first];
        rig.connections.slots[slot].as_mut().unwrap().heard_at = rig.now;
        assert!(n < CONNECTIONS_PER_UFRAG_MAX || rig.connections.len() == CONNECTIONS_PER_UFRAG_MAX + 1);
    }
    let kept: Vec<bool> = clients.iter().map(|(_, path)| rig.connections.by_path.contains_key(path)).collect();
    assert!(kept[0] && rig.connections.by_path.contains_key(&other), "who is heard of stays, and so do others");
    assert!(kept[1..9].iter().all(|kept| !kept), "the longest silent went");
    assert!(kept[9..].iter().all(|kept| *kept));
    assert_eq!(heard.len(), clients.len() + 1, "the request of each was read");
    assert_eq!(Arc::strong_count(&rig.open), 1 + CONNECTIONS_PER_UFRAG_MAX + 1, "its guard goes with each connection");
    drop(clients);
    rig.until(&mut heard, |rig, _| rig.connections.len() == 1);
    assert_eq!((rig.connections.by_ufrag.len(), Arc::strong_count(&rig.open)), (1, 2));
}
