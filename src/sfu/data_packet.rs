//! The header of a packet on the data track channel, as far as a forwarder reads it. Everything after it, frames and
//! their order too, is between the two ends.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! | ver |mark |X|res|   reserved    |            handle             |
//! |           sequence            |         frame number          |
//! |                           timestamp                           |
//! |  words of extension, less 1   |  extensions, if X is set  …
//! ```
//! Numbers are big-endian; handle 0 belongs to nobody. Source: LiveKit's crate `livekit-datatrack` 0.2.

/// Bytes of one packet. LiveKit's clients make them of 16,000 at most.
const PACKET_BYTES_MAX: usize = 64_000;
const HEADER_BYTES: usize = 12;
/// The only version so far; it stands in the upper three bits.
const VERSION: u8 = 0;
const VERSION_SHIFT: u8 = 5;
const HAS_EXTENSIONS: u8 = 0x04;

/// The publisher's number of the track that this packet is of; `None` for what is no packet.
pub fn handle(packet: &[u8]) -> Option<u16> {
    let header = packet.get(..HEADER_BYTES).filter(|_| packet.len() <= PACKET_BYTES_MAX)?;
    if header[0] >> VERSION_SHIFT != VERSION {
        return None;
    }
    if header[0] & HAS_EXTENSIONS != 0 {
        let words = packet.get(HEADER_BYTES..HEADER_BYTES + 2)?;
        // The two bytes that say how many belong to the first word.
        let bytes = 4 * (usize::from(u16::from_be_bytes([words[0], words[1]])) + 1);
        packet.get(HEADER_BYTES..HEADER_BYTES + bytes)?;
    }
    Some(u16::from_be_bytes([header[2], header[3]])).filter(|handle| *handle != 0)
}

/// Gives a packet another number. Only for what [`handle`] takes for a packet.
pub fn set_handle(packet: &mut [u8], handle: u16) {
    if let Some(place) = packet.get_mut(2..4) {
        place.copy_from_slice(&handle.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A whole frame of track 0x0102 with a user timestamp (tag 2, 8 bytes, padded to three words), then "hi".
    const PACKET: &[u8] = &[
        0x1c, 0, 1, 2, 0, 7, 0, 9, 0, 0, 0, 1, // header
        0, 2, 2, 8, 0, 0, 0, 0, 0, 0, 0, 5, // extensions
        b'h', b'i',
    ];

    #[test]
    fn the_number_is_read_and_nothing_else_changes_when_it_is_written() {
        assert_eq!(handle(PACKET), Some(0x0102));
        let mut packet = PACKET.to_vec();
        set_handle(&mut packet, 0xfffe);
        assert_eq!(handle(&packet), Some(0xfffe));
        assert_eq!((&packet[..2], &packet[4..]), (&PACKET[..2], &PACKET[4..]));
    }

    #[test]
    fn what_is_cut_short_or_from_the_future_is_no_packet() {
        let mut bare = PACKET[..12].to_vec();
        assert_eq!(handle(&bare), None, "extensions are announced and not there");
        bare[0] = 0x18;
        assert_eq!(handle(&bare), Some(0x0102));
        assert_eq!(handle(&bare[..11]), None);
        assert_eq!(handle(&PACKET[..23]), None, "the last word is not whole");
        let mut future = PACKET.to_vec();
        future[0] |= 0x20;
        assert_eq!(handle(&future), None);
        let mut nobody = PACKET.to_vec();
        set_handle(&mut nobody, 0);
        assert_eq!(handle(&nobody), None);
        let mut large = bare.clone();
        large.resize(PACKET_BYTES_MAX + 1, 0);
        assert_eq!(handle(&large), None);
        assert_eq!(handle(&large[..PACKET_BYTES_MAX]), Some(0x0102));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_a_rewrite_touches_two_bytes(mut packet in prop::collection::vec(any::<u8>(), 0..64), number: u16) {
            let before = packet.clone();
            let was = handle(&packet);
            set_handle(&mut packet, number);
            prop_assert_eq!(packet.len(), before.len());
            prop_assert!(before.iter().zip(&packet).enumerate().all(|(at, (a, b))| a == b || at == 2 || at == 3));
            if was.is_some() {
                prop_assert_eq!(handle(&packet), Some(number).filter(|number| *number != 0));
            }
        }
    }
}
