//! The SDP that is ours to read: which sections an offer has, whether a session can come of it; ICE credentials.
//!
//! An offer is brought into the one form that the rooms know: one direction, and tracks named by us. This reads text of
//! clients: it must take any bytes without panic.

use super::refusal::Refusal;

/// Media sections of one offer: a microphone and a camera, or what a player has for each; the rest is room for players.
const SECTIONS_MAX: usize = 8;
/// Bounds of ICE credentials (RFC 8839 section 5.4).
const UFRAG_CHARS: std::ops::RangeInclusive<usize> = 4..=256;
const PWD_CHARS: std::ops::RangeInclusive<usize> = 22..=256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Audio,
    Video,
}

/// What the session is for, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Sends,
    Receives,
}

/// An offer that a session can come of.
#[derive(Debug, PartialEq, Eq)]
pub struct Offer {
    /// The kinds of the sections that are used, in order.
    pub kinds: Vec<Kind>,
    /// The offer with one direction, and with [`track_id`] as the `msid` of what it sends.
    pub sdp: String,
}

/// How the track of a sending section is named.
pub fn track_id(kind: Kind) -> &'static str {
    match kind {
        Kind::Audio => "audio",
        Kind::Video => "video",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub ufrag: String,
    pub pwd: String,
}

impl Credentials {
    /// The first of each in these lines; `None` where one lacks or cannot be.
    pub fn read(text: &str) -> Option<Self> {
        let value = |name: &str, chars: std::ops::RangeInclusive<usize>| {
            let value = lines(text).find_map(|line| line.strip_prefix(name))?;
            let is_ice_char = |c: u8| c.is_ascii_alphanumeric() || c == b'+' || c == b'/' || c == b'-' || c == b'_';
            (chars.contains(&value.len()) && value.bytes().all(is_ice_char)).then(|| value.to_owned())
        };
        Some(Self { ufrag: value("a=ice-ufrag:", UFRAG_CHARS)?, pwd: value("a=ice-pwd:", PWD_CHARS)? })
    }
}

impl Offer {
    pub fn read(text: &str, way: Way) -> Result<Self, Refusal> {
        if !text.starts_with("v=0") {
            return Err(Refusal::BadSdp("the body is no SDP: it does not begin with `v=0`"));
        }
        if !lines(text).all(is_sdp_line) {
            return Err(Refusal::BadSdp("the SDP has a line that is not of the form `x=…`"));
        }
        if Credentials::read(text).is_none() {
            return Err(Refusal::BadSdp("the SDP lacks `a=ice-ufrag` or `a=ice-pwd`"));
        }
        let mut sections = lines(text).filter(|line| line.starts_with("m="));
        if sections.by_ref().nth(SECTIONS_MAX).is_some() {
            return Err(Refusal::Unsupported("the offer has more media sections than are taken, which is 8"));
        }
        let (mut kinds, mut sdp) = (Vec::new(), String::with_capacity(text.len() + 256));
        for (at, section) in split(text).enumerate() {
            let kind = match section.first().and_then(|line| line.strip_prefix("m=")) {
                Some(media) if at > 0 && media.starts_with("audio ") => Some(Kind::Audio),
                Some(media) if at > 0 && media.starts_with("video ") => Some(Kind::Video),
                _ => None,
            };
            match kind.filter(|_| !is_unused(&section)) {
                Some(kind) => {
                    check(&section, kind, way)?;
                    kinds.push(kind);
                    push_section(&mut sdp, &section, kind, way);
                }
                None => section.iter().for_each(|line| push(&mut sdp, line)),
            }
        }
        let twice = |kind| kinds.iter().filter(|it| **it == kind).count() > 1;
        if kinds.is_empty() {
            return Err(Refusal::Unsupported("the offer has no section for audio or video that is in use"));
        }
        if way == Way::Sends && (twice(Kind::Audio) || twice(Kind::Video)) {
            return Err(Refusal::Unsupported("the offer sends several tracks of one kind: one of each is taken"));
        }
        Ok(Self { kinds, sdp })
    }
}

const VIDEO_FORMATS: [&str; 4] = ["vp8/90000", "h264/90000", "vp9/90000", "av1/90000"];

