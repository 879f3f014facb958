//! Who speaks: audio levels of RFC 6464 per participant, looked at every 400 ms. Pure.

use std::time::{Duration, Instant};

/// How often levels are looked at; what LiveKit's clients are used to.
pub const INTERVAL: Duration = Duration::from_millis(400);
/// Quieter than this is not speech, in -dBov.
const THRESHOLD_DBOV: u8 = 35;
/// Part of the interval that must be louder than the threshold.
const ACTIVE_SHARE: f32 = 0.4;
/// Weight of the newest interval: an exponential average over two.
const SMOOTHING: f32 = 2.0 / 3.0;
/// Steps of the level that is told, so that a steady voice is not news each time.
const LEVEL_STEPS: f32 = 8.0;

/// A change that others should hear of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpeakerChange<K> {
    pub speaker: K,
    /// 0 to 1, in eighths.
    pub level: f32,
    pub active: bool,
}

struct Entry<K> {
    speaker: K,
    loud: Duration,
    loudest_dbov: u8,
    smoothed: f32,
    told: f32,
    active: bool,
}

pub struct ActiveSpeakers<K> {
    entries: Vec<Entry<K>>,
    next: Option<Instant>,
}

impl<K> Default for ActiveSpeakers<K> {
    fn default() -> Self {
        Self { entries: Vec::new(), next: None }
    }
}

impl<K: Copy + Eq> ActiveSpeakers<K> {
    /// One packet of this length at this level (0 loudest, 127 silence).
    pub fn handle_level(&mut self, now: Instant, speaker: K, dbov: u8, length: Duration) {
        self.next.get_or_insert(now + INTERVAL);
        if dbov > THRESHOLD_DBOV {
            return;
        }
        let entry = match self.entries.iter_mut().position(|entry| entry.speaker == speaker) {
            Some(at) => &mut self.entries[at],
            None => {
                let (smoothed, told, active) = (0.0, 0.0, false);
                let loud = Duration::ZERO;
                self.entries.push(Entry { speaker, loud, loudest_dbov: 127, smoothed, told, active });
                let last = self.entries.len() - 1;
                &mut self.entries[last]
            }
        };
        entry.loud += length;
        entry.loudest_dbov = entry.loudest_dbov.min(dbov);
    }

    /// Forgets a speaker who left; nothing is told.
    pub fn remove(&mut self, speaker: K) {
        self.entries.retain(|entry| entry.speaker != speaker);
    }

    pub fn is_active(&self, speaker: K) -> bool {
        self.entries.iter().any(|entry| entry.speaker == speaker && entry.active)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// What changed, loudest first; nothing before the interval is over.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<SpeakerChange<K>> {
        if self.next.is_none_or(|next| now < next) {
            return Vec::new();
        }
        let mut changes = Vec::new();
        for entry in &mut self.entries {
            let share = (entry.loud.as_secs_f32() / INTERVAL.as_secs_f32()).min(1.0);
            let level = if share >= ACTIVE_SHARE { amplitude(entry.loudest_dbov) * share } else { 0.0 };
            entry.smoothed += (level - entry.smoothed) * SMOOTHING;
            let active = share >= ACTIVE_SHARE;
            let level = if active { (entry.smoothed * LEVEL_STEPS).ceil() / LEVEL_STEPS } else { 0.0 };
            if active != entry.active || level != entry.told {
                (entry.active, entry.told) = (active, level);
                changes.push(SpeakerChange { speaker: entry.speaker, level, active });
            }
            entry.loud = Duration::ZERO;
            entry.loudest_dbov = 127;
        }
        // Silent again and told so: nothing left to remember.
        self.entries.retain(|entry| entry.active || entry.told > 0.0);
        self.next = if self.entries.is_empty() { None } else { Some(now + INTERVAL) };
        changes.sort_by(|a, b| b.level.total_cmp(&a.level));
        changes
    }
}

/// Linear amplitude, 0 to 1, of a level in -dBov.
fn amplitude(dbov: u8) -> f32 {
    10f32.powf(-f32::from(dbov) / 20.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: Duration = Duration::from_millis(20);

    fn talk(speakers: &mut ActiveSpeakers<u8>, start: Instant, levels: &[(u8, u8)]) -> Vec<SpeakerChange<u8>> {
        for packet in 0..20 {
            for (speaker, dbov) in levels {
                speakers.handle_level(start + PACKET * packet, *speaker, *dbov, PACKET);
            }
        }
        speakers.handle_timeout(start + INTERVAL)
    }

    #[test]
    fn the_louder_of_two_comes_first_and_noise_does_not_count() {
        let start = Instant::now();
        let changes = talk(&mut ActiveSpeakers::default(), start, &[(1, 30), (2, 10), (3, 60)]);
        let order: Vec<_> = changes.iter().map(|change| (change.speaker, change.active)).collect();
        assert_eq!(order, [(2, true), (1, true)]);
        assert!(changes[0].level > changes[1].level && changes[0].level <= 1.0);
        assert_eq!(changes[0].level * LEVEL_STEPS, (changes[0].level * LEVEL_STEPS).round());
    }

    #[test]
    fn a_cough_shorter_than_two_fifths_of_the_interval_is_not_speech() {
        let (start, mut speakers) = (Instant::now(), ActiveSpeakers::default());
        for packet in 0..7 {
            speakers.handle_level(start + PACKET * packet, 1, 5, PACKET);
        }
        assert!(speakers.handle_timeout(start + INTERVAL).is_empty());
    }

    #[test]
    fn who_stops_is_told_once_and_a_steady_voice_is_no_news() {
        let (start, mut speakers) = (Instant::now(), ActiveSpeakers::default());
        for round in 0..6 {
            talk(&mut speakers, start + INTERVAL * round, &[(1, 20)]);
        }
        assert!(talk(&mut speakers, start + INTERVAL * 6, &[(1, 20)]).is_empty());
        let stopped = speakers.handle_timeout(start + INTERVAL * 8);
        assert_eq!(stopped, [SpeakerChange { speaker: 1, level: 0.0, active: false }]);
        assert!(speakers.handle_timeout(start + INTERVAL * 9).is_empty());
        assert_eq!(speakers.poll_timeout(), None);
    }
}
