//! How fast one client may talk. Pure: time is an argument.
//!
//! A client that talks too fast is read more slowly, so that its messages wait in its own buffers; one that keeps on so
//! is put out. Messages cost by what they make the server do.

use std::time::{Duration, Instant};

use livekit_protocol as proto;
use proto::signal_request::Message as Ask;

use crate::limits::{Bucket, Rate};

/// What a client may spend at once, and a second after that. A join with six tracks costs about 150.
const SPEND: Rate = Rate::new(400.0, 100.0);
/// Bytes that cost as much as a message.
const BYTES_PER_UNIT: f64 = 4096.0;
/// How long a client may be too fast without a rest. A page that shows fifty tiles at once is done in two seconds.
const TOO_FAST_MAX: Duration = Duration::from_secs(10);

/// What is to be done after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Read on.
    Now,
    /// Read on after this.
    Later(Duration),
    /// It has been too fast for too long.
    TooMuch,
}

pub struct Allowance {
    bucket: Bucket,
    too_fast_since: Option<Instant>,
}

impl Allowance {
    pub fn new(now: Instant) -> Self {
        Self { bucket: Bucket::new(SPEND, now), too_fast_since: None }
    }

    /// A message of this cost came.
    pub fn handle(&mut self, now: Instant, cost: f64) -> Verdict {
        let wait = self.bucket.owe(now, cost);
        if wait.is_zero() {
            // A short pause is no rest.
            if self.bucket.level() > 0.5 {
                self.too_fast_since = None;
            }
            return Verdict::Now;
        }
        let since = *self.too_fast_since.get_or_insert(now);
        let too_long = now.saturating_duration_since(since) >= TOO_FAST_MAX;
        if too_long { Verdict::TooMuch } else { Verdict::Later(wait) }
    }
}

/// What a message costs: more where everybody hears of it, most where SDP is negotiated.
pub fn cost(ask: Option<&Ask>, bytes: usize) -> f64 {
    let work = match ask {
        Some(Ask::Offer(_) | Ask::Answer(_)) => 10.0,
        Some(
            Ask::AddTrack(_)
            | Ask::Mute(_)
            | Ask::UpdateMetadata(_)
            | Ask::UpdateAudioTrack(_)
            | Ask::UpdateVideoTrack(_)
            | Ask::SubscriptionPermission(_)
            | Ask::SyncState(_),
        ) => 5.0,
        _ => 1.0,
    };
    work + bytes as f64 / BYTES_PER_UNIT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as fast as it is read, for so long; when it was put out, if it was.
    fn flood(cost: f64, secs: u64) -> (u32, Option<Duration>) {
        let start = Instant::now();
        let (mut now, mut sent) = (start, 0);
        let mut allowance = Allowance::new(start);
        while now < start + Duration::from_secs(secs) {
            sent += 1;
            match allowance.handle(now, cost) {
                Verdict::Now => now += Duration::from_micros(10),
                Verdict::Later(wait) => now += wait,
                Verdict::TooMuch => return (sent, Some(now - start)),
            }
        }
        (sent, None)
    }

    #[test]
    fn a_join_into_a_large_room_is_not_slowed() {
        let mut allowance = Allowance::new(Instant::now());
        let now = Instant::now();
        let offer = cost(Some(&Ask::Offer(proto::SessionDescription::default())), 120_000);
        let tiles = (0..150).map(|_| cost(Some(&Ask::TrackSetting(proto::UpdateTrackSettings::default())), 60));
        assert!(std::iter::once(offer).chain(tiles).all(|cost| allowance.handle(now, cost) == Verdict::Now));
    }

    #[test]
    fn a_flood_is_slowed_and_then_put_out() {
        let (sent, out) = flood(1.0, 60);
        let out = out.expect("put out");
        assert!((Duration::from_secs(9)..Duration::from_secs(12)).contains(&out), "{out:?}");
        assert!((1_300..1_600).contains(&sent), "{sent}");
        assert!(flood(cost(None, 512 * 1024), 60).0 < 30, "large messages are fewer");
    }

    #[test]
    fn who_is_fast_for_a_moment_now_and_then_stays() {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(now);
        for _ in 0..20 {
            for _ in 0..600 {
                match allowance.handle(now, 1.0) {
                    Verdict::Now => {}
                    Verdict::Later(wait) => now += wait,
                    Verdict::TooMuch => panic!("put out"),
                }
            }
            now += Duration::from_secs(5);
        }
    }
}
