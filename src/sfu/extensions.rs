//! RTP header extensions (RFC 8285) of what we send: those that describe the media, as its publisher wrote them, and those of
//! our own path.

use str0m::{
    format::Codec,
    media::{Frequency, MediaTime},
    rtp::{Extension, ExtensionMap, ExtensionValues},
};

use super::dependency::{self, DependencyBytes};

/// Header extensions have at most this many bytes in all, more than all that we know together: the dependency descriptor is
/// the only long one.
const BLOCK_BYTES_MAX: usize = 320;
/// Names of the two forms.
const ONE_BYTE_FORM: u16 = 0xbede;
const TWO_BYTE_FORM: u16 = 0x1000;

/// What describes the media; nothing of the path that it came by.
#[derive(Clone, Debug, Default)]
pub struct MediaExtensions {
    /// Loudness below the loudest, decibels, 0 to 127, and above it the bit that says that it is a voice (RFC 6464).
    pub audio_level: Option<u8>,
    pub orientation: Option<u8>,
    pub playout_delay: Option<[u8; 3]>,
    pub dependency: Option<DependencyBytes>,
}

impl MediaExtensions {
    /// Of a voice at this many decibels below the loudest.
    pub fn voice(level: u8) -> Self {
        Self { audio_level: Some(0x80 | level & 0x7f), ..Self::default() }
    }

    /// From what str0m read. The dependency descriptor goes with AV1, which cannot be put together without it; for other codecs
    /// its frame numbers would not fit what we make of the stream.
    pub fn read(values: &ExtensionValues, codec: Codec) -> Self {
        let level = values.audio_level.map(|level| level.unsigned_abs().min(127));
        let voice = if values.voice_activity == Some(true) { 0x80 } else { 0 };
        let orientation = values.video_orientation.map(|orientation| orientation as u8);
        let delays = values.play_delay_min.zip(values.play_delay_max);
        let dependency = || values.user_values.get::<DependencyBytes>().cloned();
        Self {
            audio_level: level.map(|level| voice | level),
            orientation,
            playout_delay: delays.map(|(least, most)| playout_delay(least, most)),
            dependency: if codec == Codec::Av1 { dependency() } else { None },
        }
    }

    /// Loudness, decibels below the loudest.
    pub fn loudness(&self) -> Option<u8> {
        self.audio_level.map(|level| level & 0x7f)
    }
}

/// Two times of 12 bits, hundredths of a second.
fn playout_delay(least: MediaTime, most: MediaTime) -> [u8; 3] {
    let hundredths = |time: MediaTime| (time.rebase(Frequency::HUNDREDTHS).numer() & 0xfff) as u32;
    let [_, bytes @ ..] = (hundredths(least) << 12 | hundredths(most)).to_be_bytes();
    bytes
}

/// By which numbers a section names them.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtensionIds {
    pub mid: Option<u8>,
    pub transport_seq: Option<u8>,
    pub send_time: Option<u8>,
    audio_level: Option<u8>,
    orientation: Option<u8>,
    playout_delay: Option<u8>,
    dependency: Option<u8>,
}

impl ExtensionIds {
    pub fn new(map: &ExtensionMap) -> Self {
        let id = |extension| map.id_of(extension);
        Self {
            mid: id(Extension::RtpMid),
            transport_seq: id(Extension::TransportSequenceNumber),
            send_time: id(Extension::AbsoluteSendTime),
            audio_level: id(Extension::AudioLevel),
            orientation: id(Extension::VideoOrientation),
            playout_delay: id(Extension::PlayoutDelay),
            dependency: map.iter().find(|(_, it)| it.as_uri() == dependency::URI).map(|(id, _)| id),
        }
    }
}

/// Puts the block together on the stack.
pub struct Block {
    bytes: [u8; BLOCK_BYTES_MAX],
    length: usize,
    two_byte_form: bool,
}

impl Block {
    /// `wide`: something in it has a number or length that takes the two-byte form.
    fn new(wide: bool) -> Self {
        Self { bytes: [0; BLOCK_BYTES_MAX], length: 4, two_byte_form: wide }
    }

