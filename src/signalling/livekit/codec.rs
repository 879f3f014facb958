//! Bytes to messages and back: the join request in the URL, and the frames of the socket.
//!
//! All of it comes from the network: nothing here panics, and nothing grows beyond its bound.

use std::io::Read;

use axum::extract::ws::{Message as Frame, Utf8Bytes};
use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use flate2::read::GzDecoder;
use livekit_protocol as proto;
use prost::Message as _;
use proto::{JoinRequest, SignalRequest, SignalResponse, WrappedJoinRequest, wrapped_join_request::Compression};

use super::shape;

/// Bytes of a join request once unpacked: metadata and attributes as long as they may be, an offer, and tracks. A
/// browser's is about 20 kB.
const JOIN_REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one frame from a client. A browser's offer takes 3 kB for each section; a room of 50 people who all show
/// themselves has a hundred.
pub const FRAME_BYTES_MAX: usize = 512 * 1024;

/// Browsers pad, others do not.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The form of a client's frames, and so of ours to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Protobuf in binary frames.
    Binary,
    /// Proto3 JSON in text frames.
    Json,
}

/// Undoes percent encoding of a query's value; `None` where that is no text.
pub fn percent_decode(value: &str) -> Option<String> {
    let hex = |c: u8| (c as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let bytes = value.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        if byte == b'%' {
            out.push(hex(*bytes.get(i + 1)?)? << 4 | hex(*bytes.get(i + 2)?)?);
            i += 3;
        } else {
            out.push(if byte == b'+' { b' ' } else { byte });
            i += 1;
        }
    }
    String::from_utf8(out).ok()
}

/// The `join_request` parameter: base64url of a [`WrappedJoinRequest`], whose content may be gzip.
pub fn decode_join_request(param: &str) -> Result<JoinRequest, &'static str> {
    let wrapped = BASE64.decode(param).map_err(|_| "`join_request` is not base64url")?;
    let wrapped = WrappedJoinRequest::decode(wrapped.as_slice()).map_err(|_| "`join_request` is malformed")?;
    let bytes = match Compression::try_from(wrapped.compression) {
        Ok(Compression::None) => wrapped.join_request,
        Ok(Compression::Gzip) => unpack(&wrapped.join_request)?,
        Err(_) => return Err("`join_request` is compressed in an unknown way"),
    };
    if bytes.len() > JOIN_REQUEST_BYTES_MAX {
        return Err("`join_request` is too large");
    }
    if !shape::protobuf_fits(&bytes) {
        return Err("`join_request` has more parts than are taken");
    }
    JoinRequest::decode(bytes.as_slice()).map_err(|_| "`join_request` is malformed")
}

fn unpack(gzip: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::new();
    let limit = JOIN_REQUEST_BYTES_MAX as u64 + 1;
    GzDecoder::new(gzip).take(limit).read_to_end(&mut bytes).map_err(|_| "`join_request` cannot be unpacked")?;
    Ok(bytes)
}

/// A frame's request and its form; `None` for frames that carry none (pings and the like). What cannot be read is an
/// error: a client that sends it has lost its way.
pub fn decode_frame(frame: &Frame) -> Option<Result<(SignalRequest, Encoding), &'static str>> {
    match frame {
        Frame::Binary(bytes) => Some(decode_binary(bytes).map(|request| (request, Encoding::Binary))),
        Frame::Text(text) => Some(decode_text(text).map(|request| (request, Encoding::Json))),
        Frame::Ping(_) | Frame::Pong(_) | Frame::Close(_) => None,
    }
}

/// Bytes of a frame's content.
pub fn length(frame: &Frame) -> usize {
    match frame {
        Frame::Binary(bytes) | Frame::Ping(bytes) | Frame::Pong(bytes) => bytes.len(),
        Frame::Text(text) => text.len(),
        Frame::Close(_) => 0,
    }
}

/// A request in a binary frame.
pub fn decode_binary(bytes: &[u8]) -> Result<SignalRequest, &'static str> {
    if !shape::protobuf_fits(bytes) {
        return Err("a binary frame has more parts than are taken");
    }
    SignalRequest::decode(bytes).map_err(|_| "a binary frame is no SignalRequest")
}

