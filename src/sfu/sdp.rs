//! The little of SDP that is ours to read and write: sections of an offer, and `msid`s and directions of an answer.
//!
//! Everything else of SDP is str0m's. This reads text of clients: it must take any bytes without panic.

use super::{MediaKind, OpusOptions};

/// One `m=` section of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedSection {
    pub mid: String,
    /// `None` for the data channels and for what we do not know.
    pub kind: Option<MediaKind>,
    /// The client would send here.
    pub sends: bool,
    /// The client would receive here.
    pub receives: bool,
    /// The track part of its `a=msid`.
    pub track_id: String,
    /// Simulcast layers that the client would send, as ordered by it: lowest first with LiveKit's clients.
    pub rids: Vec<String>,
    /// Payload types, the one that it likes best first.
    pub formats: Vec<String>,
}

/// The sections of an offer in order. Sections without a `mid` are left out: str0m refuses such offers anyway.
pub fn offered_sections(sdp: &str) -> Vec<OfferedSection> {
    let bundle: Vec<&str> = sdp
        .lines()
        .find_map(|line| line.strip_prefix("a=group:BUNDLE"))
        .map(|mids| mids.split_whitespace().collect())
        .unwrap_or_default();
    split_sections(sdp).1.into_iter().filter_map(|lines| offered_section(&lines, &bundle)).collect()
}

fn offered_section(lines: &[&str], bundle: &[&str]) -> Option<OfferedSection> {
    let mut head = lines.first()?.strip_prefix("m=")?.split_whitespace();
    let kind = match head.next()? {
        "audio" => Some(MediaKind::Audio),
        "video" => Some(MediaKind::Video),
        _ => None,
    };
    let attribute = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
    let mid = attribute("a=mid:")?.trim();
    // Port 0 is a rejection, but not in a bundle (RFC 8843 section 7.5.3).
    let stopped = head.next() == Some("0") && !bundle.contains(&mid);
    let (mut sends, mut receives) = (true, true);
    for line in lines {
        (sends, receives) = match *line {
            "a=sendrecv" => (true, true),
            "a=sendonly" => (true, false),
            "a=recvonly" => (false, true),
            "a=inactive" => (false, false),
            _ => continue,
        };
    }
    let track_id = attribute("a=msid:").and_then(|msid| msid.split_whitespace().nth(1)).unwrap_or_default();
    let rids = attribute("a=simulcast:").map(sent_rids).unwrap_or_default();
    Some(OfferedSection {
        mid: mid.to_owned(),
        kind,
        sends: sends && !stopped,
        receives: receives && !stopped,
        track_id: track_id.to_owned(),
        rids,
        formats: head.skip(1).map(str::to_owned).collect(),
    })
}

/// `send q;~h;~f` (RFC 8853): the rids that the offerer sends, alternatives by their first.
fn sent_rids(simulcast: &str) -> Vec<String> {
    let mut words = simulcast.split_whitespace();
    while let Some(word) = words.next() {
        let list = words.next().unwrap_or_default();
        if word == "send" {
            let first = |layer: &str| layer.split(',').next().unwrap_or_default().trim_start_matches('~').to_owned();
            return list.split(';').map(first).filter(|rid| !rid.is_empty()).collect();
        }
    }
    Vec::new()
}

/// What our answer, or our offer, says about one section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionPlan {
    /// As str0m wrote it, but with the payload types in another order, since the first one is what the client sends: those
    /// of the codec that it announced, then as it offered them (RFC 3264 section 6.1).
    ///
    /// Of Opus, redundancy comes first where it is wanted, as browsers then send it so; and what else was announced is
    /// agreed to.
    Receive { formats: Vec<String>, codec: String, opus: OpusOptions },
    /// As str0m wrote it.
    Keep,
    /// The client may use the section later; nothing flows from us now.
    Silent { client_sends: bool },
    /// It carries this track; clients read both names from here.
    Carries { stream: String, track: String },
}

/// Rewrites str0m's answer or offer section by section.
pub fn rewrite(sdp: &str, mut plan: impl FnMut(&str) -> SectionPlan) -> String {
    let (session, sections) = split_sections(sdp);
    let mut out = String::with_capacity(sdp.len() + 64 * sections.len());
    let mut push = |line: &str| {
        out.push_str(line);
        out.push_str("\r\n");
    };
    session.iter().for_each(|line| push(line));
    for lines in sections {
        let mid = lines.iter().find_map(|line| line.strip_prefix("a=mid:")).map(str::trim);
        let plan = mid.map_or(SectionPlan::Keep, &mut plan);
        let (sent_as, opus) = match &plan {
            SectionPlan::Receive { formats, codec, opus } => {
                (in_order(&lines, formats, codec, opus.red), opus_format(&lines, *opus))
            }
            _ => (None, None),
        };
        for line in lines {
            if let Some(line) = sent_as.as_deref().filter(|_| line.starts_with("m=")) {
                push(line);
            } else if let Some((_, more)) = opus.as_ref().filter(|(format, _)| line.starts_with(format.as_str())) {
                push(&format!("{line}{more}"));
            } else if let Some(line) = rewrite_line(line, &plan) {
                push(&line);
            }
        }
    }
    out
}

