//! What is said, as LiveKit's text streams on the topic `lk.transcription`, and as the older packets that came before
//! them, which components for voice agents still read.
//!
//! A person's words: one stream for each interim text, then one for the final text, all with the same segment id, sent on
//! behalf of the speaker. The interviewer's: one stream that grows while the reply is made, then one that replaces it by
//! what was heard. Components show the latest text of a segment id.

use livekit_protocol::{DataPacket, Transcription, TranscriptionSegment, data_packet::Value};

use super::streams::{self, Stream};
use crate::id::{Identity, TrackSid};

const TOPIC: &str = "lk.transcription";

/// Whose words they are.
pub(super) struct Of<'a> {
    pub speaker: &'a Identity,
    /// The interviewer.
    pub sender: &'a Identity,
    /// The microphone track that was transcribed, or on which it is spoken.
    pub track: &'a TrackSid,
    pub segment: &'a str,
}

impl Of<'_> {
    fn stream(&self, last: bool) -> Stream<'_> {
        Stream {
            topic: TOPIC,
            on_behalf: (self.speaker != self.sender).then_some(self.speaker),
            attributes: vec![
                ("lk.segment_id", self.segment),
                ("lk.transcription_final", if last { "true" } else { "false" }),
                ("lk.transcribed_track_id", self.track.as_str()),
            ],
        }
    }

    /// The older form: always the whole text of a segment, which replaces what was sent of it before.
    fn packet(&self, text: &str, last: bool) -> DataPacket {
        let segment = TranscriptionSegment {
            id: self.segment.to_owned(),
            text: text.to_owned(),
            r#final: last,
            ..TranscriptionSegment::default()
        };
        let transcription = Transcription {
            transcribed_participant_identity: self.speaker.as_str().to_owned(),
            track_id: self.track.as_str().to_owned(),
            segments: vec![segment],
        };
        DataPacket { value: Some(Value::Transcription(transcription)), ..DataPacket::default() }
    }
}

/// A whole text.
pub(super) fn whole(of: &Of<'_>, text: &str, last: bool) -> Vec<DataPacket> {
    let mut packets = of.stream(last).whole(text);
    packets.push(of.packet(text, last));
    packets
}

/// A text that grows.
#[derive(Debug)]
pub(super) struct Growing {
    stream: String,
    chunks: u64,
    text: String,
}

impl Growing {
    pub fn open(of: &Of<'_>) -> (Self, DataPacket) {
        let growing = Self { stream: streams::new_id(), chunks: 0, text: String::new() };
        let header = of.stream(false).header(&growing.stream, None);
        (growing, header)
    }

    pub fn add(&mut self, of: &Of<'_>, text: &str) -> Vec<DataPacket> {
        let mut packets = of.stream(false).chunks(&self.stream, self.chunks, text);
        self.chunks += packets.len() as u64;
        self.text.push_str(text);
        packets.push(of.packet(&self.text, false));
        packets
    }

    pub fn close(self, of: &Of<'_>) -> DataPacket {
        of.stream(true).trailer(&self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::streams::CHUNK_MAX, *};

    #[test]
    fn a_whole_text_is_one_stream_on_behalf_of_the_speaker() {
        let (speaker, sender, track) = (Identity::from("sam"), Identity::from("ai"), TrackSid::from("TR_1"));
        let of = Of { speaker: &speaker, sender: &sender, track: &track, segment: "s1" };
        let mut packets = whole(&of, "hello", true);
        let Some(Value::Transcription(old)) = packets.pop().unwrap().value else { panic!() };
        assert_eq!((old.transcribed_participant_identity.as_str(), old.track_id.as_str()), ("sam", "TR_1"));
        let segment = &old.segments[0];
        assert_eq!((segment.id.as_str(), segment.text.as_str(), segment.r#final), ("s1", "hello", true));
        assert_eq!(packets.len(), 3);
        assert!(packets.iter().all(|p| p.participant_identity == "sam"));
        let Some(Value::StreamHeader(header)) = &packets[0].value else { panic!() };
        assert_eq!(header.topic, "lk.transcription");
        assert_eq!(header.attributes["lk.segment_id"], "s1");
        assert_eq!(header.attributes["lk.transcription_final"], "true");
        assert_eq!(header.attributes["lk.transcribed_track_id"], "TR_1");
        let Some(Value::StreamChunk(chunk)) = &packets[1].value else { panic!() };
        assert_eq!((chunk.content.as_slice(), &chunk.stream_id), (b"hello".as_slice(), &header.stream_id));
        assert!(matches!(&packets[2].value, Some(Value::StreamTrailer(t)) if t.stream_id == header.stream_id));
    }

    #[test]
    fn chunks_are_numbered_on_and_cut_between_characters() {
        let (ai, track) = (Identity::from("ai"), TrackSid::from("TR_1"));
        let of = Of { speaker: &ai, sender: &ai, track: &track, segment: "s1" };
        let (mut growing, _) = Growing::open(&of);
        let text = "é".repeat(CHUNK_MAX);
        let mut packets = growing.add(&of, &text);
        packets.extend(growing.add(&of, "end"));
        let (chunks, old): (Vec<_>, Vec<_>) =
            packets.iter().partition(|p| matches!(p.value, Some(Value::StreamChunk(_))));
        let Some(Value::Transcription(old)) = &old.last().unwrap().value else { panic!() };
        assert_eq!(old.segments[0].text, format!("{text}end"), "the older form is told everything each time");
        let mut all = Vec::new();
        for (i, packet) in chunks.iter().enumerate() {
            assert!(packet.participant_identity.is_empty());
            let Some(Value::StreamChunk(chunk)) = &packet.value else { panic!() };
            assert_eq!(chunk.chunk_index, i as u64);
            assert!(std::str::from_utf8(&chunk.content).is_ok() && chunk.content.len() <= CHUNK_MAX);
            all.extend_from_slice(&chunk.content);
        }
        assert_eq!(String::from_utf8(all).unwrap(), text + "end");
    }
}
