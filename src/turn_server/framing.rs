//! STUN messages and channel data in a byte stream (RFC 8656, section 12.5: channel data is padded to four bytes there).

use bytes::{Buf, Bytes, BytesMut};

/// The stream holds what is neither; nothing after it can be found again.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Bytes that came, and the messages in them. Bounded by the longest message, since all that is complete is taken before
/// more is read.
#[derive(Debug, Default)]
pub struct Frames {
    pub buffer: BytesMut,
}

impl Frames {
    /// The next complete message.
    pub fn next(&mut self) -> Result<Option<Bytes>, Malformed> {
        let [kind, _, high, low, ..] = self.buffer[..] else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (message, padded) = match kind >> 6 {
            0 => (20 + length, 20 + length),
            1 => (4 + length, 4 + length.next_multiple_of(4)),
            _ => return Err(Malformed),
        };
        if self.buffer.len() < padded {
            return Ok(None);
        }
        let bytes = self.buffer.split_to(message).freeze();
        self.buffer.advance(padded - message);
        Ok(Some(bytes))
    }
}

/// A message as it goes into a stream.
pub fn pad(mut message: Vec<u8>) -> Vec<u8> {
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn channel(data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        [&[0x40, 1, length[0], length[1]], data].concat()
    }

    fn stun(data: &[u8]) -> Vec<u8> {
        let mut message = vec![0; 20 + data.len()];
        message[2..4].copy_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        message[20..].copy_from_slice(data);
        message
    }

    #[test]
    fn what_is_neither_ends_the_stream() {
        assert_eq!(Frames { buffer: BytesMut::from(&b"\x80abc"[..]) }.next(), Err(Malformed));
        assert_eq!(Frames { buffer: BytesMut::from(&b"\x40\x01\x00"[..]) }.next(), Ok(None));
    }

    proptest! {
        #[test]
        fn messages_are_found_however_the_stream_is_cut(
            messages in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            cut in 1usize..20,
        ) {
            // A STUN message is a multiple of four bytes by itself.
            let whole: Vec<Vec<u8>> = messages
                .iter()
                .map(|(is_stun, data)| if *is_stun { stun(&pad(data.clone())) } else { channel(data) })
                .collect();
            let stream: Vec<u8> = whole.iter().flat_map(|message| pad(message.clone())).collect();
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in stream.chunks(cut) {
                frames.buffer.extend_from_slice(piece);
                while let Some(message) = frames.next().expect("well formed") {
                    found.push(message.to_vec());
                }
            }
            prop_assert_eq!(found, whole);
        }

        #[test]
        fn no_stream_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames { buffer: BytesMut::from(&bytes[..]) };
            while let Ok(Some(_)) = frames.next() {}
        }
    }
}
