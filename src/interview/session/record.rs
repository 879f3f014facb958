//! What is kept of an interview while it runs: lines, turns and progress, in the order in which they must be written.
//!
//! A person's line grows in place while nobody else says anything, and is written at every recognised stretch, so that
//! nothing that was understood waits for the end of a turn.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Session, people::Person};
use crate::{
    id::{Identity, InterviewId},
    interview::{port::RoomPort, wall_ms},
    model::{ConsentRecord, Interview, Personal, TranscriptLine, TurnRecord},
    store::{Store, StoreError},
};

/// A person who goes on after a longer pause begins a new line.
const SAME_LINE_GAP_MS: i64 = 15_000;
/// Writes kept while the database fails: hours of talk. Full: the newest is dropped, and logged.
const WRITES_MAX: usize = 4096;
/// How long a failed write waits before it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long a session that is over tries to write what still waits.
const FINISH_MAX: Duration = Duration::from_secs(5);
/// Longest that a session waits for the database, since nobody is answered meanwhile, and nobody's withdrawal is taken.
const DATABASE_MAX: Duration = Duration::from_millis(800);

pub(super) enum Write {
    Line(TranscriptLine),
    Turn(TurnRecord),
    /// Who it is, and what they are called.
    Interviewee(Identity, Personal),
    Started(i64),
    Progress(u32),
    Consent(ConsentRecord),
}

/// What the database says within [`DATABASE_MAX`]. What takes longer may still be done; so it must be safe to do twice.
pub(super) async fn in_time<T>(query: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(DATABASE_MAX, query).await.unwrap_or(Err(StoreError::Slow))
}

pub(super) struct Record {
    interview: InterviewId,
    /// When the interview began, on both clocks.
    start: Option<(Instant, i64)>,
    next_line: u32,
    next_turn: u32,
    /// The last line, if it is a person's and may grow.
    open: Option<TranscriptLine>,
    writes: VecDeque<Write>,
    retry_at: Option<Instant>,
    /// Makes segment ids of this sitting different from those before a restart.
    sitting: String,
    /// Id of the question that is being talked about.
    pub question: Option<String>,
    /// Recognition failed last time.
    pub degraded: bool,
}

impl Record {
    /// Goes on where the record of this interview ends.
    pub async fn load(store: &Store, interview: &Interview, now: Instant) -> Result<Self, StoreError> {
        let lines = store.lines(&interview.id).await?;
        let turns = store.turns(&interview.id).await?;
        let start = interview.started_at_ms.map(|at| {
            let ago = Duration::from_millis(wall_ms().saturating_sub(at).max(0) as u64);
            (now.checked_sub(ago).unwrap_or(now), at)
        });
        Ok(Self {
            interview: interview.id.clone(),
            start,
            next_line: lines.last().map_or(0, |l| l.seq + 1),
            next_turn: turns.last().map_or(0, |t| t.seq + 1),
            open: None,
            writes: VecDeque::new(),
            retry_at: None,
            sitting: ulid::Ulid::new().to_string(),
            question: None,
            degraded: false,
        })
    }

    /// When the interview began.
    pub fn started(&self) -> Option<Instant> {
        self.start.map(|(at, _)| at)
    }

    /// The interview begins now. Returns whether it had not before.
    pub fn begin(&mut self, now: Instant) -> bool {
        let first = self.start.is_none();
        if first {
            let wall = wall_ms();
            self.start = Some((now, wall));
            self.write(Write::Started(wall));
        }
        first
    }

    /// ms after the interview's start; 0 for what was before it.
    pub fn offset_ms(&self, at: Instant) -> i64 {
        self.start.map_or(0, |(start, _)| at.saturating_duration_since(start).as_millis() as i64)
    }

    pub fn segment_id(&self, name: &str) -> String {
        format!("SG_{}_{name}", self.sitting)
    }

    pub fn next_turn(&mut self) -> u32 {
        self.next_turn += 1;
        self.next_turn - 1
    }

    /// Takes the place of a line in the transcript's order, before its words are known.
    pub fn next_line(&mut self) -> u32 {
        self.open = None;
        self.next_line += 1;
        self.next_line - 1
    }

    /// What a person said: in the line that is open, if it is theirs, else in a new one.
    pub fn add_words(&mut self, person: &Person, started: Instant, ended: Instant, text: &Personal) {
        let (start_ms, end_ms) = (self.offset_ms(started), self.offset_ms(ended));
        let line = match self.open.take() {
            Some(mut line) if line.identity == person.identity && start_ms - line.end_ms <= SAME_LINE_GAP_MS => {
                line.end_ms = end_ms;
                line.text.0.push(' ');
                line.text.0.push_str(text.0.trim());
                line
            }
            _ => TranscriptLine {
                interview: self.interview.clone(),
                seq: self.next_line(),
                identity: person.identity.clone(),
                name: person.name.clone(),
                role: person.role,
                start_ms,
                end_ms,
                text: Personal(text.0.trim().to_owned()),
                question_id: self.question.clone(),
                interrupted: false,
            },
        };
        self.open = Some(line.clone());
        self.write(Write::Line(line));
    }

    pub fn write(&mut self, write: Write) {
        if self.writes.len() < WRITES_MAX {
            self.writes.push_back(write);
        } else {
            tracing::error!(interview = %self.interview, "the database has failed for too long: a record is lost");
        }
    }

    /// Writes what waits, in order. What fails waits on.
    pub async fn flush(&mut self, store: &Store, now: Instant) {
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        while let Some(write) = self.writes.front() {
            let id = &self.interview;
            let done = in_time(async {
                match write {
                    Write::Line(line) => store.put_line(line).await,
                    Write::Turn(turn) => store.put_turn(turn).await,
                    Write::Interviewee(identity, name) => store.set_interviewee(id, identity, name).await,
                    Write::Started(at_ms) => store.set_started(id, *at_ms).await,
                    Write::Progress(asked) => store.set_progress(id, *asked).await,
                    Write::Consent(record) => store.insert_consent(record).await,
                }
            });
            if let Err(error) = done.await {
                tracing::error!(interview = %id, %error, waiting = self.writes.len(), "a record waits to be written");
                self.retry_at = Some(now + RETRY_AFTER);
                return;
            }
            self.retry_at = None;
            self.writes.pop_front();
        }
    }

    /// Tries once more without waiting for the time to do so. False where something is still not written.
    pub async fn flush_now(&mut self, store: &Store, now: Instant) -> bool {
        self.retry_at = None;
        self.flush(store, now).await;
        self.writes.is_empty()
    }

    /// Writes what still waits, at the end: as long as the database takes.
    pub async fn finish(&mut self, store: &Store, now: Instant) {
        let until = now + FINISH_MAX;
        while !self.flush_now(store, super::now()).await && super::now() < until {
            tokio::time::sleep(DATABASE_MAX).await;
        }
    }
}

impl<P: RoomPort> Session<P> {
    pub(super) async fn write_record(&mut self) {
        self.record.flush(&self.setup.store, super::now()).await;
    }
}