/// Whether a session can use this section. None is refused alone: the client hears at once that it cannot have it all.
fn check(section: &[&str], kind: Kind, way: Way) -> Result<(), Refusal> {
    if !section.iter().any(|line| line.strip_prefix("a=mid:").is_some_and(|mid| !mid.trim().is_empty())) {
        return Err(Refusal::BadSdp("a media section of the SDP has no `a=mid`"));
    }
    match (way, direction(section)) {
        (Way::Sends, "recvonly") => {
            return Err(Refusal::Unsupported("WHIP only takes media; WHEP, at /whep/v1, gives"));
        }
        (Way::Receives, "sendonly") => {
            return Err(Refusal::Unsupported("WHEP only gives media; WHIP, at /whip/v1, takes"));
        }
        _ => {}
    }
    let offers = |codec: &str| {
        let formats = section.iter().filter_map(|line| line.strip_prefix("a=rtpmap:")?.split_whitespace().nth(1));
        formats.into_iter().any(|format| format.eq_ignore_ascii_case(codec))
    };
    match kind {
        Kind::Audio if offers("opus/48000/2") => Ok(()),
        Kind::Video if VIDEO_FORMATS.into_iter().any(offers) => Ok(()),
        Kind::Audio if offers("opus/48000") => {
            Err(Refusal::Unsupported("the audio section offers `opus/48000`: it must say `opus/48000/2` (RFC 7587)"))
        }
        Kind::Audio => Err(Refusal::Unsupported("the audio section offers no Opus, which is what is taken")),
        Kind::Video => Err(Refusal::Unsupported(
            "the video section offers none of VP8, H264, VP9 and AV1, which are what is taken",
        )),
    }
}

/// Rejected by port 0 without a bundle, or inactive.
fn is_unused(section: &[&str]) -> bool {
    let port = section.first().and_then(|line| line.split_whitespace().nth(1));
    let bundle_only = section.contains(&"a=bundle-only");
    direction(section) == "inactive" || (port == Some("0") && !bundle_only)
}

fn direction<'a>(section: &[&'a str]) -> &'a str {
    section.iter().filter_map(|line| as_direction(line)).next_back().unwrap_or("sendrecv")
}

fn as_direction(line: &str) -> Option<&str> {
    line.strip_prefix("a=").filter(|name| ["sendrecv", "sendonly", "recvonly", "inactive"].contains(name))
}

fn push_section(sdp: &mut String, section: &[&str], kind: Kind, way: Way) {
    let kept = section.iter().filter(|line| as_direction(line).is_none() && !line.starts_with("a=msid:"));
    kept.for_each(|line| push(sdp, line));
    match way {
        Way::Sends => {
            push(sdp, "a=sendonly");
            push(sdp, &format!("a=msid:whip {}", track_id(kind)));
        }
        Way::Receives => push(sdp, "a=recvonly"),
    }
}

/// The offer as it would be after an ICE restart of the client's.
pub fn with_credentials(offer: &str, new: &Credentials) -> String {
    let mut out = String::with_capacity(offer.len());
    for line in lines(offer) {
        if line.starts_with("a=ice-ufrag:") {
            push(&mut out, &format!("a=ice-ufrag:{}", new.ufrag));
        } else if line.starts_with("a=ice-pwd:") {
            push(&mut out, &format!("a=ice-pwd:{}", new.pwd));
        } else if !line.starts_with("a=candidate:") {
            push(&mut out, line);
        }
    }
    out
}

