use std::sync::Arc;

use super::*;
use crate::{
    id::RoomName,
    model::{InterviewState, Personal, Purpose, Role, TurnTimes},
};

async fn open(path: &Path) -> Result<Store, StoreError> {
    let config = Config { url: format!("sqlite://{}", path.display()) };
    Store::open(&config, Arc::new(Metrics::new())).await
}

fn interview(id: &str) -> Interview {
    Interview {
        id: id.into(),
        room: RoomName::from(format!("room-{id}")),
        plan: "backend-engineer".into(),
        persona: "ada".into(),
        interviewee: "interviewee-1".into(),
        interviewee_name: "Sam".into(),
        state: InterviewState::Open,
        end_reason: None,
        created_at_ms: 1_000,
        started_at_ms: None,
        ended_at_ms: None,
        questions_asked: 0,
        questions_total: 6,
    }
}

fn consent(purpose: Purpose, granted: bool, at_ms: i64) -> ConsentRecord {
    ConsentRecord {
        interview: "A".into(),
        identity: "interviewee-1".into(),
        purpose,
        granted,
        notice_version: "1".into(),
        source: "rest".into(),
        at_ms,
    }
}

fn line(seq: u32, text: &str) -> TranscriptLine {
    TranscriptLine {
        interview: "A".into(),
        seq,
        identity: "interviewee-1".into(),
        name: "Sam".into(),
        role: Role::Interviewee,
        start_ms: 100,
        end_ms: 900,
        text: text.into(),
        question_id: Some("q1".into()),
        interrupted: false,
    }
}

#[tokio::test]
async fn an_interview_lives_through_its_states_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/on/the/way/viva.db");
    let store = open(&path).await.unwrap();
    store.insert_interview(&interview("A"), "hash").await.unwrap();
    store.set_started(&"A".into(), 2_000).await.unwrap();
    store.set_started(&"A".into(), 3_000).await.unwrap();
    store.set_progress(&"A".into(), 4).await.unwrap();
    assert_eq!(store.unfinished().await.unwrap().len(), 1);
    store.close().await;

    let store = open(&path).await.unwrap();
    let found = store.interview(&"A".into()).await.unwrap().unwrap();
    assert_eq!((found.state, found.started_at_ms, found.questions_asked), (InterviewState::Live, Some(2_000), 4));
    store.set_ended(&"A".into(), EndReason::Left, 9_000).await.unwrap();
    store.set_ended(&"A".into(), EndReason::Completed, 9_500).await.unwrap();
    let found = store.interview(&"A".into()).await.unwrap().unwrap();
    assert_eq!((found.end_reason, found.ended_at_ms), (Some(EndReason::Left), Some(9_000)));
    assert!(store.unfinished().await.unwrap().is_empty());
    assert_eq!(store.invite_hash(&"A".into()).await.unwrap().as_deref(), Some("hash"));
    assert!(store.interview(&"B".into()).await.unwrap().is_none());
    store.ping().await.unwrap();
}

