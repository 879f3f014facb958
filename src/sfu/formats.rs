//! What a connection's payload types mean. They must mean one thing in all sections and all offers (RFC 8843 section 9.1,
//! RFC 3264 section 8.3.2); str0m takes that for granted. Pure.
//!
//! This reads text of clients: it must take any bytes without panic.

use std::collections::HashMap;

/// Payload types have seven bits.
const PAYLOAD_TYPES: u8 = 128;

/// The meanings of one connection's payload types, from the first description on.
#[derive(Default)]
pub struct Formats {
    /// Codec and clock; of retransmissions, what they are of.
    meanings: HashMap<u8, Meaning>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Meaning {
    codec: String,
    of: Option<u8>,
}

impl Formats {
    /// Takes a description's payload types. False where one means something else than before, or two things, or is none:
    /// then nothing is kept.
    pub fn learn(&mut self, sdp: &str) -> bool {
        let mut learnt: HashMap<u8, Meaning> = HashMap::new();
        for section in sdp.split("\nm=").skip(1) {
            let Some(of_section) = section_formats(section) else { return false };
            for (pt, meaning) in of_section {
                let known = learnt.get(&pt).or_else(|| self.meanings.get(&pt));
                if known.is_some_and(|known| *known != meaning) {
                    return false;
                }
                learnt.insert(pt, meaning);
            }
        }
        let all = || self.meanings.iter().filter(|(pt, _)| !learnt.contains_key(pt)).chain(&learnt);
        // Two streams of retransmissions for one codec: which is meant cannot be said.
        let mut resent: Vec<u8> = all().filter_map(|(_, meaning)| meaning.of).collect();
        resent.sort_unstable();
        if resent.windows(2).any(|pair| pair[0] == pair[1]) {
            return false;
        }
        self.meanings.extend(learnt);
        true
    }
}

/// The payload types that a section describes; `None` where it describes one twice, or one that is none.
fn section_formats(section: &str) -> Option<HashMap<u8, Meaning>> {
    let mut formats: HashMap<u8, Meaning> = HashMap::new();
    let attribute = |line: &str, name: &str| -> Option<(Option<u8>, String)> {
        let (pt, value) = line.trim_end().strip_prefix(name)?.split_once(' ')?;
        Some((pt.parse().ok().filter(|pt| *pt < PAYLOAD_TYPES), value.trim().to_ascii_lowercase()))
    };
    for line in section.lines() {
        if let Some((pt, codec)) = attribute(line, "a=rtpmap:")
            && formats.insert(pt?, Meaning { codec, of: None }).is_some()
        {
            return None;
        }
    }
    for line in section.lines() {
        let Some((pt, parameters)) = attribute(line, "a=fmtp:") else { continue };
        let Some(meaning) = formats.get_mut(&pt?) else { continue };
        for of in parameters.split(';').filter_map(|parameter| parameter.trim().strip_prefix("apt=")) {
            // One that is no number counts, too: whatever it is taken for, it is not what another one says.
            if meaning.of.replace(of.trim().parse().unwrap_or(u8::MAX)).is_some() {
                return None;
            }
        }
    }
    let head = section.lines().next().unwrap_or_default();
    let numbers = head.split_whitespace().skip(3).filter(|_| !head.starts_with("application"));
    let all_are = numbers.clone().all(|pt| pt.parse::<u8>().is_ok_and(|pt| pt < PAYLOAD_TYPES));
    all_are.then_some(formats)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIDEO: &str = "v=0\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\n\
        a=fmtp:97 apt=96\r\n";

    #[test]
    fn a_payload_type_means_one_thing_in_all_sections_and_all_offers() {
        let mut formats = Formats::default();
        assert!(formats.learn(VIDEO));
        assert!(formats.learn(&format!("{VIDEO}{}", &VIDEO[4..])), "again, and in another section");
        assert!(!formats.learn(&VIDEO.replace("VP8", "H264")), "another codec in a later offer");
        assert!(!formats.learn(&format!("{VIDEO}{}", VIDEO[4..].replace("VP8", "VP9"))), "in another section");
        assert!(!formats.learn(&VIDEO.replace("apt=96", "apt=98")));
        assert!(!formats.learn(&format!("{VIDEO}a=fmtp:97 apt=98\r\n")), "retransmissions of two");
        assert!(!formats.learn(&VIDEO.replace("apt=96", "apt=96;apt=98")), "in one line");
        assert!(!formats.learn(&format!("{VIDEO}a=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=96\r\n")), "two of one");
        assert!(!formats.learn(&VIDEO.replace("96", "200")), "eight bits");
        assert!(!Formats::default().learn("v=0\nm=audio 9 RTP/SAVPF x\r\n"));
        assert!(formats.learn("v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"));
        assert!(formats.learn(VIDEO), "what was refused left nothing behind");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(m=video 9 X |a=rtpmap:|a=fmtp:|apt=| |[0-9]{1,3}|[ -~]|\n){0,60}") {
            Formats::default().learn(&text);
        }
    }
}
