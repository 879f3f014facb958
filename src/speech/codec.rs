//! Opus to the ear's PCM and the voice's PCM to Opus, and the resampler between a voice and Opus.
//!
//! Not a jitter buffer: the order and the gaps of packets are the listener's. The ear decodes straight to 16 kHz,
//! which saves a resampler; the voice is always encoded at 48 kHz in packets of 20 ms.

use audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};

use crate::media::{OPUS_CLOCK_HZ, PACKET_SAMPLES, SPEECH_HZ};

/// The longest packet of RFC 6716: 120 ms, in samples of the ear.
pub const MAX_PACKET_SAMPLES: usize = SPEECH_HZ as usize / 1000 * 120;
/// Samples of the ear in a packet of 20 ms.
pub const EAR_PACKET_SAMPLES: usize = SPEECH_HZ as usize / 50;
/// Bitrate of the interviewer's voice in bit/s: the knee of Opus for wideband speech, with room for the repair data.
const VOICE_BITRATE: i32 = 32_000;
/// Encoder effort, 0-10: half of the cost of 10 and not heard to be worse in speech.
const VOICE_COMPLEXITY: i32 = 5;
/// Loss in per cent that the encoder plans its in-band repair for: a poor mobile link.
const VOICE_EXPECTED_LOSS: i32 = 10;
/// Bytes of the largest packet that [`Encoder`] may make: above what 20 ms at 510 kbit/s (the limit of Opus) takes.
const MAX_ENCODED_BYTES: usize = 1500;

/// An error of libopus, or audio in a form that it cannot take.
#[derive(Debug, thiserror::Error)]
#[error("audio codec: {0}")]
pub struct CodecError(String);

impl From<opus::Error> for CodecError {
    fn from(error: opus::Error) -> Self {
        Self(error.to_string())
    }
}

/// Opus packets of one track in, 16 kHz mono samples out.
pub struct Decoder {
    inner: opus::Decoder,
    scratch: Box<[i16]>,
}

impl Decoder {
    pub fn new() -> Result<Self, CodecError> {
        let inner = opus::Decoder::new(SPEECH_HZ, opus::Channels::Mono)?;
        Ok(Self { inner, scratch: vec![0; MAX_PACKET_SAMPLES].into_boxed_slice() })
    }

    /// Decodes one packet. An empty one (RFC 7587, DTX) gives 20 ms of comfort noise.
    pub fn decode(&mut self, payload: &[u8]) -> Result<&[i16], CodecError> {
        if payload.is_empty() {
            return self.conceal(EAR_PACKET_SAMPLES, None);
        }
        let n = self.inner.decode(payload, &mut self.scratch, false)?;
        Ok(&self.scratch[..n])
    }

    /// Makes up for `samples` (at most 120 ms) that were lost: from the repair data in the packet after the loss where
    /// it is given and holds some, else by extrapolation. RFC 6716 section 2.1.7.
    pub fn conceal(&mut self, samples: usize, next: Option<&[u8]>) -> Result<&[i16], CodecError> {
        // libopus conceals in steps of 2.5 ms.
        let step = SPEECH_HZ as usize / 400;
        let samples = (samples.min(MAX_PACKET_SAMPLES) / step * step).max(step);
        let out = &mut self.scratch[..samples];
        let n = match next {
            Some(payload) if !payload.is_empty() => self.inner.decode(payload, out, true)?,
            _ => self.inner.decode(&[], out, false)?,
        };
        Ok(&self.scratch[..n])
    }

    /// How many samples of the ear a packet holds.
    pub fn samples_of(payload: &[u8]) -> usize {
        if payload.is_empty() {
            return EAR_PACKET_SAMPLES;
        }
        opus::packet::get_nb_samples(payload, SPEECH_HZ).unwrap_or(EAR_PACKET_SAMPLES)
    }
}

/// 48 kHz mono samples in, one Opus packet of 20 ms out.
pub struct Encoder {
    inner: opus::Encoder,
    scratch: Box<[u8]>,
}

