//! What is kept: interviews, consents, turns with the times of their stages, transcripts. SQLite.
//!
//! A write that has returned survives the death of the process; a consent also that of the machine. Readers never wait
//! for writers (WAL). Nothing here is called from the media plane.

mod error;
mod rows;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::Duration};

pub use error::StoreError;
use serde::{Deserialize, Serialize};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    id::{Identity, InterviewId},
    model::{ConsentRecord, EndReason, Interview, Personal, TranscriptLine, TurnRecord},
    telemetry::Metrics,
};

/// Prefix of the only kind of address there is.
const SQLITE: &str = "sqlite://";
/// How long a writer waits for another one (also of another process, as a backup) before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a query waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// SQLite has one writer at a time; more connections would only wait for each other inside SQLite.
const WRITERS: u32 = 1;
/// Enough for pages that are looked at; live interviews do not read.
const READERS: u32 = 4;

/// Where things are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `sqlite://` and a path, relative to the working directory or absolute.
    pub url: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { url: "sqlite://data/viva.db".into() }
    }
}

/// Cheap clone.
#[derive(Clone)]
pub struct Store {
    readers: SqlitePool,
    writer: SqlitePool,
    /// Syncs to the disk at every commit: for what must survive a power cut.
    durable: SqlitePool,
    metrics: Arc<Metrics>,
}