#[tokio::test]
async fn the_latest_decision_of_each_purpose_holds_and_none_can_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("viva.db")).await.unwrap();
    store.insert_interview(&interview("A"), "").await.unwrap();
    for record in [
        consent(Purpose::AiInterviewer, true, 1),
        consent(Purpose::Transcription, true, 2),
        // Of the same millisecond: the order of arrival decides.
        consent(Purpose::AiInterviewer, false, 3),
        consent(Purpose::AiInterviewer, true, 3),
        consent(Purpose::Transcription, false, 4),
    ] {
        store.insert_consent(&record).await.unwrap();
    }
    let latest = store.latest_consents(&"A".into(), &"interviewee-1".into()).await.unwrap();
    let latest: Vec<_> = latest.iter().map(|c| (c.purpose, c.granted)).collect();
    assert_eq!(latest, [(Purpose::AiInterviewer, true), (Purpose::Transcription, false)]);
    assert_eq!(store.all_consents(&"A".into()).await.unwrap().len(), 5);
    assert!(store.latest_consents(&"A".into(), &"other".into()).await.unwrap().is_empty());

    for change in ["UPDATE consents SET granted = 1", "DELETE FROM consents"] {
        let error = sqlx::query(change).execute(&store.writer).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

#[tokio::test]
async fn a_line_grows_in_place_and_lines_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("viva.db")).await.unwrap();
    store.insert_interview(&interview("A"), "").await.unwrap();
    store.put_line(&line(1, "second")).await.unwrap();
    store.put_line(&line(0, "first")).await.unwrap();
    store.put_line(&TranscriptLine { end_ms: 1_500, ..line(0, "first and more") }).await.unwrap();
    let lines = store.lines(&"A".into()).await.unwrap();
    let texts: Vec<_> = lines.iter().map(|l| (l.text.0.as_str(), l.end_ms)).collect();
    assert_eq!(texts, [("first and more", 1_500), ("second", 900)]);
    assert_eq!(lines[0].role, Role::Interviewee);
    assert_eq!(lines[0].name, Personal::from("Sam"));
}

#[tokio::test]
async fn a_turn_is_completed_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("viva.db")).await.unwrap();
    store.insert_interview(&interview("A"), "").await.unwrap();
    let mut turn = TurnRecord {
        interview: "A".into(),
        seq: 0,
        question_id: None,
        act: "greet".into(),
        at_ms: 5,
        interrupted: false,
        times: TurnTimes { endpoint_us: Some(500_000), ..TurnTimes::default() },
    };
    store.put_turn(&turn).await.unwrap();
    turn.times.first_packet_us = Some(520_000);
    turn.interrupted = true;
    store.put_turn(&turn).await.unwrap();
    let turns = store.turns(&"A".into()).await.unwrap();
    assert_eq!(turns.len(), 1);
    assert_eq!(turns[0].times.first_packet_us, Some(520_000));
    assert!(turns[0].interrupted);
}

#[tokio::test]
async fn lines_that_were_acknowledged_outlive_a_process_that_did_not_close() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("viva.db");
    let store = open(&path).await.unwrap();
    store.insert_interview(&interview("A"), "").await.unwrap();
    store.put_line(&line(0, "kept")).await.unwrap();
    // What a killed process leaves: the files as they are, with nothing closed.
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let after = open(&copy.path().join("viva.db")).await.unwrap();
    assert_eq!(after.lines(&"A".into()).await.unwrap()[0].text.0, "kept");
}

