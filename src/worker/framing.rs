//! Datagrams on a stream: two bytes of length, big endian, before each (RFC 4571 section 2). Pure.

/// The largest frame that is taken: STUN, DTLS and RTP keep to what fits a network's packets, some 1,300 bytes. Larger is
/// no media, and its sender would have us keep it until it is whole.
pub const FRAME_BYTES_MAX: usize = 4_096;
/// Before each frame.
pub const LENGTH_BYTES: usize = 2;

/// The stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is longer than any media packet")]
pub struct TooLong(pub usize);

/// Appends a frame.
pub fn write_frame(out: &mut Vec<u8>, payload: &[u8]) {
    debug_assert!(payload.len() <= usize::from(u16::MAX));
    out.extend((payload.len() as u16).to_be_bytes());
    out.extend(payload);
}

/// A frame, and what is behind it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// The first frame of these bytes; `None` where it is not whole yet.
pub fn first_frame(bytes: &[u8]) -> Result<Option<Split<'_>>, TooLong> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > FRAME_BYTES_MAX {
        return Err(TooLong(length));
    }
    Ok(rest.split_at_checked(length))
}

/// Makes frames of what is read, however it was cut.
#[derive(Debug, Default)]
pub struct Deframer {
    /// The beginning of a frame that is not whole yet.
    partial: Vec<u8>,
}

impl Deframer {
    /// Hands every frame that is whole to `each`. After an error the stream is of no use.
    pub fn read(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        let joined = (!self.partial.is_empty()).then(|| {
            self.partial.extend(bytes);
            std::mem::take(&mut self.partial)
        });
        let mut rest = joined.as_deref().unwrap_or(bytes);
        while let Some((frame, behind)) = first_frame(rest)? {
            each(frame);
            rest = behind;
        }
        self.partial.extend(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        frames.iter().for_each(|frame| write_frame(&mut out, frame));
        out
    }

    fn read(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<Vec<Vec<u8>>, TooLong> {
        let (mut deframer, mut frames) = (Deframer::default(), Vec::new());
        for piece in pieces {
            deframer.read(piece.as_ref(), |frame| frames.push(frame.to_vec()))?;
        }
        Ok(frames)
    }

    #[test]
    fn cut_at_every_byte_the_frames_are_the_same() {
        let frames = vec![vec![1; 300], vec![], vec![2], vec![3; FRAME_BYTES_MAX]];
        let bytes = stream(&frames);
        for at in 0..=bytes.len() {
            assert_eq!(read([&bytes[..at], &bytes[at..]]).as_ref(), Ok(&frames), "cut at {at}");
        }
        assert_eq!(read(bytes.chunks(1)), Ok(frames));
    }

    #[test]
    fn a_frame_too_long_ends_the_stream_before_it_is_kept() {
        let mut bytes = stream(&[vec![7; 10]]);
        bytes.extend((FRAME_BYTES_MAX as u16 + 1).to_be_bytes());
        let (mut deframer, mut seen) = (Deframer::default(), 0);
        let read = deframer.read(&bytes, |frame| seen += frame.len());
        assert_eq!((read, seen), (Err(TooLong(FRAME_BYTES_MAX + 1)), 10));
    }

    proptest! {
        #[test]
        fn any_cuts_give_the_same_frames(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..20),
            cuts in proptest::collection::vec(1usize..300, 1..60),
        ) {
            let bytes = stream(&frames);
            let (mut rest, mut pieces, mut cuts) = (&bytes[..], Vec::new(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                pieces.push(piece);
                rest = behind;
            }
            prop_assert_eq!(read(pieces), Ok(frames));
        }

        #[test]
        fn garbage_is_read_without_panic_and_keeps_little(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3_000), 0..10),
        ) {
            let mut deframer = Deframer::default();
            for piece in pieces {
                if deframer.read(&piece, |frame| assert!(frame.len() <= FRAME_BYTES_MAX)).is_err() {
                    break;
                }
                prop_assert!(deframer.partial.len() < FRAME_BYTES_MAX + LENGTH_BYTES);
            }
        }
    }
}
