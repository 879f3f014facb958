//! The TCP connections of one worker's clients. Each carries what UDP would: datagrams in frames. Nobody waits for a slow
//! one: what does not fit its buffer is dropped, as UDP would drop it.

use std::{
    collections::{HashMap, VecDeque},
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, net::TcpStream};

use super::{
    framing::{Deframer, write_frame},
    intake::{Guard, Newcomer},
};
use crate::sfu::Path;

/// Connections of one worker; a client opens one for each candidate, and keeps one or two.
const CONNECTIONS_MAX: usize = 4_096;
/// Connections by the same user name: a client opens one from each of its addresses to each of ours. Beyond, the one that
/// was silent for longest is closed: who comes anew has lost the old ones.
const CONNECTIONS_PER_UFRAG_MAX: usize = 32;
/// What may wait for a client that does not read: a keyframe and half a second more at 1 Mbit/s. Beyond, the newest is
/// dropped.
const OUTGOING_BYTES_MAX: usize = 128 * 1024;
/// One read.
const READ_BYTES: usize = 64 * 1024;
/// Reads of one connection per tick, so that a flood on one holds up neither the others nor timers.
const READS_PER_TICK_MAX: usize = 4;
/// How often connections are looked at that may have to go.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long one is kept that no transport claims: before its first request was checked, and after its transport ended.
const UNCLAIMED_MAX: Duration = Duration::from_secs(5);
/// How long one is kept that says nothing. Clients check paths that they hold in reserve every 25 s or sooner.
const SILENT_MAX: Duration = Duration::from_secs(60);

struct Connection {
    stream: TcpStream,
    path: Path,
    /// Our user name that it was opened by.
    ufrag: Box<str>,
    _guard: Guard,
    incoming: Deframer,
    outgoing: Vec<u8>,
    /// It is in the list of those to be flushed.
    dirty: bool,
    /// It is in the list of those that may have more to read.
    readable: bool,
    heard_at: Instant,
    /// When a transport was last seen to claim it.
    claimed_at: Instant,
}

/// All of one worker.
pub(super) struct TcpConnections {
    registry: Registry,
    /// By token, from the first one on.
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    by_path: HashMap<Path, usize>,
    by_ufrag: HashMap<Box<str>, Vec<usize>>,
    first_token: usize,
    readable: VecDeque<usize>,
    dirty: Vec<usize>,
    buffer: Vec<u8>,
    sweep_at: Instant,
    /// Frames for which there was no room, or no connection any more.
    pub dropped: u64,
}

