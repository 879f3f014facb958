//! What the interviewee writes instead of saying it: LiveKit's chat, on the topic `lk.chat` and in its two older forms.
//! What is written is an answer like any other. The interviewer's reply is spoken, and stands in the chat, too.
//!
//! Reading is no less than listening: without consent nothing of a message is kept, not even until its end.

use std::{collections::HashMap, time::Instant};

use livekit_protocol::{UserPacket, data_packet::Value, data_stream::header::ContentHeader};
use serde::Deserialize;

use super::{Session, now, people::Person, streams::Stream};
use crate::{
    id::ParticipantSid,
    interview::port::RoomPort,
    limits::{Bucket, Rate},
    model::Personal,
};

const TOPIC: &str = "lk.chat";
/// Topic of the oldest form: a data packet with JSON in it.
const OLD_TOPIC: &str = "lk-chat-topic";
/// Longest message that is read, bytes: ten minutes of speech. A longer one is refused as a whole, in the chat.
const MESSAGE_MAX: usize = 8_000;
/// Messages that one person may have begun and not ended. More: the oldest is forgotten.
const OPEN_MAX: usize = 4;

/// Messages of the interviewee that are answered: each may cost a request to a language model.
const MESSAGES: Rate = Rate::new(5.0, 0.5);
/// Answers of the kind below. More: silence.
const NOTICES: Rate = Rate::new(2.0, 0.2);

const TOO_MANY: &str = "I cannot read so many messages at once. Please send the next one in a moment.";
const TOO_LONG: &str = "That message is too long for me. Please send what matters most, or say it.";
const NO_CONSENT: &str = "I may not read messages yet: nobody has agreed that the AI takes part. Agree to that first, then \
                          send it again.";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Text(Personal),
    TooLong,
}

struct Open {
    stream: String,
    content: Vec<u8>,
    too_long: bool,
}

/// Puts messages together, as many as are read.
pub(super) struct Inbox {
    open: HashMap<ParticipantSid, Vec<Open>>,
    messages: Bucket,
    notices: Bucket,
}

/// What the oldest form carries. Newer components send it beside the stream, marked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OldMessage {
    message: String,
    #[serde(default)]
    ignore_legacy: bool,
}

/// Whether a message begins with this packet, or is all in it.
fn begins(value: &Value) -> bool {
    match value {
        Value::StreamHeader(header) => header.topic == TOPIC,
        Value::ChatMessage(_) => true,
        Value::User(user) => old_message(user).is_some(),
        _ => false,
    }
}

/// A message in the oldest form, which is not sent in a newer one as well.
fn old_message(user: &UserPacket) -> Option<String> {
    if user.topic.as_deref() != Some(OLD_TOPIC) {
        return None;
    }
    let old: OldMessage = serde_json::from_slice(&user.payload).ok()?;
    (!old.ignore_legacy).then_some(old.message)
}

impl Inbox {
    pub fn new(now: Instant) -> Self {
        Self { open: HashMap::new(), messages: Bucket::new(MESSAGES, now), notices: Bucket::new(NOTICES, now) }
    }

    /// Takes a packet of a person; returns the message that it completes.
    pub fn read(&mut self, from: &ParticipantSid, value: &Value) -> Option<Message> {
        match value {
            Value::StreamHeader(header) if header.topic == TOPIC => {
                if !matches!(header.content_header, Some(ContentHeader::TextHeader(_))) {
                    return None;
                }
                let open = self.open.entry(from.clone()).or_default();
                open.retain(|o| o.stream != header.stream_id);
                if open.len() >= OPEN_MAX {
                    open.remove(0);
                }
                open.push(Open { stream: header.stream_id.clone(), content: Vec::new(), too_long: false });
                None
            }
            Value::StreamChunk(chunk) => {
                let open = self.open.get_mut(from)?.iter_mut().find(|o| o.stream == chunk.stream_id)?;
                if open.content.len() + chunk.content.len() > MESSAGE_MAX {
                    open.too_long = true;
                } else {
                    open.content.extend_from_slice(&chunk.content);
                }
                None
            }
            Value::StreamTrailer(trailer) => {
                let all = self.open.get_mut(from)?;
                let place = all.iter().position(|o| o.stream == trailer.stream_id)?;
                let open = all.remove(place);
                if all.is_empty() {
                    self.open.remove(from);
                }
                if open.too_long { Some(Message::TooLong) } else { text(&String::from_utf8_lossy(&open.content)) }
            }
            Value::ChatMessage(chat) if !chat.deleted && chat.edit_timestamp.is_none() => text(&chat.message),
            Value::User(user) => text(&old_message(user)?),
            _ => None,
        }
    }