fn rewrite_line<'a>(line: &'a str, plan: &SectionPlan) -> Option<std::borrow::Cow<'a, str>> {
    use std::borrow::Cow::{Borrowed, Owned};
    // Layers that the client would send paused are wanted: without this it starts none but those that it likes.
    if let Some(simulcast) = line.strip_prefix("a=simulcast:") {
        return Some(Owned(format!("a=simulcast:{}", simulcast.replace('~', ""))));
    }
    match plan {
        SectionPlan::Keep | SectionPlan::Receive { .. } => Some(Borrowed(line)),
        SectionPlan::Silent { client_sends } => match line {
            "a=sendrecv" | "a=sendonly" | "a=recvonly" | "a=inactive" => {
                Some(Borrowed(if *client_sends { "a=recvonly" } else { "a=inactive" }))
            }
            line if ["a=msid:", "a=ssrc:", "a=ssrc-group:"].iter().any(|prefix| line.starts_with(prefix)) => None,
            line => Some(Borrowed(line)),
        },
        SectionPlan::Carries { stream, track } => {
            if line.starts_with("a=msid:") {
                return Some(Owned(format!("a=msid:{stream} {track}")));
            }
            let of_ssrc = line.strip_prefix("a=ssrc:").and_then(|rest| rest.split_once(" msid:"));
            match of_ssrc {
                Some((ssrc, _)) => Some(Owned(format!("a=ssrc:{ssrc} msid:{stream} {track}"))),
                None => Some(Borrowed(line)),
            }
        }
    }
}

/// How the format line of Opus in a section begins, and what is to be put to its end.
fn opus_format(lines: &[&str], options: OpusOptions) -> Option<(String, &'static str)> {
    let more = match (options.dtx, options.stereo) {
        (false, false) => return None,
        (true, false) => ";usedtx=1",
        (false, true) => ";stereo=1;maxaveragebitrate=510000",
        (true, true) => ";usedtx=1;stereo=1;maxaveragebitrate=510000",
    };
    let pt = payload_type(lines, "opus")?;
    Some((format!("a=fmtp:{pt} "), more))
}

/// The payload type of a codec in a section.
fn payload_type<'a>(lines: &[&'a str], codec: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| {
        let (pt, map) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
        map.split('/').next()?.eq_ignore_ascii_case(codec).then_some(pt)
    })
}

/// The media line of a section with its payload types in another order; `None` where it has none.
fn in_order(lines: &[&str], formats: &[String], codec: &str, redundant: bool) -> Option<String> {
    const FIXED: usize = 3;
    let attribute = |name: &str, pt: &str| {
        let of_pt = |line: &&str| line.strip_prefix(name)?.strip_prefix(pt)?.strip_prefix(' ').map(str::to_owned);
        lines.iter().find_map(of_pt)
    };
    // Retransmissions go with what they are of.
    let is_announced = |pt: &str| {
        let of = attribute("a=fmtp:", pt).and_then(|format| format.strip_prefix("apt=").map(str::to_owned));
        let map = attribute("a=rtpmap:", of.as_deref().unwrap_or(pt)).unwrap_or_default();
        map.split('/').next().is_some_and(|name| name.eq_ignore_ascii_case(codec))
    };
    // Whoever sees it first sends it.
    let red = payload_type(lines, "red");
    let mut words: Vec<&str> = lines.first()?.split_whitespace().collect();
    words.get_mut(FIXED..)?.sort_by_cached_key(|pt| {
        let offered = formats.iter().position(|format| format == pt).unwrap_or(usize::MAX);
        (!is_announced(pt), (red == Some(*pt)) != redundant, offered)
    });
    Some(words.join(" "))
}

/// The offer without its candidates: as the ICE-lite side we never send to one that has not sent to us.
pub fn without_candidates(offer: &str) -> String {
    let mut out = String::with_capacity(offer.len());
    for line in offer.lines() {
        let line = line.trim_end_matches('\r');
        if !line.starts_with("a=candidate:") && line != "a=end-of-candidates" {
            out.push_str(line);
            out.push_str("\r\n");
        }
    }
    out
}

