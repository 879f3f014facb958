//! How many parts a message has, counted before it is read.
//!
//! Two bytes of protobuf, or three of JSON, can be an empty message in a list, which takes hundreds of bytes in memory: a
//! frame of half a megabyte would become a hundred. So what has more parts than any client sends is not read at all.

/// Parts of one message. A client that syncs its state in a room of 50 sends some thousands; metadata of 64 KiB can look
/// like 32,768 at worst.
const PARTS_MAX: usize = 40_000;
/// How deep parts are counted: a frame, its request, lists in it, messages in these, and lists of theirs.
const DEPTH_MAX: usize = 4;

/// Whether a protobuf message has few enough fields. It may still be malformed.
pub fn protobuf_fits(bytes: &[u8]) -> bool {
    let mut left = PARTS_MAX;
    count(bytes, DEPTH_MAX, &mut left);
    left > 0
}

/// Counts fields down to `left` = 0. Texts are walked like messages, since they cannot be told apart; they end soon.
fn count(mut bytes: &[u8], depth: usize, left: &mut usize) {
    while !bytes.is_empty() && *left > 0 {
        let Some((tag, rest)) = varint(bytes) else { return };
        *left -= 1;
        let skipped = match tag & 7 {
            0 => varint(rest).map(|(_, rest)| rest),
            1 => rest.get(8..),
            2 => varint(rest).and_then(|(length, rest)| {
                let (inner, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                if depth > 0 {
                    count(inner, depth - 1, left);
                }
                Some(rest)
            }),
            5 => rest.get(4..),
            _ => None,
        };
        let Some(rest) = skipped else { return };
        bytes = rest;
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (n, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * n).min(63);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[n + 1..]));
        }
    }
    None
}

/// Whether a JSON text has few enough values. Commas in its strings count too.
pub fn json_fits(text: &str) -> bool {
    text.bytes().filter(|byte| matches!(byte, b',' | b'{' | b'[')).nth(PARTS_MAX).is_none()
}

#[cfg(test)]
mod tests {
    use livekit_protocol as proto;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn sync(tracks: usize) -> Vec<u8> {
        use proto::signal_request::Message as Ask;
        let publish_tracks = vec![proto::TrackPublishedResponse::default(); tracks];
        let state = proto::SyncState { publish_tracks, ..Default::default() };
        proto::SignalRequest { message: Some(Ask::SyncState(state)) }.encode_to_vec()
    }

    #[test]
    fn a_list_that_is_small_on_the_wire_and_large_in_memory_is_not_read() {
        assert!(protobuf_fits(&sync(1_000)));
        let bomb = sync(100_000);
        assert!(bomb.len() < 256 * 1024, "it would fit a frame");
        assert!(!protobuf_fits(&bomb));
        assert!(!json_fits(&format!("[{}]", "{},".repeat(50_000))));
        assert!(json_fits(&"x".repeat(500_000)));
    }

    #[test]
    fn texts_of_any_length_that_is_allowed_are_no_lists() {
        let text = |c: &str| {
            let update = proto::UpdateParticipantMetadata { metadata: c.repeat(65_536), ..Default::default() };
            let ask = proto::signal_request::Message::UpdateMetadata(update);
            proto::SignalRequest { message: Some(ask) }.encode_to_vec()
        };
        assert!(["a", "0", "(", "{", " ", "\u{1}"].iter().all(|c| protobuf_fits(&text(c))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_counted(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(protobuf_fits(&bytes));
        }
    }
}