    /// The person has left.
    pub fn forget(&mut self, from: &ParticipantSid) {
        self.open.remove(from);
    }

    /// What was begun counts no more.
    pub fn clear(&mut self) {
        self.open.clear();
    }
}

fn text(message: &str) -> Option<Message> {
    let message = message.trim();
    match message.len() {
        0 => None,
        n if n > MESSAGE_MAX => Some(Message::TooLong),
        _ => Some(Message::Text(message.into())),
    }
}

impl<P: RoomPort> Session<P> {
    pub(super) async fn handle_chat(&mut self, from: &ParticipantSid, person: &Person, value: &Value) {
        // People may write to each other; only the interviewee is answered.
        if !self.people.drives(&person.identity) || self.over {
            return;
        }
        let (now, consents) = (now(), self.people.consents(&person.identity));
        if !consents.listening {
            if begins(value) {
                self.notify(person, NO_CONSENT).await;
            }
            return;
        }
        let text = match self.inbox.read(from, value) {
            None => return,
            Some(_) if !self.inbox.messages.take(now, 1.0) => return self.notify(person, TOO_MANY).await,
            // Messages that follow each other before they are answered are one turn.
            Some(Message::Text(text)) if self.detector.written() + text.0.len() <= MESSAGE_MAX => text,
            Some(_) => return self.notify(person, TOO_LONG).await,
        };
        self.conversation.handle_written(now);
        self.settle();
        self.detector.handle_written(&text, now);
        self.settle();
        if consents.keeping {
            self.record.add_words(person, now, now, &text);
            self.write_record().await;
        }
    }

    /// The reply to something written, as far as it was heard.
    pub(super) async fn write(&self, text: &str) {
        self.send(Stream { topic: TOPIC, on_behalf: None, attributes: vec![] }.whole(text)).await;
    }

