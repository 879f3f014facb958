//! The interviewer: plans, personas, turn-taking, and the sessions in which interviews are held.
//!
//! [`Interviews`] is the only door: it makes interviews, lets people in, records their consent and tells what was said.
//! Each live interview is one task, [`session`], that runs the effects of two pure machines, [`turn`] and
//! [`conversation`]. What is asked next is decided by the plan's cursor in this server, never by a language model.

mod config;
pub mod library;
pub mod llm;
pub mod notice;
pub mod persona;
pub mod plan;

use std::{collections::HashMap, sync::Arc};

pub use config::{Config, Endpointing, Interruption, LlmConfig, LlmKind, Silence};
pub use library::Library;
use llm::LlmProvider;

use crate::{
    id::{Identity, InterviewId},
    model::{ConsentRecord, Interview, Personal, Purpose, Role, TranscriptLine, TurnRecord},
    rooms::Rooms,
    speech::{listener::ListenerConfig, stt::SttProvider, tts::TtsProvider},
    store::{Store, StoreError},
    telemetry::Metrics,
};

/// What the interviewer hears, speaks and thinks with.
#[derive(Clone)]
pub struct Providers {
    /// `None`: voice activity alone.
    pub stt: Option<Arc<dyn SttProvider>>,
    pub tts: Arc<dyn TtsProvider>,
    /// Voices by name, for personas that ask for one; a persona whose voice is not here speaks with `tts`.
    pub voices: HashMap<String, Arc<dyn TtsProvider>>,
    /// `None`: the scripted interviewer.
    pub llm: Option<Arc<dyn LlmProvider>>,
}

/// What is asked for, to make an interview.
#[derive(Clone, Debug)]
pub struct NewInterview {
    pub plan: String,
    pub persona: String,
    pub interviewee_name: Personal,
}

#[derive(Clone, Debug)]
pub struct Created {
    pub interview: Interview,
    /// Secret of the link by which a second person joins.
    pub invite: String,
}

/// A second person who came by the link.
#[derive(Clone, Debug)]
pub struct Admission {
    pub interview: Interview,
    pub identity: Identity,
    pub role: Role,
}

/// What the holder of an invitation may know before joining.
#[derive(Clone, Debug)]
pub struct InviteView {
    pub plan_title: String,
    pub interviewee_waiting: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum InterviewError {
    #[error("there is no plan `{0}`; see GET /v1/practice for those there are")]
    UnknownPlan(String),
    #[error("there is no persona `{0}`; see GET /v1/practice for those there are")]
    UnknownPersona(String),
    #[error("the name is not usable: {0}")]
    BadName(&'static str),
    #[error("there is no such interview")]
    NotFound,
    #[error("this link is not valid: ask the person who sent it for a new one")]
    BadInvite,
    #[error("this interview is over")]
    Ended,
    #[error("the server is stopping: try again in a moment")]
    ShuttingDown,
    #[error(transparent)]
    Room(#[from] crate::rooms::RoomError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All interviews of this server. Cheap clone.
#[derive(Clone)]
pub struct Interviews {}

impl Interviews {
    /// Loads plans and personas. Every mistake in them is in the error, each with file, line and key.
    pub fn new(
        _config: Config,
        _rooms: Rooms,
        _store: Store,
        _providers: Providers,
        _listener: ListenerConfig,
        _metrics: Arc<Metrics>,
    ) -> Result<Self, library::LibraryError> {
        todo!()
    }

    /// Takes up the interviews that were running when the server last stopped. Call once, when rooms can be joined.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        todo!()
    }

    /// Ends the sessions' tasks after their last words are stored; the interviews can be taken up again.
    pub async fn shutdown(&self) {
        todo!()
    }

    pub fn library(&self) -> &Library {
        todo!()
    }

    /// Whether words are recognised, or voice activity alone.
    pub fn recognition(&self) -> bool {
        todo!()
    }

    /// Stores a new interview, opens its room and sends the interviewer in, who waits for the interviewee.
    pub async fn create(&self, _new: NewInterview) -> Result<Created, InterviewError> {
        todo!()
    }

    /// What the holder of this invitation may know.
    pub async fn invite(&self, _id: &InterviewId, _invite: &str) -> Result<InviteView, InterviewError> {
        todo!()
    }

    /// Lets a second person in by the link.
    pub async fn admit(&self, _id: &InterviewId, _invite: &str, _name: &str) -> Result<Admission, InterviewError> {
        todo!()
    }

    /// Records a decision, then opens or closes the person's tap. Returns after both.
    pub async fn record_consent(
        &self,
        _id: &InterviewId,
        _identity: &Identity,
        _purpose: Purpose,
        _granted: bool,
        _notice_version: &str,
        _source: &str,
    ) -> Result<(), InterviewError> {
        todo!()
    }

    /// The latest decision of this person for each purpose that they decided on.
    pub async fn consents(
        &self,
        _id: &InterviewId,
        _identity: &Identity,
    ) -> Result<Vec<ConsentRecord>, InterviewError> {
        todo!()
    }

    pub async fn status(&self, _id: &InterviewId) -> Result<Interview, InterviewError> {
        todo!()
    }

    pub async fn transcript(&self, _id: &InterviewId) -> Result<Vec<TranscriptLine>, InterviewError> {
        todo!()
    }

    pub async fn turns(&self, _id: &InterviewId) -> Result<Vec<TurnRecord>, InterviewError> {
        todo!()
    }

    /// Ends an interview at once, as by the page's button. Ending one that is over is no error.
    pub async fn end(&self, _id: &InterviewId) -> Result<(), InterviewError> {
        todo!()
    }
}
