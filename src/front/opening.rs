//! What a client speaks, by the first bytes that it sends. Pure.

/// STUN's magic cookie, RFC 8489 section 5.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Content type of a TLS handshake record, RFC 8446 section 5.1.
const TLS_HANDSHAKE: u8 = 0x16;
/// Where the cookie stands in a STUN message, and in one behind the two bytes of RFC 4571's length.
const COOKIE_BARE: usize = 4;
const COOKIE_FRAMED: usize = 6;
/// The high byte of a STUN message's type, or of a frame's length of up to 1,023 bytes: more than any client's first
/// message has.
const HIGH_BYTE_MAX: u8 = 0x03;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    Http,
    Tls,
    /// STUN in a frame of RFC 4571: ICE-TCP (RFC 6544).
    Ice,
    /// STUN as it is: TURN over TCP or TLS (RFC 8656 section 2.1).
    Turn,
    /// None of these.
    Unknown,
}

/// `None` where more bytes are needed; ten are enough for all.
pub fn opening(bytes: &[u8]) -> Option<Opening> {
    let cookie_at = |at: usize| bytes.get(at..at + MAGIC_COOKIE.len()).map(|found| found == MAGIC_COOKIE);
    match *bytes.first()? {
        TLS_HANDSHAKE => Some(Opening::Tls),
        // An empty line before the request is to be ignored, RFC 9112 section 2.2.
        b'A'..=b'Z' | b'a'..=b'z' | b'\r' | b'\n' => Some(Opening::Http),
        0..=HIGH_BYTE_MAX => match (cookie_at(COOKIE_BARE), cookie_at(COOKIE_FRAMED)) {
            (Some(true), _) => Some(Opening::Turn),
            (_, Some(true)) => Some(Opening::Ice),
            (_, Some(false)) => Some(Opening::Unknown),
            (_, None) => None,
        },
        _ => Some(Opening::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STUN: [u8; 12] = [0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 9, 9, 9, 9];

    fn framed(length: u16) -> Vec<u8> {
        [&length.to_be_bytes()[..], &STUN].concat()
    }

    #[test]
    fn each_protocol_is_told_by_its_first_bytes() {
        let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00];
        let allocate = [0x00, 0x03, 0x00, 0x10, 0x21, 0x12, 0xa4, 0x42];
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Opening::Http),
            (b"\r\nPOST /twirp", Opening::Http),
            (&hello, Opening::Tls),
            (&framed(108), Opening::Ice),
            (&framed(0x0158), Opening::Ice),
            (&STUN, Opening::Turn),
            (&allocate, Opening::Turn),
            // SSH, a DTLS record, RTP, and a length without a cookie behind it.
            (b"\x80\x60", Opening::Unknown),
            (b"\x17\x03", Opening::Unknown),
            (&[0; 10], Opening::Unknown),
        ] {
            assert_eq!(opening(bytes), Some(expected), "{bytes:x?}");
        }
    }

    #[test]
    fn nothing_is_decided_before_it_is_certain() {
        for (bytes, expected) in [(framed(108), Opening::Ice), (STUN.to_vec(), Opening::Turn)] {
            let decided = (0..bytes.len()).find_map(|length| opening(&bytes[..length]).map(|found| (length, found)));
            let enough = if expected == Opening::Ice { 10 } else { 8 };
            assert_eq!(decided, Some((enough, expected)));
        }
    }

    proptest! {
        #[test]
        fn any_ten_bytes_are_decided_and_more_change_nothing(bytes in proptest::collection::vec(any::<u8>(), 10..60)) {
            let early = opening(&bytes[..10]);
            prop_assert!(early.is_some());
            prop_assert_eq!(early, opening(&bytes));
            for length in 0..10 {
                let sooner = opening(&bytes[..length]);
                prop_assert!(sooner.is_none() || sooner == early);
            }
        }
    }
}