impl Store {
    /// Opens the database, makes it (and its folder) if there is none, and brings its tables up to date.
    pub async fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let path = config
            .url
            .strip_prefix(SQLITE)
            .filter(|p| !p.is_empty())
            .ok_or_else(|| StoreError::BadUrl { url: config.url.clone() })?;
        let path = Path::new(path);
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|source| StoreError::Folder { path: folder.to_owned(), source })?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = |max: u32| {
            SqlitePoolOptions::new().max_connections(max).acquire_timeout(ACQUIRE_TIMEOUT).idle_timeout(None)
        };
        let opening = |source| StoreError::Open { path: path.to_owned(), source };
        // The writer comes first: it makes the file and the tables.
        let writer = pool(WRITERS).connect_with(options.clone()).await.map_err(opening)?;
        sqlx::migrate!("src/store/migrations")
            .run(&writer)
            .await
            .map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
        let durable =
            pool(WRITERS).connect_with(options.clone().synchronous(SqliteSynchronous::Full)).await.map_err(opening)?;
        let readers = pool(READERS).connect_with(options.read_only(true)).await.map_err(opening)?;
        Ok(Self { readers, writer, durable, metrics })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.timed("ping", sqlx::query("SELECT 1").execute(&self.readers)).await.map(drop)
    }

    /// Finishes what is under way and closes.
    pub async fn close(&self) {
        self.readers.close().await;
        self.durable.close().await;
        self.writer.close().await;
    }

    /// Adds an interview. `invite_hash`: of the secret in the link for a second person.
    pub async fn insert_interview(&self, interview: &Interview, invite_hash: &str) -> Result<(), StoreError> {
        let query = sqlx::query(
            "INSERT INTO interviews (id, room, plan, persona, interviewee, interviewee_name, invite_hash, state, \
             end_reason, created_at_ms, started_at_ms, ended_at_ms, questions_asked, questions_total) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(interview.id.as_str())
        .bind(interview.room.as_str())
        .bind(&interview.plan)
        .bind(&interview.persona)
        .bind(interview.interviewee.as_str())
        .bind(&interview.interviewee_name.0)
        .bind(invite_hash)
        .bind(rows::state(interview.state))
        .bind(interview.end_reason.map(EndReason::as_str))
        .bind(interview.created_at_ms)
        .bind(interview.started_at_ms)
        .bind(interview.ended_at_ms)
        .bind(interview.questions_asked)
        .bind(interview.questions_total);
        self.timed("insert_interview", query.execute(&self.writer)).await.map(drop)
    }

    pub async fn interview(&self, id: &InterviewId) -> Result<Option<Interview>, StoreError> {
        let query = sqlx::query_as::<_, rows::InterviewRow>("SELECT * FROM interviews WHERE id = ?").bind(id.as_str());
        let row = self.timed("interview", query.fetch_optional(&self.readers)).await?;
        row.map(rows::InterviewRow::into_model).transpose()
    }

    pub async fn invite_hash(&self, id: &InterviewId) -> Result<Option<String>, StoreError> {
        let query = sqlx::query_scalar("SELECT invite_hash FROM interviews WHERE id = ?").bind(id.as_str());
        self.timed("invite_hash", query.fetch_optional(&self.readers)).await
    }

    /// Interviews that are open or live, oldest first.
    pub async fn unfinished(&self) -> Result<Vec<Interview>, StoreError> {
        let query = sqlx::query_as::<_, rows::InterviewRow>(
            "SELECT * FROM interviews WHERE state <> 'ended' ORDER BY created_at_ms",
        );
        let rows = self.timed("unfinished", query.fetch_all(&self.readers)).await?;
        rows.into_iter().map(rows::InterviewRow::into_model).collect()
    }

    /// Who the interviewee is, of an interview that was made for whoever comes.
    pub async fn set_interviewee(
        &self,
        id: &InterviewId,
        identity: &Identity,
        name: &Personal,
    ) -> Result<(), StoreError> {
        let query = sqlx::query("UPDATE interviews SET interviewee = ?, interviewee_name = ? WHERE id = ?")
            .bind(identity.as_str())
            .bind(&name.0)
            .bind(id.as_str());
        self.timed("set_interviewee", query.execute(&self.writer)).await.map(drop)
    }

    /// The interviewee was greeted. The first call counts.
    pub async fn set_started(&self, id: &InterviewId, at_ms: i64) -> Result<(), StoreError> {
        let query = sqlx::query(
            "UPDATE interviews SET state = 'live', started_at_ms = coalesce(started_at_ms, ?) \
             WHERE id = ? AND state <> 'ended'",
        )
        .bind(at_ms)
        .bind(id.as_str());
        self.timed("set_started", query.execute(&self.writer)).await.map(drop)
    }

    pub async fn set_progress(&self, id: &InterviewId, questions_asked: u32) -> Result<(), StoreError> {
        let query = sqlx::query("UPDATE interviews SET questions_asked = ? WHERE id = ?")
            .bind(questions_asked)
            .bind(id.as_str());
        self.timed("set_progress", query.execute(&self.writer)).await.map(drop)
    }

    /// Ends an interview. The first call counts.
    pub async fn set_ended(&self, id: &InterviewId, reason: EndReason, at_ms: i64) -> Result<(), StoreError> {
        let query = sqlx::query(
            "UPDATE interviews SET state = 'ended', end_reason = ?, ended_at_ms = ? WHERE id = ? AND state <> 'ended'",
        )
        .bind(reason.as_str())
        .bind(at_ms)
        .bind(id.as_str());
        self.timed("set_ended", query.execute(&self.writer)).await.map(drop)
    }

    /// Appends a decision. It is on the disk when this returns.
    pub async fn insert_consent(&self, record: &ConsentRecord) -> Result<(), StoreError> {
        let query = sqlx::query(
            "INSERT INTO consents (interview, identity, purpose, granted, notice_version, source, at_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(record.interview.as_str())
        .bind(record.identity.as_str())
        .bind(record.purpose.as_str())
        .bind(record.granted)
        .bind(&record.notice_version)
        .bind(&record.source)
        .bind(record.at_ms);
        self.timed("insert_consent", query.execute(&self.durable)).await.map(drop)
    }

    /// The latest decision of a person for each purpose that they decided on.
    pub async fn latest_consents(
        &self,
        id: &InterviewId,
        identity: &Identity,
    ) -> Result<Vec<ConsentRecord>, StoreError> {
        let query = sqlx::query_as::<_, rows::ConsentRow>(
            "SELECT * FROM consents WHERE seq IN \
             (SELECT max(seq) FROM consents WHERE interview = ? AND identity = ? GROUP BY purpose) ORDER BY purpose",
        )
        .bind(id.as_str())
        .bind(identity.as_str());
        let rows = self.timed("latest_consents", query.fetch_all(&self.readers)).await?;
        rows.into_iter().map(rows::ConsentRow::into_model).collect()
    }

    /// Every decision in an interview, in the order in which they were made.
    pub async fn all_consents(&self, id: &InterviewId) -> Result<Vec<ConsentRecord>, StoreError> {
        let query = sqlx::query_as::<_, rows::ConsentRow>("SELECT * FROM consents WHERE interview = ? ORDER BY seq")
            .bind(id.as_str());
        let rows = self.timed("all_consents", query.fetch_all(&self.readers)).await?;
        rows.into_iter().map(rows::ConsentRow::into_model).collect()
    }

    /// Whether this person was part of an interview: is its interviewee, decided on consent, or said something.
    pub async fn took_part(&self, id: &InterviewId, identity: &Identity) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM interviews WHERE id = ?1 AND interviewee = ?2) \
             OR EXISTS (SELECT 1 FROM consents WHERE interview = ?1 AND identity = ?2) \
             OR EXISTS (SELECT 1 FROM transcript WHERE interview = ?1 AND identity = ?2)",
        )
        .bind(id.as_str())
        .bind(identity.as_str());
        self.timed("took_part", query.fetch_one(&self.readers)).await
    }

    /// Adds a line of the transcript, or replaces the one of the same `seq` (a person who went on talking).
    pub async fn put_line(&self, line: &TranscriptLine) -> Result<(), StoreError> {
        let query = sqlx::query(
            "INSERT INTO transcript (interview, seq, identity, name, role, start_ms, end_ms, text, question_id, \
             interrupted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (interview, seq) DO UPDATE SET \
             end_ms = excluded.end_ms, text = excluded.text, interrupted = excluded.interrupted",
        )
        .bind(line.interview.as_str())
        .bind(line.seq)
        .bind(line.identity.as_str())
        .bind(&line.name.0)
        .bind(rows::role(line.role))
        .bind(line.start_ms)
        .bind(line.end_ms)
        .bind(&line.text.0)
        .bind(&line.question_id)
        .bind(line.interrupted);
        self.timed("put_line", query.execute(&self.writer)).await.map(drop)
    }

    pub async fn lines(&self, id: &InterviewId) -> Result<Vec<TranscriptLine>, StoreError> {
        let query = sqlx::query_as::<_, rows::LineRow>("SELECT * FROM transcript WHERE interview = ? ORDER BY seq")
            .bind(id.as_str());
        let rows = self.timed("lines", query.fetch_all(&self.readers)).await?;
        rows.into_iter().map(rows::LineRow::into_model).collect()
    }

    /// Adds a turn, or completes the one of the same `seq`.
    pub async fn put_turn(&self, turn: &TurnRecord) -> Result<(), StoreError> {
        let query = sqlx::query(
            "INSERT INTO turns (interview, seq, question_id, act, at_ms, interrupted, endpoint_us, stt_final_us, \
             llm_first_token_us, first_clause_us, tts_first_audio_us, first_packet_us) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (interview, seq) DO UPDATE SET interrupted = excluded.interrupted, \
             endpoint_us = excluded.endpoint_us, stt_final_us = excluded.stt_final_us, \
             llm_first_token_us = excluded.llm_first_token_us, first_clause_us = excluded.first_clause_us, \
             tts_first_audio_us = excluded.tts_first_audio_us, first_packet_us = excluded.first_packet_us",
        )
        .bind(turn.interview.as_str())
        .bind(turn.seq)
        .bind(&turn.question_id)
        .bind(&turn.act)
        .bind(turn.at_ms)
        .bind(turn.interrupted)
        .bind(turn.times.endpoint_us)
        .bind(turn.times.stt_final_us)
        .bind(turn.times.llm_first_token_us)
        .bind(turn.times.first_clause_us)
        .bind(turn.times.tts_first_audio_us)
        .bind(turn.times.first_packet_us);
        self.timed("put_turn", query.execute(&self.writer)).await.map(drop)
    }

    pub async fn turns(&self, id: &InterviewId) -> Result<Vec<TurnRecord>, StoreError> {
        let query = sqlx::query_as::<_, rows::TurnRow>("SELECT * FROM turns WHERE interview = ? ORDER BY seq")
            .bind(id.as_str());
        let rows = self.timed("turns", query.fetch_all(&self.readers)).await?;
        Ok(rows.into_iter().map(rows::TurnRow::into_model).collect())
    }

    /// Runs one operation under its name in `store_query_duration_seconds`.
    async fn timed<T>(
        &self,
        operation: &'static str,
        query: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        let started = std::time::Instant::now();
        let result = query.await;
        self.metrics.store_query_duration.with_label_values(&[operation]).observe(started.elapsed().as_secs_f64());
        result.map_err(|source| StoreError::Query { operation, source })
    }
}