#[tokio::test]
async fn a_database_of_the_first_version_opens_and_keeps_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("viva.db");
    let all = sqlx::migrate!("src/store/migrations");
    let first = sqlx::migrate::Migrator::with_migrations(all.iter().take(1).cloned().collect());
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true).foreign_keys(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    first.run(&pool).await.unwrap();
    for row in [
        "INSERT INTO interviews VALUES ('A', 'hall', 'p', 'ada', 'sam', 'Sam', 'hash', 'live', NULL, 1, 2, NULL, 3, 6)",
        "INSERT INTO interviews VALUES ('B', 'B', 'p', 'ada', 'kim', 'Kim', '', 'ended', 'left', 1, 2, 3, 4, 6)",
        "INSERT INTO consents VALUES (7, 'A', 'sam', 'transcription', 1, '1', 'page', 5)",
        "INSERT INTO transcript VALUES ('A', 0, 'sam', 'Sam', 'interviewee', 100, 900, 'kept', 'q1', 0)",
        "INSERT INTO turns VALUES ('A', 0, NULL, 'greet', 5, 0, 1, 2, 3, 4, 5, 6)",
    ] {
        sqlx::query(row).execute(&pool).await.unwrap();
    }
    pool.close().await;

    let store = open(&path).await.unwrap();
    let a = store.interview(&"A".into()).await.unwrap().unwrap();
    let expected = Interview {
        room: "hall".into(),
        plan: "p".into(),
        interviewee: "sam".into(),
        state: InterviewState::Live,
        created_at_ms: 1,
        started_at_ms: Some(2),
        questions_asked: 3,
        ..interview("A")
    };
    assert_eq!(format!("{a:?}"), format!("{expected:?}"));
    assert_eq!(store.invite_hash(&"A".into()).await.unwrap().as_deref(), Some("hash"));
    let b = store.interview(&"B".into()).await.unwrap().unwrap();
    assert_eq!((b.end_reason, b.ended_at_ms), (Some(EndReason::Left), Some(3)));
    assert_eq!(store.all_consents(&"A".into()).await.unwrap().len(), 1);
    assert_eq!(store.lines(&"A".into()).await.unwrap()[0].text.0, "kept");
    assert_eq!(store.turns(&"A".into()).await.unwrap()[0].times.first_packet_us, Some(6));

    // The tables still hold on to each other, what was decided is still for good, and rooms see a second interview.
    let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&store.readers).await.unwrap();
    assert!(broken.is_empty());
    let stray = TranscriptLine { interview: "nobody's".into(), ..line(0, "stray") };
    assert!(store.put_line(&stray).await.is_err());
    assert!(sqlx::query("DELETE FROM interviews WHERE id = 'A'").execute(&store.writer).await.is_err());
    assert!(sqlx::query("DELETE FROM consents").execute(&store.writer).await.is_err());
    let again = Interview { room: "hall".into(), ..interview("C") };
    assert!(store.insert_interview(&again, "").await.is_err(), "one at a time");
    store.set_ended(&"A".into(), EndReason::Completed, 9).await.unwrap();
    store.insert_interview(&again, "").await.unwrap();
}

#[test]
fn migrations_that_databases_have_been_through_are_not_changed() {
    // A database that was made with another text does not open any more: changes come in a further file.
    let published = [
        "4a5144d83dd9f7701f32a338f92211a5fa3b157fd6890d12582c87f9f094be235a12f8acdb8da9094b82426503d96178",
        "f5a8a9ca02f01b79e611da49bd57c90f7dd683a2e4672ef10c74ee2c235b189f899979564e98e8be399f070ee2d2841e",
    ];
    let migrations = sqlx::migrate!("src/store/migrations");
    let hex = |sum: &[u8]| sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let sums: Vec<_> = migrations.iter().map(|migration| hex(&migration.checksum)).collect();
    assert_eq!(sums, published);
}

#[tokio::test]
async fn mistakes_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = || Arc::new(Metrics::new());
    let error = |url: String| async move { Store::open(&Config { url }, metrics()).await.err().unwrap().to_string() };
    assert!(error("postgres://db".into()).await.contains("write `sqlite://` and a path"));
    assert!(error("sqlite://".into()).await.contains("write `sqlite://` and a path"));

    let file = folder.path().join("file");
    std::fs::write(&file, "this is no database, but a text that is longer than a header").unwrap();
    let message = error(format!("sqlite://{}", file.display())).await;
    assert!(message.contains("is an SQLite database") && message.contains("store.url"), "{message}");
    let message = error(format!("sqlite://{}/below/viva.db", file.display())).await;
    assert!(message.contains("folder") && message.contains("store.url"), "{message}");
}

#[tokio::test]
async fn a_room_sees_one_interview_at_a_time_and_its_interviewee_may_be_found_later() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("viva.db")).await.unwrap();
    let in_room = |id: &str| Interview { room: "hall".into(), interviewee: "".into(), ..interview(id) };
    store.insert_interview(&in_room("A"), "").await.unwrap();
    assert!(store.insert_interview(&in_room("B"), "").await.is_err());
    store.set_interviewee(&"A".into(), &"sam".into(), &"Sam".into()).await.unwrap();
    let found = store.interview(&"A".into()).await.unwrap().unwrap();
    assert_eq!((found.interviewee.as_str(), found.interviewee_name.0.as_str()), ("sam", "Sam"));
    store.set_ended(&"A".into(), EndReason::Completed, 2_000).await.unwrap();
    store.insert_interview(&in_room("B"), "").await.unwrap();
}