/// What a client must know of our answer after an ICE restart, as `application/trickle-ice-sdpfrag` (RFC 8840).
pub fn fragment(answer: &str) -> String {
    let wanted = ["a=group:BUNDLE", "a=ice-lite", "a=ice-options:"];
    let of_section = ["m=", "a=mid:", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=end-of-candidates"];
    let mut out = String::new();
    let mut parts = split(answer);
    let session = parts.next().unwrap_or_default();
    let first = parts.next().unwrap_or_default();
    let has = |names: &[&str], line: &str| names.iter().any(|name| line.starts_with(name));
    session.iter().filter(|line| has(&wanted, line)).for_each(|line| push(&mut out, line));
    first.iter().filter(|line| has(&of_section, line)).for_each(|line| push(&mut out, line));
    out
}

/// Checks what a client trickles: lines of SDP, candidates that look like such, at least something of ICE. Our side is
/// ICE-lite and answers whoever proves itself, so that nothing of it is used but new credentials.
pub fn check_fragment(text: &str) -> Result<(), Refusal> {
    let mut says_something = false;
    for line in lines(text) {
        if !is_sdp_line(line) {
            return Err(Refusal::BadFragment("the fragment has a line that is not of the form `x=…`"));
        }
        if line.strip_prefix("a=candidate:").is_some_and(|candidate| !is_candidate(candidate)) {
            return Err(Refusal::BadFragment("the fragment has a malformed `a=candidate`"));
        }
        let of_ice = ["a=candidate:", "a=end-of-candidates", "a=ice-ufrag:"];
        says_something |= of_ice.iter().any(|name| line.starts_with(name));
    }
    match says_something {
        true => Ok(()),
        false => Err(Refusal::BadFragment("the fragment has neither candidates nor ICE credentials")),
    }
}

/// `foundation component transport priority address port typ type …` (RFC 8839 section 5.1).
fn is_candidate(text: &str) -> bool {
    let words: Vec<_> = text.split_whitespace().collect();
    let [foundation, component, transport, priority, _address, port, typ, kind, ..] = words[..] else { return false };
    foundation.len() <= 32
        && component.parse::<u16>().is_ok()
        && ["udp", "tcp"].contains(&transport.to_ascii_lowercase().as_str())
        && priority.parse::<u32>().is_ok()
        && port.parse::<u16>().is_ok()
        && typ == "typ"
        && ["host", "srflx", "prflx", "relay"].contains(&kind)
}

fn is_sdp_line(line: &str) -> bool {
    let mut bytes = line.bytes();
    bytes.next().is_some_and(|c| c.is_ascii_lowercase()) && bytes.next() == Some(b'=')
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty())
}

/// The session's lines, then those of each section.
fn split(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let mut lines = lines(text).peekable();
    let mut is_first = true;
    std::iter::from_fn(move || {
        let mut part = Vec::new();
        if !std::mem::take(&mut is_first) {
            part.push(lines.next()?);
        }
        while let Some(line) = lines.next_if(|line| !line.starts_with("m=")) {
            part.push(line);
        }
        Some(part)
    })
}

