//! LiveKit's text streams as they leave: a header, chunks, a trailer.

use livekit_protocol::{
    DataPacket,
    data_packet::Value,
    data_stream::{Chunk, Header, OperationType, TextHeader, Trailer, header::ContentHeader},
};

use crate::{id::Identity, interview::wall_ms};

/// Most bytes in one chunk; clients refuse packets over 64 000.
pub(super) const CHUNK_MAX: usize = 15_000;

/// What all packets of a stream say of it.
pub(super) struct Stream<'a> {
    pub topic: &'static str,
    /// Whose words they are, where that is not the sender.
    pub on_behalf: Option<&'a Identity>,
    pub attributes: Vec<(&'static str, &'a str)>,
}

pub(super) fn new_id() -> String {
    ulid::Ulid::new().to_string()
}

impl Stream<'_> {
    /// A whole text.
    pub fn whole(&self, text: &str) -> Vec<DataPacket> {
        let id = new_id();
        let mut packets = vec![self.header(&id, Some(text.len() as u64))];
        packets.extend(self.chunks(&id, 0, text));
        packets.push(self.trailer(&id));
        packets
    }

    /// `total`: the whole length in bytes, where it is known.
    pub fn header(&self, id: &str, total: Option<u64>) -> DataPacket {
        self.packet(Value::StreamHeader(Header {
            stream_id: id.to_owned(),
            timestamp: wall_ms(),
            topic: self.topic.to_owned(),
            mime_type: "text/plain".to_owned(),
            total_length: total,
            attributes: self.attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            content_header: Some(ContentHeader::TextHeader(TextHeader {
                operation_type: OperationType::Create as i32,
                generated: true,
                ..TextHeader::default()
            })),
            ..Header::default()
        }))
    }

    /// A piece of the text, as chunks numbered on from `from`.
    pub fn chunks(&self, id: &str, from: u64, text: &str) -> Vec<DataPacket> {
        split(text)
            .into_iter()
            .zip(from..)
            .map(|(part, chunk_index)| {
                self.packet(Value::StreamChunk(Chunk {
                    stream_id: id.to_owned(),
                    chunk_index,
                    content: part.as_bytes().to_vec(),
                    ..Chunk::default()
                }))
            })
            .collect()
    }

    pub fn trailer(&self, id: &str) -> DataPacket {
        self.packet(Value::StreamTrailer(Trailer { stream_id: id.to_owned(), ..Trailer::default() }))
    }

    fn packet(&self, value: Value) -> DataPacket {
        DataPacket {
            participant_identity: self.on_behalf.map(|i| i.as_str().to_owned()).unwrap_or_default(),
            value: Some(value),
            ..DataPacket::default()
        }
    }
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
