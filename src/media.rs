//! Values that cross threads between the media core and speech: Opus packets, PCM, the tap and the sink.
//!
//! The tap is bounded and lossy: forwarding never waits for listening. What it drops is counted.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// RTP clock of Opus, RFC 7587.
pub const OPUS_CLOCK_HZ: u32 = 48_000;
/// Sample rate at which speech is listened to.
pub const SPEECH_HZ: u32 = 16_000;
/// Length of every Opus packet that we make.
pub const PACKET_DURATION: Duration = Duration::from_millis(20);
/// Samples in one such packet at [`OPUS_CLOCK_HZ`].
pub const PACKET_SAMPLES: usize = 960;

/// One Opus packet as it came from a participant.
#[derive(Clone)]
pub struct AudioPacket {
    /// The stream (SSRC) that numbered it: numbers and times of two streams have nothing to do with each other.
    pub source: u32,
    /// Extended RTP sequence number: does not wrap.
    pub seq: u64,
    /// Extended RTP time in 1/48000 s: does not wrap.
    pub rtp_time: u64,
    /// When the datagram was read from the socket.
    pub arrived: Instant,
    /// One Opus packet, RFC 6716; empty or one byte in DTX.
    pub payload: Box<[u8]>,
}

/// One 20 ms Opus packet to be spoken into a room.
#[derive(Clone)]
pub struct OpusFrame {
    pub payload: Box<[u8]>,
    /// First packet after a pause: sets the RTP marker and lets RTP time jump by the pause.
    pub starts_talk_spurt: bool,
    /// If set, the worker reports when the packet left, with this number.
    pub report: Option<u64>,
}

/// Where the interviewer's voice goes. Never blocks.
pub trait AudioSink: Send + Sync {
    /// Hands one frame to the media worker. An error means that the room is gone.
    fn inject(&self, frame: OpusFrame) -> Result<(), SinkClosed>;
}

#[derive(Debug, thiserror::Error)]
#[error("the room that this voice speaks into is closed")]
pub struct SinkClosed;

/// Makes both ends of a tap that holds at most `capacity` packets.
pub fn tap(capacity: usize) -> (TapWriter, TapReader) {
    let (tx, rx) = mpsc::channel(capacity);
    (TapWriter { tx }, TapReader { rx })
}

/// The media worker's end of a tap. Dropping it ends the reader's stream.
pub struct TapWriter {
    tx: mpsc::Sender<AudioPacket>,
}

/// What became of a packet written into a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapWrite {
    Taken,
    /// Dropped: the reader is behind.
    Full,
    /// Dropped: the reader is gone, and nothing will be read any more.
    Closed,
}

impl TapWriter {
    /// Never blocks.
    pub fn write(&self, packet: AudioPacket) -> TapWrite {
        match self.tx.try_send(packet) {
            Ok(()) => TapWrite::Taken,
            Err(mpsc::error::TrySendError::Full(_)) => TapWrite::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => TapWrite::Closed,
        }
    }
}

/// The listener's end of a tap.
pub struct TapReader {
    rx: mpsc::Receiver<AudioPacket>,
}

impl TapReader {
    /// The next packet in order of arrival; `None` once the tap is closed and drained.
    pub async fn read(&mut self) -> Option<AudioPacket> {
        self.rx.recv().await
    }
}