impl TcpConnections {
    pub fn new(now: Instant, registry: Registry, first_token: Token) -> Self {
        Self {
            registry,
            slots: Vec::new(),
            free: Vec::new(),
            by_path: HashMap::new(),
            by_ufrag: HashMap::new(),
            first_token: first_token.0,
            readable: VecDeque::new(),
            dirty: Vec::new(),
            buffer: vec![0; READ_BYTES],
            sweep_at: now,
            dropped: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    pub fn is_full(&self) -> bool {
        self.len() >= CONNECTIONS_MAX
    }

    /// There was more to read than the last tick took.
    pub fn has_more(&self) -> bool {
        !self.readable.is_empty()
    }

    /// When [`Self::sweep`] is due; `None` where there is nothing to sweep.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.len() > 0).then_some(self.sweep_at)
    }

    /// Takes a connection; `candidate` is what the client was told to open it to. What was read of it goes to `each`.
    pub fn adopt(
        &mut self,
        now: Instant,
        newcomer: Newcomer,
        candidate: SocketAddr,
        mut each: impl FnMut(Path, &[u8]),
    ) {
        let path = Path::tcp(candidate, newcomer.remote);
        // The client opened it anew: of the old one it knows nothing.
        if let Some(old) = self.by_path.get(&path).copied() {
            self.close(old);
        }
        let ufrag: Box<str> = newcomer.request().map(|request| request.ufrag).unwrap_or_default().into();
        self.make_way(&ufrag);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let mut connection = Connection {
            stream: newcomer.stream,
            path,
            ufrag: ufrag.clone(),
            _guard: newcomer.guard,
            incoming: Deframer::default(),
            outgoing: Vec::new(),
            dirty: false,
            readable: true,
            heard_at: now,
            claimed_at: now,
        };
        let token = Token(self.first_token + slot);
        let registered =
            self.registry.register(&mut connection.stream, token, Interest::READABLE.add(Interest::WRITABLE));
        let head = connection.incoming.read(&newcomer.head, |frame| each(path, frame));
        if registered.is_err() || head.is_err() {
            self.free.push(slot);
            return;
        }
        self.slots[slot] = Some(connection);
        self.by_path.insert(path, slot);
        self.by_ufrag.entry(ufrag).or_default().push(slot);
        self.readable.push_back(slot);
    }

    /// Closes one connection of this user name where there are as many as may be.
    fn make_way(&mut self, ufrag: &str) {
        let Some(its) = self.by_ufrag.get(ufrag).filter(|its| its.len() >= CONNECTIONS_PER_UFRAG_MAX) else { return };
        let heard_at = |slot: &usize| self.slots.get(*slot)?.as_ref().map(|connection| connection.heard_at);
        if let Some(silent) = its.iter().copied().min_by_key(heard_at) {
            self.close(silent);
        }
    }

    /// The kernel has something for, or room in, the connection with this token.
    pub fn handle_event(&mut self, event: &mio::event::Event) {
        let Some(slot) = event.token().0.checked_sub(self.first_token) else { return };
        let Some(Some(connection)) = self.slots.get_mut(slot) else { return };
        if event.is_readable() && !std::mem::replace(&mut connection.readable, true) {
            self.readable.push_back(slot);
        }
        if event.is_writable() && !connection.outgoing.is_empty() && !std::mem::replace(&mut connection.dirty, true) {
            self.dirty.push(slot);
        }
    }

    /// Reads from all that have something, each within bounds.
    pub fn read(&mut self, now: Instant, mut each: impl FnMut(Path, &[u8])) {
        for _ in 0..self.readable.len() {
            // One by one: where `each` fails in somebody's room, the others' turn is still to come.
            let Some(slot) = self.readable.pop_front() else { return };
            let Some(Some(connection)) = self.slots.get_mut(slot) else { continue };
            match connection.read(now, &mut self.buffer, &mut each) {
                Reading::Done => connection.readable = false,
                Reading::More => self.readable.push_back(slot),
                Reading::Ended => self.close(slot),
            }
        }
    }

    /// Puts a datagram into its connection's buffer, or drops it.
    pub fn send(&mut self, path: Path, payload: &[u8]) {
        let connection = self.by_path.get(&path).map(|slot| (*slot, self.slots.get_mut(*slot)));
        let Some((slot, Some(Some(connection)))) = connection else {
            self.dropped += 1;
            return;
        };
        if connection.outgoing.len() + payload.len() > OUTGOING_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        write_frame(&mut connection.outgoing, payload);
        if !std::mem::replace(&mut connection.dirty, true) {
            self.dirty.push(slot);
        }
    }

    /// Gives the kernel what it takes, one call for each connection.
    pub fn flush(&mut self) {
        for slot in std::mem::take(&mut self.dirty) {
            let Some(Some(connection)) = self.slots.get_mut(slot) else { continue };
            connection.dirty = false;
            if !connection.flush() {
                self.close(slot);
            }
        }
    }

    /// Closes those that no transport claims, and those that went silent.
    pub fn sweep(&mut self, now: Instant, is_claimed: impl Fn(Path) -> bool) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + SWEEP_INTERVAL;
        for slot in 0..self.slots.len() {
            let Some(connection) = &mut self.slots[slot] else { continue };
            if is_claimed(connection.path) {
                connection.claimed_at = now;
            }
            let since = |at| now.saturating_duration_since(at);
            if since(connection.claimed_at) >= UNCLAIMED_MAX || since(connection.heard_at) >= SILENT_MAX {
                self.close(slot);
            }
        }
    }

    fn close(&mut self, slot: usize) {
        let Some(mut connection) = self.slots[slot].take() else { return };
        let _ = self.registry.deregister(&mut connection.stream);
        self.by_path.remove(&connection.path);
        if let Some(its) = self.by_ufrag.get_mut(&connection.ufrag) {
            its.retain(|other| *other != slot);
            if its.is_empty() {
                self.by_ufrag.remove(&connection.ufrag);
            }
        }
        // Lists may still name the slot: whoever gets it next is at most looked at once in vain.
        self.free.push(slot);
    }
}

enum Reading {
    /// There is no more for now.
    Done,
    More,
    Ended,
}

impl Connection {
    fn read(&mut self, now: Instant, buffer: &mut [u8], each: &mut impl FnMut(Path, &[u8])) -> Reading {
        for _ in 0..READS_PER_TICK_MAX {
            match self.stream.read(buffer) {
                Ok(0) => return Reading::Ended,
                Ok(length) => {
                    self.heard_at = now;
                    if self.incoming.read(&buffer[..length], |frame| each(self.path, frame)).is_err() {
                        return Reading::Ended;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Reading::Done,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Reading::Ended,
            }
        }
        Reading::More
    }

    /// False where the connection is broken.
    fn flush(&mut self) -> bool {
        let mut sent = 0;
        let alive = loop {
            if sent == self.outgoing.len() {
                break true;
            }
            match self.stream.write(&self.outgoing[sent..]) {
                Ok(0) => break false,
                Ok(length) => sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        self.outgoing.drain(..sent);
        alive
    }
}

#[cfg(test)]
mod tests;
