//! Packets of one track in, gapless 16 kHz samples with their times out.
//!
//! Puts packets in order, makes up for lost ones and fills what the sender left out because it was silent (DTX, mute).
//! Adds no delay while packets come in order. Pure but for libopus: time comes in with the calls.
//!
//! Invariant: samples come out in the order in which they were spoken, each stretch of the track's time at most once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::codec::{CodecError, Decoder, EAR_PACKET_SAMPLES, MAX_PACKET_SAMPLES};
use crate::media::{AudioPacket, OPUS_CLOCK_HZ, SPEECH_HZ};

/// Packets held back for one that is missing: 100 ms. Full: the missing one counts as lost.
const HELD_MAX: usize = 5;
/// How long a missing packet is waited for: three packets; Wi-Fi reorders within that, or has lost it.
const HOLD: Duration = Duration::from_millis(60);
/// A jump of the sequence number, forwards or backwards, beyond which the track has started anew: 20 s.
const RESTART: u64 = 1000;
/// Silence filled into one hole at most, in samples: 2 s is longer than any end of speech needs.
const FILL_MAX: u64 = SPEECH_HZ as u64 * 2;
/// RTP ticks per sample of the ear.
const TICKS: u64 = (OPUS_CLOCK_HZ / SPEECH_HZ) as u64;
/// No packet for this long while somebody speaks: the sender has fallen silent or has left, and time must go on.
pub const STALL: Duration = Duration::from_millis(60);

/// Counters of one ear since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EarStats {
    /// Packets that came after their place was given up, or twice.
    pub late: u64,
    /// Packets that libopus refused.
    pub malformed: u64,
}

pub struct Ear {
    decoder: Decoder,
    held: BTreeMap<u64, AudioPacket>,
    /// The stream that the numbers are of.
    source: Option<u32>,
    /// Since when a packet has been missing.
    hole_since: Option<Instant>,
    next_seq: Option<u64>,
    /// RTP time at which the next packet is due.
    next_rtp: u64,
    /// When the last packet came, and silence given out since then in samples.
    last_packet: Option<Instant>,
    filled: u64,
    stats: EarStats,
}

/// Takes stretches of samples; the time is the arrival of the packet that held them.
pub type Sink<'a> = &'a mut dyn FnMut(&[i16], Instant);