impl Encoder {
    pub fn new() -> Result<Self, CodecError> {
        let mut inner = opus::Encoder::new(OPUS_CLOCK_HZ, opus::Channels::Mono, opus::Application::Voip)?;
        inner.set_bitrate(opus::Bitrate::Bits(VOICE_BITRATE))?;
        inner.set_complexity(VOICE_COMPLEXITY)?;
        inner.set_inband_fec(true)?;
        inner.set_packet_loss_perc(VOICE_EXPECTED_LOSS)?;
        Ok(Self { inner, scratch: vec![0; MAX_ENCODED_BYTES].into_boxed_slice() })
    }

    /// Encodes [`PACKET_SAMPLES`] samples.
    pub fn encode(&mut self, samples: &[i16]) -> Result<Box<[u8]>, CodecError> {
        if samples.len() != PACKET_SAMPLES {
            return Err(CodecError(format!("a packet takes {PACKET_SAMPLES} samples, not {}", samples.len())));
        }
        let n = self.inner.encode(samples, &mut self.scratch)?;
        Ok(self.scratch[..n].into())
    }

    /// Forgets the past: the next packet does not lean on packets that were never sent.
    pub fn reset(&mut self) -> Result<(), CodecError> {
        Ok(self.inner.reset_state()?)
    }
}

/// Samples of any rate in, 48 kHz out. One stretch of audio at a time: [`Resampler::push`] its parts, then
/// [`Resampler::finish`]. The filter's own delay is cut off, so that time runs alike on both sides.
pub struct Resampler {
    stage: Option<Stage>,
}

struct Stage {
    fft: Fft<f32>,
    input: Vec<f32>,
    output: Vec<f32>,
    ratio: f64,
    /// Output samples of the filter's delay that are still to be cut.
    skip: usize,
    delay: usize,
    /// Samples taken and given since the stretch began.
    taken: usize,
    given: usize,
}

impl Resampler {
    /// `from` in Hz, 4000 to 192 000.
    pub fn new(from: u32) -> Result<Self, CodecError> {
        if !(4_000..=192_000).contains(&from) {
            return Err(CodecError(format!("a sample rate of {from} Hz is out of range")));
        }
        if from == OPUS_CLOCK_HZ {
            return Ok(Self { stage: None });
        }
        // 20 ms at a time where the rate allows: for 22 050 Hz, 441 samples in and 960 out.
        let chunk = (from as usize / 50).max(1);
        let fft = Fft::<f32>::new(from as usize, OPUS_CLOCK_HZ as usize, chunk, 1, FixedSync::Both)
            .map_err(|e| CodecError(e.to_string()))?;
        let delay = fft.output_delay();
        let output = vec![0.0; fft.output_frames_max()];
        let ratio = f64::from(OPUS_CLOCK_HZ) / f64::from(from);
        Ok(Self {
            stage: Some(Stage { fft, input: Vec::new(), output, ratio, skip: delay, delay, taken: 0, given: 0 }),
        })
    }

    /// Appends what comes out to `out`; what does not fill a block stays inside.
    pub fn push(&mut self, samples: &[i16], out: &mut Vec<i16>) -> Result<(), CodecError> {
        let Some(stage) = &mut self.stage else {
            out.extend_from_slice(samples);
            return Ok(());
        };
        stage.taken += samples.len();
        stage.input.extend(samples.iter().map(|&s| f32::from(s) / 32768.0));
        stage.run(out, usize::MAX)
    }

    /// Ends the stretch: the rest comes out, and the next stretch starts afresh.
    pub fn finish(&mut self, out: &mut Vec<i16>) -> Result<(), CodecError> {
        let Some(stage) = &mut self.stage else { return Ok(()) };
        let total = (stage.taken as f64 * stage.ratio).round() as usize;
        while stage.given < total {
            let missing = stage.fft.input_frames_next().saturating_sub(stage.input.len());
            stage.input.resize(stage.input.len() + missing, 0.0);
            stage.run(out, total)?;
        }
        stage.fft.reset();
        stage.input.clear();
        (stage.skip, stage.taken, stage.given) = (stage.delay, 0, 0);
        Ok(())
    }
}

