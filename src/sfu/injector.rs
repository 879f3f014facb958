//! A voice without a transport: Opus frames in, packets with their own numbers and time out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::media::{OPUS_CLOCK_HZ, OpusFrame, PACKET_DURATION, PACKET_SAMPLES};

/// Level at which the injected voice is announced while it speaks, in -dBov: a clear voice. It is a constant since
/// nobody needs more of it than that it speaks.
pub const VOICE_DBOV: u8 = 20;
/// A silence longer than this moves RTP time even where the frame does not say that it starts a talk spurt: a voice
/// that was late by more than a jitter buffer holds.
const GAP: Duration = Duration::from_millis(200);

/// One frame as the forwarder takes it.
pub struct InjectedPacket {
    pub seq: u64,
    pub rtp_time: u64,
    pub marker: bool,
    pub payload: Arc<[u8]>,
}

#[derive(Default)]
pub struct Injector {
    next_seq: u64,
    rtp_time: u64,
    last: Option<Instant>,
}

impl Injector {
    /// Numbers the frame. RTP time runs by 20 ms a frame; over a pause it jumps by the time that passed.
    pub fn handle_frame(&mut self, now: Instant, frame: OpusFrame) -> InjectedPacket {
        let silence = self.last.map(|last| now.saturating_duration_since(last));
        let pause = silence.filter(|silence| frame.starts_talk_spurt || *silence > GAP + PACKET_DURATION);
        if let Some(silence) = silence {
            let step = pause.map_or(PACKET_SAMPLES as u64, |_| samples(silence).max(PACKET_SAMPLES as u64));
            self.rtp_time += step;
        }
        let marker = frame.starts_talk_spurt || pause.is_some() || self.last.is_none();
        self.last = Some(now);
        self.next_seq += 1;
        InjectedPacket { seq: self.next_seq, rtp_time: self.rtp_time, marker, payload: frame.payload.into() }
    }
}

fn samples(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX) / 1_000 * u64::from(OPUS_CLOCK_HZ / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(starts_talk_spurt: bool) -> OpusFrame {
        OpusFrame { payload: Box::new([1, 2, 3]), starts_talk_spurt, report: None }
    }

    #[test]
    fn a_pause_moves_time_by_the_wall_and_numbers_by_one() {
        let (mut injector, start) = (Injector::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let first = injector.handle_frame(start, frame(true));
        // Frames that come in bursts keep their 20 ms.
        let second = injector.handle_frame(at(3), frame(false));
        let third = injector.handle_frame(at(1_003), frame(true));
        assert_eq!((second.seq, second.rtp_time, second.marker), (first.seq + 1, first.rtp_time + 960, false));
        assert_eq!((third.seq, third.rtp_time, third.marker), (second.seq + 1, second.rtp_time + 48_000, true));
        assert!(first.marker);
    }
}