/// The lines before the first `m=` line, and those of each section.
fn split_sections(sdp: &str) -> (Vec<&str>, Vec<Vec<&str>>) {
    let (mut session, mut sections) = (Vec::new(), Vec::<Vec<&str>>::new());
    for line in sdp.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty()) {
        if line.starts_with("m=") {
            sections.push(vec![line]);
        } else if let Some(section) = sections.last_mut() {
            section.push(line);
        } else {
            session.push(line);
        }
    }
    (session, sections)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\na=group:BUNDLE 0 1 2\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=recvonly\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=sendonly\r\na=msid:camera 1f2e-cid\r\n\
        a=rid:q send\r\na=simulcast:send q;~h;~f\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n\
        m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:3\r\na=sendonly\r\na=msid:s gone\r\n";

    #[test]
    fn sections_are_read_with_their_direction_track_and_layers() {
        let sections = offered_sections(OFFER);
        assert_eq!(sections.len(), 4);
        assert!(sections[0].receives && !sections[0].sends);
        assert_eq!(sections[0].kind, Some(MediaKind::Audio));
        assert!(sections[1].sends && !sections[1].receives);
        assert_eq!(sections[1].track_id, "1f2e-cid");
        assert_eq!(sections[1].rids, ["q", "h", "f"]);
        assert_eq!(sections[1].formats, ["96"]);
        assert_eq!(sections[2].kind, None);
        assert!(!sections[3].sends, "a stopped section sends nothing");
    }

    #[test]
    fn an_answer_names_our_tracks_silences_unused_sections_and_wakes_paused_layers() {
        let answer = "v=0\r\nm=audio 9 X 111\r\na=mid:0\r\na=sendonly\r\na=msid:rnd rnd\r\na=ssrc:7 cname:c\r\n\
            a=ssrc:7 msid:rnd rnd\r\nm=audio 9 X 111\r\na=mid:1\r\na=sendonly\r\na=msid:r r\r\na=ssrc:8 cname:c\r\n\
            m=video 9 X 96\r\na=mid:2\r\na=recvonly\r\na=simulcast:recv q;~h;~f\r\n";
        let rewritten = rewrite(answer, |mid| match mid {
            "0" => SectionPlan::Carries { stream: "PA_a|TR_b".into(), track: "TR_b".into() },
            "1" => SectionPlan::Silent { client_sends: false },
            _ => SectionPlan::Keep,
        });
        assert_eq!(
            rewritten,
            "v=0\r\nm=audio 9 X 111\r\na=mid:0\r\na=sendonly\r\na=msid:PA_a|TR_b TR_b\r\na=ssrc:7 cname:c\r\n\
             a=ssrc:7 msid:PA_a|TR_b TR_b\r\nm=audio 9 X 111\r\na=mid:1\r\na=inactive\r\n\
             m=video 9 X 96\r\na=mid:2\r\na=recvonly\r\na=simulcast:recv q;h;f\r\n"
        );
    }

    #[test]
    fn an_answer_puts_first_what_the_client_announced_and_keeps_its_order() {
        let answer = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99\r\na=mid:0\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n\
            a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtpmap:98 VP9/90000\r\na=rtpmap:99 rtx/90000\r\n\
            a=fmtp:99 apt=98\r\n";
        let formats: Vec<String> = ["45", "97", "96", "99", "98"].map(str::to_owned).into();
        let first_line = |codec: &str| {
            let plan = |_: &str| SectionPlan::Receive {
                formats: formats.clone(),
                codec: codec.to_owned(),
                opus: OpusOptions::default(),
            };
            rewrite(answer, plan).lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(first_line(""), "m=video 9 UDP/TLS/RTP/SAVPF 97 96 99 98");
        assert_eq!(first_line("vp9"), "m=video 9 UDP/TLS/RTP/SAVPF 99 98 97 96");
    }

    #[test]
    fn an_answer_agrees_to_what_was_announced_of_opus() {
        let answer = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\na=mid:0\r\na=recvonly\r\na=rtpmap:111 opus/48000/2\r\n\
            a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n";
        let formats: Vec<String> = ["111", "63", "9"].map(str::to_owned).into();
        let answered = |red, dtx, stereo| {
            let opus = OpusOptions { red, dtx, stereo };
            let rewritten =
                rewrite(answer, |_| SectionPlan::Receive { formats: formats.clone(), codec: String::new(), opus });
            let line = |at: usize| rewritten.lines().nth(at).unwrap().to_owned();
            (line(1), line(5), line(7))
        };
        let (media, opus, red) = answered(true, true, false);
        assert_eq!(media, "m=audio 9 UDP/TLS/RTP/SAVPF 63 111");
        assert_eq!(opus, "a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1");
        assert_eq!(red, "a=fmtp:63 111/111");
        let (media, opus, _) = answered(false, false, true);
        assert_eq!(media, "m=audio 9 UDP/TLS/RTP/SAVPF 111 63");
        assert_eq!(opus, "a=fmtp:111 minptime=10;useinbandfec=1;stereo=1;maxaveragebitrate=510000");
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_rewritten_without_panic(text in "([am]=|mid:|msid:|simulcast:send |audio 0 |[ -~]|\n){0,80}") {
            let sections = offered_sections(&text);
            let kept = rewrite(&text, |_| SectionPlan::Silent { client_sends: true });
            prop_assert!(offered_sections(&kept).len() == sections.len());
            let _ = without_candidates(&text);
            let _ = rewrite(&text, |_| SectionPlan::Receive {
                formats: vec!["0".to_owned()],
                codec: "a".to_owned(),
                opus: OpusOptions { red: true, dtx: true, stereo: true },
            });
        }
    }
}
