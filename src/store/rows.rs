//! Rows as SQLite holds them, to and from [`crate::model`].

use sqlx::FromRow;

use super::StoreError;
use crate::model::{
    ConsentRecord, EndReason, Interview, InterviewState, Personal, Role, TranscriptLine, TurnRecord, TurnTimes,
};

pub(super) fn state(state: InterviewState) -> &'static str {
    match state {
        InterviewState::Open => "open",
        InterviewState::Live => "live",
        InterviewState::Ended => "ended",
    }
}

fn parse_state(value: String) -> Result<InterviewState, StoreError> {
    [InterviewState::Open, InterviewState::Live, InterviewState::Ended]
        .into_iter()
        .find(|s| state(*s) == value)
        .ok_or(StoreError::Unknown { what: "state of an interview", value })
}

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Interviewee => "interviewee",
        Role::Interviewer => "interviewer",
        Role::Ai => "ai",
    }
}

fn parse_role(value: String) -> Result<Role, StoreError> {
    [Role::Interviewee, Role::Interviewer, Role::Ai]
        .into_iter()
        .find(|r| role(*r) == value)
        .ok_or(StoreError::Unknown { what: "role", value })
}

#[derive(FromRow)]
pub(super) struct InterviewRow {
    id: String,
    room: String,
    plan: String,
    persona: String,
    interviewee: String,
    interviewee_name: String,
    state: String,
    end_reason: Option<String>,
    created_at_ms: i64,
    started_at_ms: Option<i64>,
    ended_at_ms: Option<i64>,
    questions_asked: u32,
    questions_total: u32,
}

impl InterviewRow {
    pub(super) fn into_model(self) -> Result<Interview, StoreError> {
        let end_reason = match self.end_reason {
            None => None,
            Some(value) => Some(
                EndReason::ALL
                    .into_iter()
                    .find(|r| r.as_str() == value)
                    .ok_or(StoreError::Unknown { what: "reason of an end", value })?,
            ),
        };
        Ok(Interview {
            id: self.id.into(),
            room: self.room.into(),
            plan: self.plan,
            persona: self.persona,
            interviewee: self.interviewee.into(),
            interviewee_name: self.interviewee_name.into(),
            state: parse_state(self.state)?,
            end_reason,
            created_at_ms: self.created_at_ms,
            started_at_ms: self.started_at_ms,
            ended_at_ms: self.ended_at_ms,
            questions_asked: self.questions_asked,
            questions_total: self.questions_total,
        })
    }
}

#[derive(FromRow)]
pub(super) struct ConsentRow {
    interview: String,
    identity: String,
    purpose: String,
    granted: bool,
    notice_version: String,
    source: String,
    at_ms: i64,
}

impl ConsentRow {
    pub(super) fn into_model(self) -> Result<ConsentRecord, StoreError> {
        let purpose = self
            .purpose
            .parse()
            .map_err(|_| StoreError::Unknown { what: "purpose of a consent", value: self.purpose })?;
        Ok(ConsentRecord {
            interview: self.interview.into(),
            identity: self.identity.into(),
            purpose,
            granted: self.granted,
            notice_version: self.notice_version,
            source: self.source,
            at_ms: self.at_ms,
        })
    }
}

#[derive(FromRow)]
pub(super) struct LineRow {
    interview: String,
    seq: u32,
    identity: String,
    name: String,
    role: String,
    start_ms: i64,
    end_ms: i64,
    text: String,
    question_id: Option<String>,
    interrupted: bool,
}

impl LineRow {
    pub(super) fn into_model(self) -> Result<TranscriptLine, StoreError> {
        Ok(TranscriptLine {
            interview: self.interview.into(),
            seq: self.seq,
            identity: self.identity.into(),
            name: Personal(self.name),
            role: parse_role(self.role)?,
            start_ms: self.start_ms,
            end_ms: self.end_ms,
            text: Personal(self.text),
            question_id: self.question_id,
            interrupted: self.interrupted,
        })
    }
}

#[derive(FromRow)]
pub(super) struct TurnRow {
    interview: String,
    seq: u32,
    question_id: Option<String>,
    act: String,
    at_ms: i64,
    interrupted: bool,
    endpoint_us: Option<i64>,
    stt_final_us: Option<i64>,
    llm_first_token_us: Option<i64>,
    first_clause_us: Option<i64>,
    tts_first_audio_us: Option<i64>,
    first_packet_us: Option<i64>,
}

impl TurnRow {
    pub(super) fn into_model(self) -> TurnRecord {
        TurnRecord {
            interview: self.interview.into(),
            seq: self.seq,
            question_id: self.question_id,
            act: self.act,
            at_ms: self.at_ms,
            interrupted: self.interrupted,
            times: TurnTimes {
                endpoint_us: self.endpoint_us,
                stt_final_us: self.stt_final_us,
                llm_first_token_us: self.llm_first_token_us,
                first_clause_us: self.first_clause_us,
                tts_first_audio_us: self.tts_first_audio_us,
                first_packet_us: self.first_packet_us,
            },
        }
    }
}
