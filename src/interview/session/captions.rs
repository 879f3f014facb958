//! What is said, as LiveKit's text streams on the topic `lk.transcription`.
//!
//! A person's words: one stream for each interim text, then one for the final text, all with the same segment id, sent on
//! behalf of the speaker. The interviewer's: one stream that grows while the reply is made, then one that replaces it by
//! what was heard. Components show the latest text of a segment id.

use livekit_protocol::{
    DataPacket,
    data_packet::Value,
    data_stream::{Chunk, Header, OperationType, TextHeader, Trailer, header::ContentHeader},
};

use crate::{
    id::{Identity, TrackSid},
    interview::wall_ms,
};

const TOPIC: &str = "lk.transcription";
/// Most bytes in one chunk; clients refuse packets over 64 000.
const CHUNK_MAX: usize = 15_000;

/// Whose words they are.
pub(super) struct Of<'a> {
    /// The speaker, where that is not the sender.
    pub on_behalf: Option<&'a Identity>,
    /// The microphone track that was transcribed, or on which it is spoken.
    pub track: &'a TrackSid,
    pub segment: &'a str,
}

impl Of<'_> {
    fn packet(&self, value: Value) -> DataPacket {
        DataPacket {
            participant_identity: self.on_behalf.map(|i| i.as_str().to_owned()).unwrap_or_default(),
            value: Some(value),
            ..DataPacket::default()
        }
    }

    fn header(&self, stream: &str, total: Option<u64>, last: bool) -> DataPacket {
        let attributes = [
            ("lk.segment_id", self.segment),
            ("lk.transcription_final", if last { "true" } else { "false" }),
            ("lk.transcribed_track_id", self.track.as_str()),
        ];
        self.packet(Value::StreamHeader(Header {
            stream_id: stream.to_owned(),
            timestamp: wall_ms(),
            topic: TOPIC.to_owned(),
            mime_type: "text/plain".to_owned(),
            total_length: total,
            attributes: attributes.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            content_header: Some(ContentHeader::TextHeader(TextHeader {
                operation_type: OperationType::Create as i32,
                generated: true,
                ..TextHeader::default()
            })),
            ..Header::default()
        }))
    }

    fn trailer(&self, stream: &str) -> DataPacket {
        self.packet(Value::StreamTrailer(Trailer { stream_id: stream.to_owned(), ..Trailer::default() }))
    }

    fn chunks(&self, stream: &str, from: u64, text: &str) -> Vec<DataPacket> {
        split(text)
            .into_iter()
            .zip(from..)
            .map(|(part, chunk_index)| {
                self.packet(Value::StreamChunk(Chunk {
                    stream_id: stream.to_owned(),
                    chunk_index,
                    content: part.as_bytes().to_vec(),
                    ..Chunk::default()
                }))
            })
            .collect()
    }
}

/// A whole text in one stream.
pub(super) fn whole(of: &Of<'_>, text: &str, last: bool) -> Vec<DataPacket> {
    let stream = stream_id();
    let mut packets = vec![of.header(&stream, Some(text.len() as u64), last)];
    packets.extend(of.chunks(&stream, 0, text));
    packets.push(of.trailer(&stream));
    packets
}

/// A text that grows.
#[derive(Debug)]
pub(super) struct Growing {
    stream: String,
    chunks: u64,
}

impl Growing {
    pub fn open(of: &Of<'_>) -> (Self, DataPacket) {
        let growing = Self { stream: stream_id(), chunks: 0 };
        let header = of.header(&growing.stream, None, false);
        (growing, header)
    }

    pub fn add(&mut self, of: &Of<'_>, text: &str) -> Vec<DataPacket> {
        let packets = of.chunks(&self.stream, self.chunks, text);
        self.chunks += packets.len() as u64;
        packets
    }

    pub fn close(self, of: &Of<'_>) -> DataPacket {
        of.trailer(&self.stream)
    }
}

fn stream_id() -> String {
    ulid::Ulid::new().to_string()
}

/// Parts of at most [`CHUNK_MAX`] bytes, cut between characters.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(CHUNK_MAX);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (part, after) = rest.split_at(end);
        parts.push(part);
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_text_is_one_stream_on_behalf_of_the_speaker() {
        let (identity, track) = (Identity::from("sam"), TrackSid::from("TR_1"));
        let of = Of { on_behalf: Some(&identity), track: &track, segment: "s1" };
        let packets = whole(&of, "hello", true);
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
        let track = TrackSid::from("TR_1");
        let of = Of { on_behalf: None, track: &track, segment: "s1" };
        let (mut growing, _) = Growing::open(&of);
        let text = "é".repeat(CHUNK_MAX);
        let mut packets = growing.add(&of, &text);
        packets.extend(growing.add(&of, "end"));
        let mut all = Vec::new();
        for (i, packet) in packets.iter().enumerate() {
            let Some(Value::StreamChunk(chunk)) = &packet.value else { panic!() };
            assert_eq!(chunk.chunk_index, i as u64);
            assert!(std::str::from_utf8(&chunk.content).is_ok() && chunk.content.len() <= CHUNK_MAX);
            all.extend_from_slice(&chunk.content);
        }
        assert_eq!(String::from_utf8(all).unwrap(), text + "end");
    }
}
