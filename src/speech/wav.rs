//! The little of RIFF/WAVE that speech needs: reading 16-bit PCM from a pipe, writing 16-bit PCM for an upload.
//!
//! Not a general reader: no compressed formats. The sizes in the header are not believed beyond finding the next
//! chunk, since a program that writes to a pipe cannot know them.

use std::io::Cursor;

/// Bytes of header that are read before it is given up: programs write 44, some with a few tags before the data.
const HEADER_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WavHeader {
    pub sample_rate: u32,
    pub channels: u16,
    /// Offset of the first sample in bytes.
    pub data_at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WavError {
    #[error("not a WAVE stream")]
    NotWave,
    #[error("not 16-bit PCM")]
    NotPcm16,
}

impl WavHeader {
    /// Parses the head of a stream. `None`: more bytes are needed.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, WavError> {
        let (magic, form) = (bytes.get(..4), bytes.get(8..12));
        if magic.is_some_and(|m| m != b"RIFF") || form.is_some_and(|f| f != b"WAVE") {
            return Err(WavError::NotWave);
        }
        let mut format = None;
        let mut at = 12;
        loop {
            let (Some(name), Some(size)) = (bytes.get(at..at + 4), bytes.get(at + 4..at + 8)) else {
                return if at > HEADER_MAX { Err(WavError::NotWave) } else { Ok(None) };
            };
            let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
            let body = at + 8;
            if name == b"data" {
                let (sample_rate, channels) = format.ok_or(WavError::NotPcm16)?;
                return Ok(Some(Self { sample_rate, channels, data_at: body }));
            }
            if name == b"fmt " {
                let Some(fmt) = bytes.get(body..body + 16) else { return Ok(None) };
                format = Some(parse_format(fmt)?);
            }
            // Chunks are padded to an even length.
            at = body.saturating_add(size).saturating_add(size & 1);
            if at > HEADER_MAX {
                return Err(WavError::NotWave);
            }
        }
    }
}

/// `fmt` is 16 bytes long.
fn parse_format(fmt: &[u8]) -> Result<(u32, u16), WavError> {
    let u16_at = |i: usize| u16::from_le_bytes([fmt[i], fmt[i + 1]]);
    let (tag, channels, bits) = (u16_at(0), u16_at(2), u16_at(14));
    let sample_rate = u32::from_le_bytes([fmt[4], fmt[5], fmt[6], fmt[7]]);
    // 0xFFFE: extensible, which with 16 bits is PCM all the same.
    if !(tag == 1 || tag == 0xFFFE) || bits != 16 || channels == 0 || sample_rate == 0 {
        return Err(WavError::NotPcm16);
    }
    Ok((sample_rate, channels))
}

/// A whole mono WAVE file.
pub fn write(samples: &[i16], sample_rate: u32) -> Vec<u8> {
    let spec =
        hound::WavSpec { channels: 1, sample_rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut out = Cursor::new(Vec::with_capacity(44 + samples.len() * 2));
    let written = hound::WavWriter::new(&mut out, spec).and_then(|mut writer| {
        let mut fast = writer.get_i16_writer(samples.len() as u32);
        for &sample in samples {
            fast.write_sample(sample);
        }
        fast.flush()?;
        writer.finalize()
    });
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    out.into_inner()
}

/// Little-endian 16-bit samples from bytes that come in pieces of any length.
#[derive(Default)]
pub struct SampleReader {
    odd: Option<u8>,
}

impl SampleReader {
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<i16>) {
        let mut bytes = bytes;
        if let (Some(low), Some((&high, rest))) = (self.odd, bytes.split_first()) {
            out.push(i16::from_le_bytes([low, high]));
            self.odd = None;
            bytes = rest;
        }
        let pairs = bytes.chunks_exact(2);
        if let [low] = pairs.remainder() {
            self.odd = Some(*low);
        }
        out.extend(pairs.map(|p| i16::from_le_bytes([p[0], p[1]])));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back_from_pieces_of_any_length(
            samples in proptest::collection::vec(any::<i16>(), 0..300),
            rate in 4_000u32..192_000,
            cuts in proptest::collection::vec(1usize..40, 1..40),
        ) {
            let file = write(&samples, rate);
            let header = WavHeader::parse(&file).unwrap().unwrap();
            prop_assert_eq!((header.sample_rate, header.channels), (rate, 1));
            let (mut reader, mut out, mut at) = (SampleReader::default(), Vec::new(), header.data_at);
            for cut in cuts.iter().cycle() {
                if at >= file.len() { break }
                let end = (at + cut).min(file.len());
                reader.push(&file[at..end], &mut out);
                at = end;
            }
            prop_assert_eq!(out, samples);
        }

        #[test]
        fn a_cut_header_asks_for_more_and_garbage_never_panics(
            keep in 0usize..44,
            garbage in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let file = write(&[1, 2, 3], 22_050);
            prop_assert_eq!(WavHeader::parse(&file[..keep]), Ok(None));
            let _ = WavHeader::parse(&garbage);
            let mut hidden = b"RIFF....WAVE".to_vec();
            hidden.extend(garbage);
            let _ = WavHeader::parse(&hidden);
        }
    }

    #[test]
    fn a_tag_before_the_data_is_skipped_and_other_formats_are_refused() {
        let mut file = write(&[7], 16_000);
        file.splice(36..36, *b"LIST\x03\x00\x00\x00abc\x00");
        assert_eq!(WavHeader::parse(&file).unwrap().unwrap().data_at, 44 + 12);
        let mut eight_bit = write(&[7], 16_000);
        eight_bit[34] = 8;
        assert_eq!(WavHeader::parse(&eight_bit), Err(WavError::NotPcm16));
        assert_eq!(WavHeader::parse(b"OggS\0\0\0\0aaaa"), Err(WavError::NotWave));
    }
}
