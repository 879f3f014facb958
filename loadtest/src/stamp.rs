//! What bots send: RTP payloads that look like VP8 and Opus to whoever forwards them, with a stamp at the end that says
//! which packet this is and when it left.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Marks the stamp, so that anything else (padding, a foreign publisher) is not taken for one.
const MAGIC: [u8; 4] = *b"vLT1";
/// Magic, track, sequence number, time.
pub const STAMP_BYTES: usize = 4 + 4 + 8 + 8;
/// The longest that stands before the body of a video packet: descriptor, frame tag, start code, size.
pub const VIDEO_HEAD_BYTES: usize = 4 + 3 + 7;
/// Opus, 20 ms, mono, wideband SILK (RFC 6716 section 3.1).
const OPUS_TOC: u8 = 0x48;

/// Nanoseconds since the first call in this process; all bots run in one.
pub fn now_ns() -> u64 {
    ns_of(Instant::now())
}

/// The same for a time that was taken before.
pub fn ns_of(at: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // Some room below, for times that were taken before the first call.
    let start = START.get_or_init(|| Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or_else(Instant::now));
    at.saturating_duration_since(*start).as_nanos() as u64
}

/// One packet of one track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub track: u32,
    /// Counts the packets of the track from 0; all layers of a simulcast count alike.
    pub seq: u64,
    pub sent_ns: u64,
}

impl Stamp {
    /// The stamp at the end of a payload.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let rest = payload.get(payload.len().checked_sub(STAMP_BYTES)?..)?;
        let rest = rest.strip_prefix(&MAGIC)?;
        let (track, rest) = rest.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (sent, _) = rest.split_first_chunk()?;
        Some(Self {
            track: u32::from_be_bytes(*track),
            seq: u64::from_be_bytes(*seq),
            sent_ns: u64::from_be_bytes(*sent),
        })
    }

    /// Fills up to `bytes`, with the stamp last.
    fn finish(&self, payload: &mut Vec<u8>, bytes: usize) {
        payload.resize(payload.len().max(bytes.saturating_sub(STAMP_BYTES)), 0xa5);
        payload.extend(MAGIC);
        payload.extend(self.track.to_be_bytes());
        payload.extend(self.seq.to_be_bytes());
        payload.extend(self.sent_ns.to_be_bytes());
    }

    /// One packet of Opus.
    pub fn audio(&self, bytes: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(bytes);
        payload.push(OPUS_TOC);
        self.finish(&mut payload, bytes);
        payload
    }

    /// One packet of a VP8 frame: descriptor with a 15-bit picture id (RFC 7741 section 4.2), and where the frame begins
    /// its tag, with start code and size if it is a keyframe (RFC 6386 section 9.1).
    pub fn video(&self, bytes: usize, frame: Frame, first: bool) -> Vec<u8> {
        let mut payload = Vec::with_capacity(bytes);
        payload.push(0x80 | if first { 0x10 } else { 0 });
        payload.push(0x80);
        payload.extend((0x8000 | frame.picture & 0x7fff).to_be_bytes());
        if first {
            // The tag: bit 0 is clear in a keyframe, bit 4 says that it is shown.
            payload.extend([0x10 | u8::from(!frame.key), 0x02, 0x00]);
            if frame.key {
                payload.extend([0x9d, 0x01, 0x2a]);
                payload.extend(frame.width.to_le_bytes());
                payload.extend((frame.width / 16 * 9).to_le_bytes());
            }
        }
        self.finish(&mut payload, bytes);
        payload
    }
}

/// What all packets of a video frame share.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub key: bool,
    pub picture: u16,
    pub width: u16,
}

#[cfg(test)]
mod tests {
    use str0m::rtp::Vp8Descriptor;

    use super::*;

    const STAMP: Stamp = Stamp { track: 7, seq: 1 << 40, sent_ns: 123_456_789 };

    #[test]
    fn a_stamp_comes_back_from_a_payload_of_the_asked_length() {
        for payload in [STAMP.audio(80), STAMP.video(1_100, Frame { key: true, picture: 3, width: 640 }, true)] {
            assert_eq!(Stamp::read(&payload), Some(STAMP));
        }
        assert_eq!(STAMP.audio(80).len(), 80);
        assert_eq!(STAMP.video(1_100, Frame { key: false, picture: 3, width: 640 }, false).len(), 1_100);
    }

    #[test]
    fn what_carries_no_stamp_has_none() {
        assert_eq!(Stamp::read(&[]), None);
        assert_eq!(Stamp::read(&[0; STAMP_BYTES]), None);
        assert_eq!(Stamp::read(&STAMP.audio(80)[..79]), None);
    }

    #[test]
    fn a_forwarder_sees_the_keyframe_where_it_begins_and_nowhere_else() {
        let starts = |key, first| {
            let payload = STAMP.video(400, Frame { key, picture: 0x7fff, width: 320 }, first);
            let descriptor = Vp8Descriptor::parse(&payload).expect("a descriptor");
            assert_eq!(descriptor.picture_id(), Some(0x7fff));
            descriptor.starts_keyframe(&payload)
        };
        assert!(starts(true, true));
        assert!(!starts(true, false) && !starts(false, true) && !starts(false, false));
    }
}
