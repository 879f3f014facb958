//! The interviewer as an agent that is sent into a room, by its name and a few words of metadata.

use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinHandle;

use super::{InterviewError, Interviews, Library, hash, secret, shown, usable_name, wall_ms};
use crate::{
    id::{InterviewId, RoomName},
    model::{EndReason, Interview, InterviewState, Personal},
};

/// Longest metadata, in bytes: two names of files and one of a person.
const METADATA_BYTES_MAX: usize = 4096;

/// How long an interview of a room that was closed, and made again, is waited for; and how often it is looked at.
const PLACE_WAIT_MAX: Duration = Duration::from_secs(25);
const PLACE_WAIT: Duration = Duration::from_millis(100);

/// What the metadata of a dispatch may say. Consent is no part of it: only the person themselves gives that.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    plan: String,
    /// Empty: the first.
    #[serde(default)]
    persona: String,
    /// Empty: as the interviewee calls themselves in the call.
    #[serde(default)]
    name: Personal,
}

/// An interview that a dispatch began.
#[derive(Debug)]
pub struct Dispatched {
    pub id: InterviewId,
    /// Ends with the session.
    pub session: JoinHandle<()>,
}

impl Interviews {
    /// Whether a dispatch with this metadata could begin an interview in this room.
    pub fn check_dispatch(&self, room: &RoomName, metadata: &str) -> Result<(), InterviewError> {
        self.read(metadata)?;
        if self.is_held_in(room) { Err(InterviewError::RoomTaken) } else { Ok(()) }
    }

    /// Sends the interviewer into a room that is open. It waits there for a person without another role.
    pub async fn dispatch(&self, room: &RoomName, metadata: &str) -> Result<Dispatched, InterviewError> {
        if self.shared.tasks.is_closed() {
            return Err(InterviewError::ShuttingDown);
        }
        self.check_dispatch(room, metadata)?;
        let interview = self.read(metadata)?.named(room.clone());
        if self.shared.rooms.get(room).is_none() {
            return Err(crate::rooms::RoomError::NotFound.into());
        }
        self.wait_for_place(room).await;
        let id = interview.id.clone();
        // Nobody gets this invitation: who may join says the integrator's tokens.
        self.shared.store.insert_interview(&interview, &hash(&secret(24))).await?;
        match self.start(interview).await {
            Ok(session) => {
                tracing::info!(interview = %id, "an interview began by dispatch");
                Ok(Dispatched { id, session })
            }
            Err(error) => {
                self.shared.store.set_ended(&id, EndReason::Failed, wall_ms()).await?;
                Err(error)
            }
        }
    }

    /// An interview whose room was closed ends soon: its last words are being stored.
    async fn wait_for_place(&self, room: &RoomName) {
        let until = tokio::time::Instant::now() + PLACE_WAIT_MAX;
        while self.shared.places.contains_key(room) && tokio::time::Instant::now() < until {
            tokio::time::sleep(PLACE_WAIT).await;
        }
    }

    fn read(&self, metadata: &str) -> Result<New, InterviewError> {
        read(&self.shared.library, metadata)
    }
}

/// An interview without a room.
#[derive(Debug)]
struct New {
    plan: String,
    persona: String,
    name: Personal,
    questions: u32,
}

impl New {
    fn named(self, room: RoomName) -> Interview {
        Interview {
            id: InterviewId::random(),
            room,
            plan: self.plan,
            persona: self.persona,
            // Whoever comes first; see `session/people.rs`.
            interviewee: "".into(),
            interviewee_name: self.name,
            state: InterviewState::Open,
            end_reason: None,
            created_at_ms: wall_ms(),
            started_at_ms: None,
            ended_at_ms: None,
            questions_asked: 0,
            questions_total: self.questions,
        }
    }
}

fn read(library: &Library, metadata: &str) -> Result<New, InterviewError> {
    if metadata.len() > METADATA_BYTES_MAX {
        return Err(InterviewError::BadMetadata("it is longer than 4 KiB".into()));
    }
    let asked: Asked =
        serde_json::from_str(metadata).map_err(|error| InterviewError::BadMetadata(shown_error(&error)))?;
    let plan = library.plan(&asked.plan).ok_or_else(|| InterviewError::UnknownPlan(shown(&asked.plan)))?;
    let persona = if asked.persona.is_empty() { library.personas().first() } else { library.persona(&asked.persona) };
    let persona = persona.ok_or_else(|| InterviewError::UnknownPersona(shown(&asked.persona)))?;
    let name = if asked.name.0.is_empty() { Personal::default() } else { usable_name(&asked.name.0)? };
    Ok(New { plan: plan.id.clone(), persona: persona.id.clone(), name, questions: plan.total() })
}

/// What is wrong with the JSON, short.
fn shown_error(error: &serde_json::Error) -> String {
    let text: String = error.to_string().chars().filter(|c| !c.is_control()).take(120).collect();
    if text.is_empty() { "it is no JSON".into() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn library() -> Library {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        Library::load(&root.join("config/plans"), &root.join("config/personas")).unwrap()
    }

    #[test]
    fn metadata_names_what_is_wanted_or_is_refused_with_words_that_help() {
        let library = library();
        let cases = [
            (
                r#"{"plan": "backend-engineer", "persona": "max", "name": " Sam "}"#,
                Ok(("backend-engineer", "max", "Sam")),
            ),
            (r#"{"plan": "product-manager"}"#, Ok(("product-manager", "ada", ""))),
            ("", Err(r#"send JSON as {"plan""#)),
            ("{}", Err("missing field `plan`")),
            ("[]", Err("metadata")),
            (r#"{"plan": 1}"#, Err("metadata")),
            (r#"{"plan": "nope"}"#, Err("no plan `nope`")),
            (r#"{"plan": "backend-engineer", "persona": "nope"}"#, Err("no persona `nope`")),
            (r#"{"plan": "backend-engineer", "name": "<b>"}"#, Err("cannot be spoken")),
            (r#"{"plan": "backend-engineer", "consent": true}"#, Err("unknown field `consent`")),
        ];
        for (metadata, expected) in cases {
            match (read(&library, metadata), expected) {
                (Ok(new), Ok(wanted)) => {
                    assert_eq!((new.plan.as_str(), new.persona.as_str(), new.name.0.as_str()), wanted);
                    assert!(new.questions > 0);
                }
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{metadata}: {error}"),
                (got, _) => panic!("{metadata}: {got:?}"),
            }
        }
        assert!(read(&library, &" ".repeat(METADATA_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn no_metadata_panics() {
        let library = library();
        proptest!(|(text in ".{0,200}")| drop(read(&library, &text)));
    }
}
