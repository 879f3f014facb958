//! What goes over the simulated network, and what is written down of it.

use std::time::{Duration, Instant};

use str0m::{
    media::Mid,
    rtp::{ExtensionSerializer, ExtensionValues},
};
use viva::{id::TrackSid, sfu::Path};

/// One RTP packet as a client got it.
#[derive(Clone, Debug)]
pub struct Received {
    pub track: Option<TrackSid>,
    pub mid: Mid,
    pub ssrc: u32,
    pub seq: u64,
    pub time: u32,
    pub marker: bool,
    pub payload: Vec<u8>,
    pub at: Instant,
    pub pt: u8,
    /// Its dependency descriptor.
    pub dependency: Option<Vec<u8>>,
    /// The newest sender report of the stream: its time, and the RTP time at it.
    pub report: Option<(std::time::SystemTime, u32)>,
}

pub const DEPENDENCY_URI: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

/// A dependency descriptor as a client writes and reads it.
#[derive(Clone, Debug, Default)]
pub struct Dependency(pub Vec<u8>);

impl ExtensionSerializer for Dependency {
    fn write_to(&self, buf: &mut [u8], values: &ExtensionValues) -> usize {
        let Some(Dependency(bytes)) = values.user_values.get() else { return 0 };
        buf[..bytes.len()].copy_from_slice(bytes);
        bytes.len()
    }

    fn parse_value(&self, buf: &[u8], values: &mut ExtensionValues) -> bool {
        values.user_values.set(Dependency(buf.to_vec()));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }
}

/// What a burst cost the core.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// From the first datagram in to the last one out.
    pub media: Duration,
    /// The same for everything that receivers answered.
    pub feedback: Duration,
    pub datagrams: usize,
    /// What [`super::Sim::meter`] counted while media passed.
    pub metered: u64,
}

/// How long a datagram waits for a slow link before it is dropped.
const QUEUE: Duration = Duration::from_millis(200);

/// A slow link: one datagram after the other.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub bps: u64,
    free: Instant,
    pub dropped: usize,
    pub bytes: usize,
}

impl Link {
    pub fn new(now: Instant, bps: u64) -> Self {
        Self { bps, free: now, dropped: 0, bytes: 0 }
    }

    /// When a datagram is through; `None` where it is dropped.
    pub fn pass(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let start = self.free.max(now);
        if start - now > QUEUE {
            self.dropped += 1;
            return None;
        }
        self.bytes += bytes;
        self.free = start + Duration::from_micros(bytes as u64 * 8_000_000 / self.bps);
        Some(self.free)
    }
}

pub(super) enum To {
    Sfu,
    Client(usize),
}

pub(super) struct InFlight {
    pub at: Instant,
    pub order: u64,
    pub path: Path,
    pub to: To,
    pub bytes: Vec<u8>,
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for InFlight {}
impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A VP8 payload (RFC 7741): descriptor with a 15-bit picture id, one byte that says keyframe or not, then `body`.
pub fn vp8(keyframe: bool, first: bool, picture: u16, body: &[u8]) -> Vec<u8> {
    let mut payload = vec![0x80 | if first { 0x10 } else { 0 }, 0x80, 0x80 | (picture >> 8) as u8, picture as u8];
    payload.push(u8::from(!keyframe));
    payload.extend_from_slice(body);
    payload
}
