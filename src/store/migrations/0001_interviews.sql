-- Interviews, what was consented to, what was said, and how long each reply took. Times are Unix ms unless said.

CREATE TABLE interviews (
    id               TEXT PRIMARY KEY NOT NULL,
    room             TEXT NOT NULL UNIQUE,
    plan             TEXT NOT NULL,
    persona          TEXT NOT NULL,
    interviewee      TEXT NOT NULL,
    interviewee_name TEXT NOT NULL,
    -- SHA-256 of the invitation's secret, hex.
    invite_hash      TEXT NOT NULL,
    state            TEXT NOT NULL CHECK (state IN ('open', 'live', 'ended')),
    end_reason       TEXT,
    created_at_ms    INTEGER NOT NULL,
    started_at_ms    INTEGER,
    ended_at_ms      INTEGER,
    questions_asked  INTEGER NOT NULL DEFAULT 0,
    questions_total  INTEGER NOT NULL
) STRICT;

CREATE INDEX interviews_unfinished ON interviews (created_at_ms) WHERE state <> 'ended';

-- Append-only: the triggers below refuse to change or delete a decision. The latest row of a person and purpose holds.
CREATE TABLE consents (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    interview      TEXT NOT NULL REFERENCES interviews (id),
    identity       TEXT NOT NULL,
    purpose        TEXT NOT NULL,
    granted        INTEGER NOT NULL CHECK (granted IN (0, 1)),
    notice_version TEXT NOT NULL,
    source         TEXT NOT NULL,
    at_ms          INTEGER NOT NULL
) STRICT;

CREATE INDEX consents_by_person ON consents (interview, identity, purpose, seq);

CREATE TRIGGER consents_are_not_changed BEFORE UPDATE ON consents
BEGIN
    SELECT RAISE(ABORT, 'consents are append-only');
END;

CREATE TRIGGER consents_are_not_deleted BEFORE DELETE ON consents
BEGIN
    SELECT RAISE(ABORT, 'consents are append-only');
END;

CREATE TABLE transcript (
    interview   TEXT NOT NULL REFERENCES interviews (id),
    seq         INTEGER NOT NULL,
    identity    TEXT NOT NULL,
    name        TEXT NOT NULL,
    role        TEXT NOT NULL,
    -- Offsets from the interview's start, ms.
    start_ms    INTEGER NOT NULL,
    end_ms      INTEGER NOT NULL,
    text        TEXT NOT NULL,
    question_id TEXT,
    interrupted INTEGER NOT NULL CHECK (interrupted IN (0, 1)),
    PRIMARY KEY (interview, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE turns (
    interview          TEXT NOT NULL REFERENCES interviews (id),
    seq                INTEGER NOT NULL,
    question_id        TEXT,
    act                TEXT NOT NULL,
    at_ms              INTEGER NOT NULL,
    interrupted        INTEGER NOT NULL CHECK (interrupted IN (0, 1)),
    -- Stages, µs after the interviewee's last speech.
    endpoint_us        INTEGER,
    stt_final_us       INTEGER,
    llm_first_token_us INTEGER,
    first_clause_us    INTEGER,
    tts_first_audio_us INTEGER,
    first_packet_us    INTEGER,
    PRIMARY KEY (interview, seq)
) STRICT, WITHOUT ROWID;