    /// Tells one person why they are not answered.
    async fn notify(&mut self, person: &Person, text: &str) {
        if !self.inbox.notices.take(now(), 1.0) {
            return;
        }
        let mut packets = Stream { topic: TOPIC, on_behalf: None, attributes: vec![] }.whole(text);
        for packet in &mut packets {
            packet.destination_identities = vec![person.identity.as_str().to_owned()];
        }
        self.send(packets).await;
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::{
        ChatMessage,
        data_stream::{ByteHeader, Chunk, Header, TextHeader, Trailer},
    };
    use proptest::prelude::*;

    use super::*;

    fn header(stream: &str, topic: &str) -> Value {
        Value::StreamHeader(Header {
            stream_id: stream.into(),
            topic: topic.into(),
            content_header: Some(ContentHeader::TextHeader(TextHeader::default())),
            ..Header::default()
        })
    }

    fn chunk(stream: &str, content: &[u8]) -> Value {
        Value::StreamChunk(Chunk { stream_id: stream.into(), content: content.to_vec(), ..Chunk::default() })
    }

    fn trailer(stream: &str) -> Value {
        Value::StreamTrailer(Trailer { stream_id: stream.into(), ..Trailer::default() })
    }

    fn old(json: &str) -> Value {
        Value::User(UserPacket { payload: json.into(), topic: Some(OLD_TOPIC.into()), ..UserPacket::default() })
    }

    fn read(values: &[Value]) -> Vec<Message> {
        let (mut inbox, sam) = (Inbox::new(Instant::now()), ParticipantSid::from("PA_sam"));
        let messages = values.iter().filter_map(|v| inbox.read(&sam, v)).collect();
        assert!(inbox.open.values().all(|o| !o.is_empty() && o.len() <= OPEN_MAX));
        messages
    }

    fn said(text: &str) -> Vec<Message> {
        vec![Message::Text(text.into())]
    }

    #[test]
    fn a_message_in_each_form() {
        let stream = [header("s", TOPIC), chunk("s", b"hello "), chunk("s", "Zo\u{eb}".as_bytes()), trailer("s")];
        assert_eq!(read(&stream), said("hello Zo\u{eb}"));
        let packet = |m: ChatMessage| Value::ChatMessage(m);
        let hello = ChatMessage { message: " hello ".into(), ..ChatMessage::default() };
        assert_eq!(read(&[packet(hello.clone())]), said("hello"));
        assert_eq!(read(&[packet(ChatMessage { deleted: true, ..hello.clone() })]), []);
        assert_eq!(read(&[packet(ChatMessage { edit_timestamp: Some(1), ..hello })]), [], "an edit is no new answer");
        assert_eq!(read(&[old(r#"{"id":"1","timestamp":1,"message":"hello"}"#)]), said("hello"));
        assert_eq!(read(&[old(r#"{"message":"hello","ignoreLegacy":true}"#)]), [], "sent as a stream, too");
        assert_eq!(read(&[old("no json")]), []);
    }

    #[test]
    fn a_message_that_is_sent_in_two_forms_begins_once() {
        let twice =
            [header("s", TOPIC), old(r#"{"message":"hello","ignoreLegacy":true}"#), chunk("s", b"h"), trailer("s")];
        assert_eq!(twice.iter().filter(|value| begins(value)).count(), 1);
        assert!(begins(&old(r#"{"message":"hello"}"#)) && !begins(&header("s", "notes")));
    }

    #[test]
    fn streams_that_are_no_chat_are_not_read() {
        assert_eq!(read(&[header("s", "notes"), chunk("s", b"hello"), trailer("s")]), []);
        let content_header = Some(ContentHeader::ByteHeader(ByteHeader::default()));
        let file = Header { stream_id: "s".into(), topic: TOPIC.into(), content_header, ..Header::default() };
        assert_eq!(read(&[Value::StreamHeader(file), chunk("s", b"hello"), trailer("s")]), []);
    }

    #[test]
    fn long_messages_are_refused_as_a_whole_and_unfinished_ones_are_bounded() {
        let long = vec![b'x'; MESSAGE_MAX];
        assert_eq!(read(&[header("s", TOPIC), chunk("s", &long), chunk("s", b"y"), trailer("s")]), [Message::TooLong]);
        let mut values: Vec<_> = (0..10).map(|n| header(&n.to_string(), TOPIC)).collect();
        values.extend([chunk("0", b"forgotten"), trailer("0"), chunk("9", b"kept"), trailer("9")]);
        assert_eq!(read(&values), said("kept"));
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_breaks_it(steps in prop::collection::vec((0..5u8, 0..3u8, any::<Vec<u8>>()), 0..60)) {
            let values: Vec<_> = steps
                .into_iter()
                .map(|(kind, stream, bytes)| {
                    let stream = stream.to_string();
                    match kind {
                        0 => header(&stream, TOPIC),
                        1 | 2 => chunk(&stream, &bytes),
                        3 => trailer(&stream),
                        _ => old(&String::from_utf8_lossy(&bytes)),
                    }
                })
                .collect();
            for message in read(&values) {
                let Message::Text(text) = message else { continue };
                prop_assert!(!text.0.is_empty());
            }
        }
    }
}