/// A request in a text frame.
pub fn decode_text(text: &str) -> Result<SignalRequest, &'static str> {
    if !shape::json_fits(text) {
        return Err("a text frame has more parts than are taken");
    }
    serde_json::from_str(text).map_err(|_| "a text frame is no SignalRequest")
}

/// A response as a frame.
pub fn encode_frame(response: &SignalResponse, encoding: Encoding) -> Frame {
    match encoding {
        Encoding::Json => match serde_json::to_string(response) {
            Ok(text) => Frame::Text(Utf8Bytes::from(text)),
            // Only a number that JSON cannot hold gets here; binary holds it.
            Err(_) => encode_frame(response, Encoding::Binary),
        },
        Encoding::Binary => Frame::Binary(response.encode_to_vec().into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression as Level, write::GzEncoder};
    use proptest::prelude::*;
    use proto::{signal_request, signal_response};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn wrap(compression: i32, join_request: Vec<u8>) -> Vec<u8> {
        WrappedJoinRequest { compression, join_request }.encode_to_vec()
    }

    fn request() -> JoinRequest {
        JoinRequest { participant_sid: "PA_1".into(), reconnect: true, ..JoinRequest::default() }
    }

    #[test]
    fn a_join_request_is_read_in_every_form_that_clients_send() {
        let padded = base64::engine::general_purpose::URL_SAFE;
        let bare = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let plain = request().encode_to_vec();
        let (none, zipped) = (wrap(0, plain.clone()), wrap(1, gzip(&plain)));
        for param in [padded.encode(&none), bare.encode(&none), padded.encode(&zipped), bare.encode(&zipped)] {
            assert_eq!(decode_join_request(&param).as_ref(), Ok(&request()));
            let escaped = param.replace('=', "%3D");
            assert_eq!(percent_decode(&escaped).as_deref(), Some(param.as_str()));
        }
    }

    #[test]
    fn a_join_request_that_unpacks_to_too_much_is_refused() {
        let bomb = wrap(1, gzip(&vec![0; 64 * 1024 * 1024]));
        let param = BASE64.encode(bomb);
        assert!(param.len() < 200_000);
        assert_eq!(decode_join_request(&param), Err("`join_request` is too large"));
        assert_eq!(decode_join_request("!"), Err("`join_request` is not base64url"));
        assert_eq!(
            decode_join_request(&BASE64.encode(wrap(7, Vec::new()))),
            Err("`join_request` is compressed in an unknown way")
        );
    }

    #[test]
    fn json_is_answered_in_json_with_wide_numbers_as_text() {
        let frame = Frame::Text(r#"{"pingReq":{"timestamp":"1800000000000"}}"#.into());
        let (request, encoding) = decode_frame(&frame).unwrap().unwrap();
        assert_eq!(encoding, Encoding::Json);
        assert!(matches!(request.message, Some(signal_request::Message::PingReq(_))));
        let response = SignalResponse { message: Some(signal_response::Message::Pong(1_800_000_000_000)) };
        assert_eq!(encode_frame(&response, encoding), Frame::Text(r#"{"pong":"1800000000000"}"#.into()));
    }

    proptest! {
        #[test]
        fn no_join_request_panics(param in ".{0,400}", bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0..3) {
            let _ = decode_join_request(&param);
            let _ = percent_decode(&param);
            let _ = decode_join_request(&BASE64.encode(&bytes));
            let _ = decode_join_request(&BASE64.encode(wrap(kind, bytes.clone())));
            let _ = decode_join_request(&BASE64.encode(wrap(1, gzip(&bytes))));
        }

        #[test]
        fn no_frame_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), text in ".{0,200}") {
            let _ = decode_frame(&Frame::Binary(bytes.into()));
            let _ = decode_frame(&Frame::Text(text.into()));
        }

        #[test]
        fn what_is_sent_is_read_again(sdp in ".{0,200}", id: u32) {
            let offer = proto::SessionDescription { r#type: "offer".into(), sdp, id, ..Default::default() };
            let request = SignalRequest { message: Some(signal_request::Message::Offer(offer)) };
            let binary = decode_frame(&Frame::Binary(request.encode_to_vec().into())).unwrap().unwrap();
            prop_assert_eq!(&binary.0, &request);
            let json = serde_json::to_string(&request).unwrap();
            let text = decode_frame(&Frame::Text(json.into())).unwrap().unwrap();
            prop_assert_eq!(&text.0, &request);
        }
    }
}