impl Ear {
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self {
            decoder: Decoder::new()?,
            held: BTreeMap::new(),
            source: None,
            hole_since: None,
            next_seq: None,
            next_rtp: 0,
            last_packet: None,
            filled: 0,
            stats: EarStats::default(),
        })
    }

    pub fn stats(&self) -> EarStats {
        self.stats
    }

    /// When [`Ear::handle_timeout`] has something to do, if no packet comes before. `speaking`: the silence of a
    /// sender that sends nothing matters only while a stretch of speech is open.
    pub fn poll_timeout(&self, speaking: bool) -> Option<Instant> {
        let hole = self.hole_since.map(|since| since + HOLD);
        let filled = Duration::from_micros(self.filled * 1_000_000 / u64::from(SPEECH_HZ));
        let packet = Duration::from_millis(20);
        let stall = self.last_packet.filter(|_| speaking).map(|last| last + STALL.max(filled + packet));
        [hole, stall].into_iter().flatten().min()
    }

    pub fn handle_packet(&mut self, packet: AudioPacket, out: Sink<'_>) {
        let arrived = packet.arrived;
        let other_stream = self.source.replace(packet.source).is_some_and(|source| source != packet.source);
        let jumped = self.next_seq.is_some_and(|next| packet.seq.abs_diff(next) > RESTART);
        if other_stream || jumped {
            self.drain(out);
            self.next_seq = None;
        }
        if self.next_seq.is_some_and(|next| packet.seq < next) || self.held.contains_key(&packet.seq) {
            self.stats.late += 1;
            return;
        }
        self.held.insert(packet.seq, packet);
        self.release(out);
        if self.held.len() > HELD_MAX {
            self.skip_hole(out);
        }
        self.hole_since = (!self.held.is_empty()).then(|| self.hole_since.unwrap_or(arrived));
    }

    /// Gives up on a packet that did not come, and lets silence pass where nothing comes at all.
    pub fn handle_timeout(&mut self, now: Instant, speaking: bool, out: Sink<'_>) {
        if self.hole_since.is_some_and(|since| now >= since + HOLD) {
            self.skip_hole(out);
            self.hole_since = (!self.held.is_empty()).then_some(now);
        }
        if let Some(last) = self.last_packet.filter(|last| speaking && now >= *last + STALL) {
            let elapsed = now.saturating_duration_since(last).as_micros() as u64 * u64::from(SPEECH_HZ) / 1_000_000;
            let due = elapsed.saturating_sub(self.filled) / EAR_PACKET_SAMPLES as u64 * EAR_PACKET_SAMPLES as u64;
            self.filled += due;
            silence(due.min(FILL_MAX), now, out);
        }
    }

    /// The track is over: everything that is held comes out.
    pub fn drain(&mut self, out: Sink<'_>) {
        while !self.held.is_empty() {
            self.skip_hole(out);
        }
        self.hole_since = None;
    }

    fn skip_hole(&mut self, out: Sink<'_>) {
        if let Some((_, packet)) = self.held.pop_first() {
            self.play(packet, out);
        }
        self.release(out);
    }

    /// Plays what is in order.
    fn release(&mut self, out: Sink<'_>) {
        while let Some(entry) = self.held.first_entry() {
            if self.next_seq.is_some_and(|next| *entry.key() != next) {
                return;
            }
            let packet = entry.remove();
            self.play(packet, out);
        }
    }

    fn play(&mut self, packet: AudioPacket, out: Sink<'_>) {
        let lost = self.next_seq.map_or(0, |next| packet.seq.saturating_sub(next));
        let gap = if self.next_seq.is_some() { packet.rtp_time.saturating_sub(self.next_rtp) / TICKS } else { 0 };
        self.fill(gap.saturating_sub(self.filled), lost, &packet, out);
        let samples = match self.decoder.decode(&packet.payload) {
            Ok(samples) => samples,
            Err(_) => {
                self.stats.malformed += 1;
                match self.decoder.conceal(EAR_PACKET_SAMPLES, None) {
                    Ok(samples) => samples,
                    Err(_) => &[],
                }
            }
        };
        self.next_rtp = packet.rtp_time.saturating_add(samples.len() as u64 * TICKS);
        out(samples, packet.arrived);
        self.next_seq = Some(packet.seq.saturating_add(1));
        self.last_packet = Some(packet.arrived);
        self.filled = 0;
    }

    /// Fills the `gap` (samples) before a packet: lost packets by concealment for as long as that sounds like speech,
    /// the rest by silence.
    fn fill(&mut self, gap: u64, lost: u64, packet: &AudioPacket, out: Sink<'_>) {
        let most = if lost > 0 { gap.min(MAX_PACKET_SAMPLES as u64) } else { 0 };
        silence((gap - most).min(FILL_MAX), packet.arrived, out);
        let mut left = most as usize;
        let repaired = Decoder::samples_of(&packet.payload).min(left);
        while left > 0 {
            let last = left <= repaired;
            let step = if last { left } else { (left - repaired).min(EAR_PACKET_SAMPLES) };
            let next = last.then_some(&*packet.payload);
            match self.decoder.conceal(step, next) {
                Ok(samples) => out(samples, packet.arrived),
                Err(_) => self.stats.malformed += 1,
            }
            left -= step;
        }
    }
}

