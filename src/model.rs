//! Plain records of an interview, as the store keeps them and REST shows them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Identity, InterviewId, RoomName};

/// Text that is personal: names, words that were said, prompts. `Debug` shows only its length, so that it cannot
/// reach a log line by accident.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Personal(pub String);

impl fmt::Debug for Personal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} chars>", self.0.chars().count())
    }
}

impl From<&str> for Personal {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl From<String> for Personal {
    fn from(value: String) -> Self {
        Self(value)
    }
}

/// What a person is in an interview; the token attribute `viva.role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The person who is interviewed; only their speech drives the interviewer's turns.
    Interviewee,
    /// A human interviewer, or any other person in the call.
    Interviewer,
    /// The AI interviewer.
    Ai,
}

/// Name of the participant attribute that carries [`Role`].
pub const ROLE_ATTRIBUTE: &str = "viva.role";
/// Name of the token attribute that grants consent: purposes separated by commas.
pub const CONSENT_ATTRIBUTE: &str = "viva.consent";

/// What a person consents to. Each is asked, given and withdrawn by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The AI may listen: opens the tap on this person's microphone.
    AiInterviewer,
    /// What this person says may be kept as text.
    Transcription,
}

impl Purpose {
    pub const ALL: [Purpose; 2] = [Purpose::AiInterviewer, Purpose::Transcription];

    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::AiInterviewer => "ai_interviewer",
            Purpose::Transcription => "transcription",
        }
    }
}

impl std::str::FromStr for Purpose {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str() == s)
            .ok_or_else(|| format!("unknown purpose `{s}`; known purposes are `ai_interviewer` and `transcription`"))
    }
}

/// One entry of the append-only consent record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConsentRecord {
    pub interview: InterviewId,
    pub identity: Identity,
    pub purpose: Purpose,
    pub granted: bool,
    /// Version of the notice that the person saw.
    pub notice_version: String,
    /// Where it was given: `page`, `rest`, `rpc` or `token`.
    pub source: String,
    /// Unix time in ms.
    pub at_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterviewState {
    /// Created; the interviewee has not come yet.
    Open,
    Live,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The plan was gone through to its end.
    Completed,
    /// The interviewee left and did not come back.
    Left,
    /// Nobody came.
    NoShow,
    /// Ended through REST or by the page's button.
    EndedByHost,
    TimeUp,
    /// The server stopped.
    Shutdown,
    Failed,
}

impl EndReason {
    pub const ALL: [EndReason; 7] = [
        EndReason::Completed,
        EndReason::Left,
        EndReason::NoShow,
        EndReason::EndedByHost,
        EndReason::TimeUp,
        EndReason::Shutdown,
        EndReason::Failed,
    ];

    /// As in JSON, in the store, in the attribute `viva.ended` and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::Completed => "completed",
            EndReason::Left => "left",
            EndReason::NoShow => "no_show",
            EndReason::EndedByHost => "ended_by_host",
            EndReason::TimeUp => "time_up",
            EndReason::Shutdown => "shutdown",
            EndReason::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interview {
    pub id: InterviewId,
    pub room: RoomName,
    pub plan: String,
    pub persona: String,
    pub interviewee: Identity,
    pub interviewee_name: Personal,
    pub state: InterviewState,
    pub end_reason: Option<EndReason>,
    /// Unix times in ms.
    pub created_at_ms: i64,
    pub started_at_ms: Option<i64>,
    pub ended_at_ms: Option<i64>,
    /// Questions asked so far, and in the whole plan.
    pub questions_asked: u32,
    pub questions_total: u32,
}

impl Interview {
    /// Whether its room is its own, as of all that were made by REST; else it is the integrator's, which sees many.
    pub fn has_own_room(&self) -> bool {
        self.room.as_str() == self.id.as_str()
    }
}

/// One line of the transcript.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TranscriptLine {
    pub interview: InterviewId,
    /// Order within the interview, from 0.
    pub seq: u32,
    pub identity: Identity,
    pub name: Personal,
    pub role: Role,
    /// Offsets from the interview's start, ms.
    pub start_ms: i64,
    pub end_ms: i64,
    /// What was heard. Of the interviewer: only the words that were played before it was interrupted.
    pub text: Personal,
    pub question_id: Option<String>,
    pub interrupted: bool,
}

/// One reply of the interviewer with the time of every stage, in µs after the interviewee's last speech
/// (for the greeting, which answers nobody: after it was decided). A stage that did not happen is `None`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TurnTimes {
    /// The turn detector decided that the turn is over.
    pub endpoint_us: Option<i64>,
    /// The last final transcript of the turn arrived.
    pub stt_final_us: Option<i64>,
    pub llm_first_token_us: Option<i64>,
    /// The first clause went to text-to-speech.
    pub first_clause_us: Option<i64>,
    pub tts_first_audio_us: Option<i64>,
    /// The first packet of the reply left the media worker. This is the response latency.
    pub first_packet_us: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TurnRecord {
    pub interview: InterviewId,
    /// Order within the interview, from 0.
    pub seq: u32,
    pub question_id: Option<String>,
    /// What the interviewer did: `greet`, `ask`, `probe`, `repeat`, `nudge`, `close`.
    pub act: String,
    /// Offset of the reference point of `times` from the interview's start, ms.
    pub at_ms: i64,
    pub interrupted: bool,
    pub times: TurnTimes,
}