    /// The media's extensions, as far as the section has names for them.
    pub fn of(media: &MediaExtensions, ids: &ExtensionIds) -> Self {
        let dependency = ids.dependency.zip(media.dependency.as_ref());
        let all = [ids.mid, ids.transport_seq, ids.send_time, ids.audio_level, ids.orientation, ids.playout_delay];
        let wide = dependency.is_some_and(|(_, it)| !(1..=16).contains(&it.as_received().len()))
            || all.into_iter().chain([ids.dependency]).flatten().any(|id| id > 14);
        let mut block = Self::new(wide);
        if let Some((id, level)) = ids.audio_level.zip(media.audio_level) {
            block.push(id, &[level]);
        }
        if let Some((id, orientation)) = ids.orientation.zip(media.orientation) {
            block.push(id, &[orientation]);
        }
        if let Some((id, delays)) = ids.playout_delay.zip(media.playout_delay) {
            block.push(id, &delays);
        }
        if let Some((id, dependency)) = dependency
            && let Some(copy) = block.push(id, dependency.as_received())
        {
            dependency.renumber(copy);
        }
        block
    }

    /// Gives the place of the value; one that does not fit is left out.
    pub fn push(&mut self, id: u8, value: &[u8]) -> Option<&mut [u8]> {
        let head = if self.two_byte_form { 2 } else { 1 };
        let to = self.bytes.get_mut(self.length..self.length + head + value.len())?;
        let (to_head, to_value) = to.split_at_mut(head);
        match to_head {
            [only] => *only = id << 4 | (value.len() as u8).wrapping_sub(1) & 0x0f,
            [first, second] => (*first, *second) = (id, value.len() as u8),
            _ => {}
        }
        to_value.copy_from_slice(value);
        self.length += head + value.len();
        Some(to_value)
    }

    /// With its own head, padded; empty where there are none.
    pub fn finish(&mut self) -> &[u8] {
        if self.length == 4 {
            return &[];
        }
        let length = self.length.next_multiple_of(4);
        self.bytes[self.length..length].fill(0);
        let form = if self.two_byte_form { TWO_BYTE_FORM } else { ONE_BYTE_FORM };
        self.bytes[..2].copy_from_slice(&form.to_be_bytes());
        self.bytes[2..4].copy_from_slice(&((length / 4 - 1) as u16).to_be_bytes());
        &self.bytes[..length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ones_take_the_short_form_and_are_padded() {
        let ids = ExtensionIds { audio_level: Some(1), mid: Some(4), ..ExtensionIds::default() };
        let mut block = Block::of(&MediaExtensions::voice(30), &ids);
        block.push(4, b"a1");
        assert_eq!(block.finish(), [0xbe, 0xde, 0, 2, 0x10, 0x80 | 30, 0x41, b'a', b'1', 0, 0, 0]);
    }

    #[test]
    fn a_long_descriptor_takes_the_long_form() {
        let ids = ExtensionIds { dependency: Some(6), ..ExtensionIds::default() };
        let dependency = Some(DependencyBytes::new(&[9; 21]));
        let mut block = Block::of(&MediaExtensions { dependency, ..MediaExtensions::default() }, &ids);
        block.push(3, &[1, 2]);
        let written = block.finish();
        assert_eq!((&written[..6], written.len()), ([0x10, 0, 0, 7, 6, 21].as_slice(), 32));
        assert_eq!(written[27..31], [3, 2, 1, 2]);
    }

    #[test]
    fn nothing_to_say_takes_no_bytes_and_too_much_is_left_out() {
        let mut block = Block::of(&MediaExtensions::default(), &ExtensionIds::default());
        assert!(block.finish().is_empty());
        let ids = ExtensionIds { dependency: Some(6), audio_level: Some(1), ..ExtensionIds::default() };
        let dependency = Some(DependencyBytes::new(&[9; 250]));
        let mut block = Block::of(&MediaExtensions { dependency, ..MediaExtensions::voice(1) }, &ids);
        block.push(5, &[7; 100]);
        assert_eq!(block.finish().len(), 4 + (3 + 252_usize).next_multiple_of(4));
    }

    #[test]
    fn playout_delays_are_two_times_of_twelve_bits() {
        let hundredths = |n| MediaTime::new(n, Frequency::HUNDREDTHS);
        assert_eq!(playout_delay(hundredths(0x123), hundredths(0x456)), [0x12, 0x34, 0x56]);
    }
}