impl Stage {
    /// Resamples all whole blocks; `limit` is the number of samples that the stretch may give in all.
    fn run(&mut self, out: &mut Vec<i16>, limit: usize) -> Result<(), CodecError> {
        let fail = |e: &dyn std::fmt::Display| CodecError(format!("resampler: {e}"));
        let mut used = 0;
        loop {
            let (need, make) = (self.fft.input_frames_next(), self.fft.output_frames_next());
            let Some(block) = self.input.get(used..used + need) else { break };
            let source = InterleavedSlice::new(block, 1, need).map_err(|e| fail(&e))?;
            let mut target = InterleavedSlice::new_mut(&mut self.output[..make], 1, make).map_err(|e| fail(&e))?;
            let (read, made) = self.fft.process_into_buffer(&source, &mut target, None).map_err(|e| fail(&e))?;
            used += read;
            let skipped = made.min(self.skip);
            self.skip -= skipped;
            let made = &self.output[skipped..made];
            let made = &made[..made.len().min(limit - self.given)];
            self.given += made.len();
            out.extend(made.iter().map(|&s| (s * 32768.0).clamp(-32768.0, 32767.0) as i16));
        }
        self.input.drain(..used);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hz: f64, samples: usize) -> Vec<i16> {
        (0..samples)
            .map(|i| (8000.0 * (i as f64 * hz * std::f64::consts::TAU / f64::from(rate)).sin()) as i16)
            .collect()
    }

    fn rms(samples: &[i16]) -> f64 {
        (samples.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / samples.len().max(1) as f64).sqrt()
    }

    #[test]
    fn resampling_keeps_length_level_and_place_in_time() {
        for rate in [16_000, 22_050, 24_000, 44_100, 48_000] {
            let mut source = vec![0i16; rate as usize / 2];
            source.extend(tone(rate, 440.0, rate as usize / 2));
            let mut resampler = Resampler::new(rate).unwrap();
            for _ in 0..2 {
                let mut out = Vec::new();
                for chunk in source.chunks(317) {
                    resampler.push(chunk, &mut out).unwrap();
                }
                resampler.finish(&mut out).unwrap();
                assert_eq!(out.len(), 48_000, "{rate} Hz");
                assert!(rms(&out[..23_700]) < 30.0, "{rate} Hz: silence stays silent");
                let level = rms(&out[24_300..47_700]);
                assert!((level - 8000.0 / 2f64.sqrt()).abs() < 60.0, "{rate} Hz: level {level}");
            }
        }
    }

    #[test]
    fn a_tone_survives_the_round_trip_and_the_ear_hears_it_at_16_khz() {
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::new().unwrap());
        let source = tone(48_000, 440.0, 48_000);
        let mut heard = Vec::new();
        for frame in source.chunks_exact(PACKET_SAMPLES) {
            let packet = encoder.encode(frame).unwrap();
            assert_eq!(Decoder::samples_of(&packet), EAR_PACKET_SAMPLES);
            heard.extend_from_slice(decoder.decode(&packet).unwrap());
        }
        assert_eq!(heard.len(), 16_000);
        let level = rms(&heard[4000..]);
        assert!((3500.0..7500.0).contains(&level), "level {level}");
    }

    #[test]
    fn a_lost_packet_is_made_up_from_the_next_or_from_nothing() {
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::new().unwrap());
        let packets: Vec<_> =
            tone(48_000, 300.0, 9_600).chunks_exact(PACKET_SAMPLES).map(|f| encoder.encode(f).unwrap()).collect();
        for packet in &packets[..4] {
            decoder.decode(packet).unwrap();
        }
        assert_eq!(decoder.conceal(320, Some(&packets[5])).unwrap().len(), 320);
        assert_eq!(decoder.decode(&packets[5]).unwrap().len(), 320);
        assert_eq!(decoder.conceal(960, None).unwrap().len(), 960);
        assert_eq!(decoder.decode(&[]).unwrap().len(), 320, "an empty packet is silence of 20 ms");
    }

    #[test]
    fn garbage_is_an_error_or_noise_but_never_a_panic() {
        let mut decoder = Decoder::new().unwrap();
        for seed in 0..2000u32 {
            let n = (seed % 90) as usize;
            let bytes: Vec<u8> = (0..n).map(|i| (seed.wrapping_mul(2_654_435_761) >> (i % 24)) as u8).collect();
            let _ = decoder.decode(&bytes);
            let _ = Decoder::samples_of(&bytes);
        }
    }
}