fn silence(samples: u64, at: Instant, out: Sink<'_>) {
    const NOTHING: [i16; EAR_PACKET_SAMPLES] = [0; EAR_PACKET_SAMPLES];
    let mut left = samples as usize;
    while left > 0 {
        let n = left.min(EAR_PACKET_SAMPLES);
        out(&NOTHING[..n], at);
        left -= n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{media::PACKET_SAMPLES, speech::codec::Encoder};

    const PACKET: Duration = Duration::from_millis(20);

    /// A tone whose pitch rises with each packet, so that order can be told.
    fn packets(n: u64, start: Instant) -> Vec<AudioPacket> {
        let mut encoder = Encoder::new().unwrap();
        (0..n)
            .map(|seq| {
                let tone: Vec<i16> =
                    (0..PACKET_SAMPLES).map(|i| (6000.0 * (i as f64 * 0.02 * (seq + 1) as f64).sin()) as i16).collect();
                AudioPacket {
                    source: 1,
                    seq,
                    rtp_time: seq * 960,
                    arrived: start + PACKET * seq as u32,
                    payload: encoder.encode(&tone).unwrap(),
                }
            })
            .collect()
    }

    fn play(ear: &mut Ear, packet: AudioPacket) -> usize {
        let mut n = 0;
        ear.handle_packet(packet, &mut |samples, _| n += samples.len());
        n
    }

    #[test]
    fn packets_in_order_pass_at_once() {
        let mut ear = Ear::new().unwrap();
        for packet in packets(10, Instant::now()) {
            assert_eq!(play(&mut ear, packet), 320);
        }
        assert_eq!(ear.poll_timeout(false), None);
    }

    #[test]
    fn swapped_packets_come_out_in_order_and_a_late_one_is_dropped() {
        let mut ear = Ear::new().unwrap();
        let p = packets(12, Instant::now());
        assert_eq!(play(&mut ear, p[0].clone()), 320);
        assert_eq!(play(&mut ear, p[2].clone()), 0);
        assert_eq!(play(&mut ear, p[1].clone()), 640);
        assert_eq!(play(&mut ear, p[1].clone()), 0);
        assert_eq!(ear.stats().late, 1);
        // 3 never comes: after the wait it is made up for, and when it comes it is too late.
        assert_eq!(play(&mut ear, p[4].clone()), 0);
        let due = ear.poll_timeout(false).unwrap();
        assert_eq!(due, p[4].arrived + HOLD);
        let mut n = 0;
        ear.handle_timeout(due, false, &mut |samples, _| n += samples.len());
        assert_eq!(n, 640);
        assert_eq!(play(&mut ear, p[3].clone()), 0);
        assert_eq!(ear.stats().late, 2);
    }

    #[test]
    fn a_full_hold_gives_up_on_the_missing_packet() {
        let mut ear = Ear::new().unwrap();
        let p = packets(12, Instant::now());
        play(&mut ear, p[0].clone());
        let given: usize = p[2..8].iter().map(|p| play(&mut ear, p.clone())).sum();
        assert_eq!(given, 320 * 7, "the lost one is made up for");
    }

    #[test]
    fn silence_that_was_not_sent_is_filled_once_by_time_or_by_the_next_packet() {
        let start = Instant::now();
        let mut ear = Ear::new().unwrap();
        let p = packets(2, start);
        play(&mut ear, p[0].clone());
        let mut n = 0;
        ear.handle_timeout(start + Duration::from_millis(100), true, &mut |samples, _| n += samples.len());
        assert_eq!(n, 1600);
        // DTX: the next packet follows in sequence, but 200 ms later in time.
        let mut late = p[1].clone();
        late.rtp_time = 960 + 9600;
        assert_eq!(play(&mut ear, late), 3200 - 1600 + 320);
    }

    #[test]
    fn another_stream_of_the_track_is_heard_from_its_first_packet_whatever_its_numbers() {
        let start = Instant::now();
        for numbers in [0u64, 30, 500] {
            let mut ear = Ear::new().unwrap();
            let p = packets(60, start);
            p[20..30].iter().for_each(|p| _ = play(&mut ear, p.clone()));
            // The last of the old stream waits for one that will not come.
            assert_eq!(play(&mut ear, p[31].clone()), 0);
            let mut other = p[40].clone();
            (other.source, other.seq, other.rtp_time) = (2, numbers, numbers * 7 + 1);
            let mut next = other.clone();
            (next.seq, next.rtp_time) = (other.seq + 1, other.rtp_time + 960);
            let given = play(&mut ear, other);
            assert_eq!(given, 640 + 320, "{numbers}: what was held comes first, with the lost one, and no gap between");
            assert_eq!(play(&mut ear, next), 320);
            assert_eq!((ear.stats().late, ear.poll_timeout(false)), (0, None));
        }
    }

    #[test]
    fn a_new_start_of_the_track_is_followed_and_huge_jumps_do_not_flood() {
        let mut ear = Ear::new().unwrap();
        let p = packets(3, Instant::now());
        play(&mut ear, p[0].clone());
        let mut far = p[1].clone();
        (far.seq, far.rtp_time) = (1 << 40, u64::MAX);
        assert_eq!(play(&mut ear, far), 320);
        let mut back = p[2].clone();
        back.rtp_time = 5;
        assert_eq!(play(&mut ear, back), 320);
    }
}
