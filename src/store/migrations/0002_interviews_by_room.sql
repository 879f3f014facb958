-- A room of the integrator's may see many interviews, one at a time: `room` is not unique any more.

-- SQLite cannot take a constraint off a table. The other tables refer to this one, so their rows lack their interview
-- between here and the second INSERT, which the check at the commit allows.
PRAGMA defer_foreign_keys = ON;

CREATE TABLE interviews_kept AS SELECT * FROM interviews;

-- Takes its indexes with it.
DROP TABLE interviews;

CREATE TABLE interviews (
    id               TEXT PRIMARY KEY NOT NULL,
    room             TEXT NOT NULL,
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

INSERT INTO interviews (
    id, room, plan, persona, interviewee, interviewee_name, invite_hash, state, end_reason, created_at_ms,
    started_at_ms, ended_at_ms, questions_asked, questions_total
)
SELECT
    id, room, plan, persona, interviewee, interviewee_name, invite_hash, state, end_reason, created_at_ms,
    started_at_ms, ended_at_ms, questions_asked, questions_total
FROM interviews_kept;

DROP TABLE interviews_kept;

CREATE UNIQUE INDEX interviews_room ON interviews (room) WHERE state <> 'ended';
CREATE INDEX interviews_unfinished ON interviews (created_at_ms) WHERE state <> 'ended';