fn push(out: &mut String, line: &str) {
    out.push_str(line);
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AUDIO: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\na=mid:0\r\na=ice-ufrag:abcd\r\n\
        a=ice-pwd:0123456789012345678901\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:0 PCMU/8000\r\n";
    const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\n";

    fn offer(sections: &[&str]) -> String {
        format!("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n{}", sections.concat())
    }

    fn why(sections: &[&str], way: Way) -> String {
        Offer::read(&offer(sections), way).unwrap_err().to_string()
    }

    #[test]
    fn an_offer_that_sends_gets_one_direction_and_our_names_for_its_tracks() {
        let text = offer(&[AUDIO, "a=msid:theirs 1234\r\na=sendrecv\r\n", VIDEO, "a=sendonly\r\n"]);
        let read = Offer::read(&text, Way::Sends).unwrap();
        assert_eq!(read.kinds, [Kind::Audio, Kind::Video]);
        assert_eq!((read.sdp.matches("a=sendonly\r\n").count(), read.sdp.matches("a=sendrecv").count()), (2, 0));
        assert!(read.sdp.contains("a=msid:whip audio\r\nm=video") && read.sdp.ends_with("a=msid:whip video\r\n"));
    }

    #[test]
    fn an_offer_that_receives_keeps_what_it_does_not_use() {
        let unused = "m=audio 9 UDP/TLS/RTP/SAVPF 8\r\na=mid:2\r\na=inactive\r\n";
        let read = Offer::read(&offer(&[AUDIO, VIDEO, "a=recvonly\r\n", unused]), Way::Receives).unwrap();
        assert_eq!(read.kinds, [Kind::Audio, Kind::Video]);
        assert_eq!(read.sdp.matches("a=recvonly\r\n").count(), 2);
        assert!(read.sdp.ends_with(unused));
    }

    #[test]
    fn what_cannot_become_a_session_is_refused_with_the_reason() {
        let pcm = AUDIO.replace("opus", "L16");
        let h265 = VIDEO.replace("VP8", "H265");
        assert!(why(&[&pcm], Way::Sends).contains("no Opus"));
        // The core would refuse this section alone, and its candidates with it.
        assert!(why(&[&AUDIO.replace("48000/2", "48000"), VIDEO], Way::Sends).contains("opus/48000/2"));
        assert!(why(&[AUDIO, &h265], Way::Receives).contains("none of VP8"));
        assert!(why(&[AUDIO, VIDEO, VIDEO], Way::Sends).contains("several tracks"));
        assert!(why(&[AUDIO, "a=recvonly\r\n"], Way::Sends).contains("/whep/v1"));
        assert!(why(&[AUDIO, "a=sendonly\r\n"], Way::Receives).contains("/whip/v1"));
        assert!(why(&[AUDIO, "a=inactive\r\n"], Way::Sends).contains("in use"));
        assert!(why(&[AUDIO; 9], Way::Receives).contains("more media sections"));
        assert!(why(&[VIDEO], Way::Sends).contains("ice-ufrag"));
        assert!(why(&[&AUDIO.replace("a=mid:0\r\n", "")], Way::Sends).contains("a=mid"));
        assert!(why(&[AUDIO, "nonsense\r\n"], Way::Sends).contains("form"));
        assert!(Offer::read("{}", Way::Sends).unwrap_err().to_string().contains("v=0"));
    }

    #[test]
    fn a_restart_changes_the_credentials_and_nothing_else() {
        let new = Credentials { ufrag: "wxyz".into(), pwd: "9".repeat(24) };
        let before = offer(&[AUDIO, VIDEO]);
        let after = with_credentials(&before, &new);
        assert_eq!(Credentials::read(&after), Some(new));
        assert_eq!(after.lines().count(), before.lines().count());
        assert_eq!(Credentials::read("a=ice-ufrag:ab\r\na=ice-pwd:0123456789012345678901"), None, "too short");
        assert_eq!(Credentials::read("a=ice-ufrag:ab d\r\na=ice-pwd:0123456789012345678901"), None);
    }

    #[test]
    fn a_fragment_of_an_answer_says_how_to_reach_us() {
        let answer = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\na=msid-semantic:WMS\r\n\
            m=audio 9 X 111\r\na=mid:0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=candidate:1 1 udp 1 192.0.2.1 7 typ host\r\n\
            a=rtpmap:111 opus/48000/2\r\nm=video 9 X 96\r\na=mid:1\r\na=ice-ufrag:u\r\n";
        assert_eq!(
            fragment(answer),
            "a=group:BUNDLE 0 1\r\na=ice-lite\r\nm=audio 9 X 111\r\na=mid:0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n\
            a=candidate:1 1 udp 1 192.0.2.1 7 typ host\r\n"
        );
    }

    #[test]
    fn fragments_are_checked() {
        let good = "a=ice-ufrag:abcd\r\na=ice-pwd:x\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
            a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag abcd\r\n\
            a=candidate:1 1 TCP 1 abc.local 9 typ host tcptype active\r\na=end-of-candidates\r\n";
        assert!(check_fragment(good).is_ok());
        assert!(check_fragment("a=end-of-candidates").is_ok());
        for bad in ["", "nonsense", "m=audio 9 RTP/AVP 0", "a=candidate:1 1 udp x 192.0.2.1 1 typ host", "a=candidate:"]
        {
            assert!(check_fragment(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(v=0\n)?([amv]=|mid:0|ice-ufrag:abcd|ice-pwd:|candidate:|rtpmap:1 |audio 9 |[ -~]|é|\n){0,60}") {
            for way in [Way::Sends, Way::Receives] {
                if let Ok(read) = Offer::read(&text, way) {
                    prop_assert_eq!(Offer::read(&read.sdp, way).map(|again| again.kinds).ok(), Some(read.kinds));
                }
            }
            let new = Credentials { ufrag: "wxyz".into(), pwd: "9".repeat(24) };
            let _ = (check_fragment(&text), fragment(&text), with_credentials(&text, &new), Credentials::read(&text));
        }
    }
}
