//! Remote procedure calls of the page: packets of LiveKit's RPC version 1.

use livekit_protocol::{DataPacket, RpcAck, RpcError, RpcRequest, RpcResponse, data_packet::Value, rpc_response};
use serde::Deserialize;

use super::{Session, now};
use crate::{
    id::ParticipantSid,
    interview::port::RoomPort,
    model::{EndReason, Purpose, Role},
};

/// LiveKit's code for a method that nobody here answers.
const UNSUPPORTED_METHOD: u32 = 1400;
/// LiveKit's code for a request whose RPC version is unknown.
const UNSUPPORTED_VERSION: u32 = 1404;
/// LiveKit's code for an error of the method itself.
const APPLICATION_ERROR: u32 = 1500;
/// LiveKit's RPC version 1.
const VERSION: u32 = 1;
/// Longest version of a notice that is recorded, characters.
const NOTICE_VERSION_MAX: usize = 40;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsentRequest {
    purpose: String,
    granted: bool,
    notice_version: Option<String>,
}

type Answer = Result<(), (u32, String)>;

fn refuse(message: impl Into<String>) -> (u32, String) {
    (APPLICATION_ERROR, message.into())
}

impl<P: RoomPort> Session<P> {
    pub(super) async fn handle_data(&mut self, from: &ParticipantSid, packet: DataPacket) {
        let Some(person) = self.people.get(from).cloned() else { return };
        match packet.value {
            Some(Value::RpcRequest(request)) => self.handle_call(&person, request).await,
            Some(value) => self.handle_chat(from, &person, &value).await,
            None => {}
        }
    }

    async fn handle_call(&mut self, person: &super::people::Person, request: RpcRequest) {
        let destination = vec![person.identity.as_str().to_owned()];
        let reply = |value| DataPacket {
            destination_identities: destination.clone(),
            value: Some(value),
            ..Default::default()
        };
        let request_id = request.id.clone();
        let ack = reply(Value::RpcAck(RpcAck { request_id: request_id.clone() }));
        self.setup.port.send_data(ack).await;
        let value = match self.answer(person, &request).await {
            Ok(()) => rpc_response::Value::Payload(r#"{"ok":true}"#.to_owned()),
            Err((code, message)) => rpc_response::Value::Error(RpcError { code, message, data: String::new() }),
        };
        let response = reply(Value::RpcResponse(RpcResponse { request_id, value: Some(value) }));
        self.setup.port.send_data(response).await;
    }

    async fn answer(&mut self, person: &super::people::Person, request: &RpcRequest) -> Answer {
        // Version 0: a client that leaves the field out.
        if request.version > VERSION {
            return Err((UNSUPPORTED_VERSION, format!("RPC version {} is not spoken here; use 1", request.version)));
        }
        let drives = self.people.drives(&person.identity);
        let only_interviewee = || if drives { Ok(()) } else { Err(refuse("only the interviewee may do this")) };
        match request.method.as_str() {
            "viva.consent" => self.answer_consent(person, &request.payload).await,
            "viva.thinking" => {
                only_interviewee()?;
                self.detector.handle_thinking(now());
                self.settle();
                Ok(())
            }
            "viva.done" => {
                only_interviewee()?;
                self.detector.handle_done(now());
                self.settle();
                Ok(())
            }
            "viva.repeat" => {
                only_interviewee()?;
                self.repeat();
                Ok(())
            }
            "viva.end" => {
                if !drives && person.role != Role::Interviewer {
                    return Err(refuse("only the interviewee or an interviewer may end the interview"));
                }
                self.end(EndReason::EndedByHost, None);
                Ok(())
            }
            _ => Err((
                UNSUPPORTED_METHOD,
                "there is no such method; known are viva.consent, viva.thinking, viva.done, viva.repeat and viva.end"
                    .to_owned(),
            )),
        }
    }

    async fn answer_consent(&mut self, person: &super::people::Person, payload: &str) -> Answer {
        let request: ConsentRequest = serde_json::from_str(payload).map_err(|error| {
            refuse(format!(
                "the payload is not usable ({error}); send {{\"purpose\":\"ai_interviewer\",\"granted\":true}}"
            ))
        })?;
        let purpose: Purpose = request.purpose.parse().map_err(refuse)?;
        let version = request.notice_version.unwrap_or_else(|| self.setup.notice_version.clone());
        if version.chars().count() > NOTICE_VERSION_MAX {
            return Err(refuse(format!("notice_version may have {NOTICE_VERSION_MAX} characters")));
        }
        let decided = self.decide_consent(&person.identity, purpose, request.granted, &version, "rpc").await;
        decided.map_err(|error| refuse(error.to_string()))
    }
}
