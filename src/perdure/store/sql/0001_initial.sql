-- The first schema. Forward-only: a change is a new file, never an edit of this one.
--
-- An execution's identity is (shard, namespace, execution). `number` is its current run's short name inside this file:
-- what grows with the work (events, letters) is keyed by it, so that the rows of executions that run now lie together
-- and a group commit dirties few pages. docs/decisions/0003-sqlite-layout.md has the measurements.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A worker's registration, kept for ever: events name it for worker and code fingerprint.
CREATE TABLE session (
    session INTEGER NOT NULL PRIMARY KEY,
    worker TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    lanes TEXT NOT NULL, -- a JSON array
    opened_at_ms INTEGER NOT NULL,
    closed_at_ms INTEGER,
    clean INTEGER -- 1: it said goodbye; 0: it was found dead
) STRICT;

-- One row per commit connection of a session; a commit requires its epoch, a take-over raises it.
CREATE TABLE fence (
    session INTEGER NOT NULL,
    n INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (session, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE shard (
    shard INTEGER NOT NULL PRIMARY KEY,
    session INTEGER -- the owner; NULL when nobody is
) STRICT;

CREATE TABLE execution (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    shard INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    execution TEXT NOT NULL,
    run TEXT NOT NULL,
    lane TEXT NOT NULL,
    workflow TEXT NOT NULL,
    status TEXT NOT NULL,
    position INTEGER NOT NULL,
    start_digest BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    closed_at_ms INTEGER,
    wake_at_ms INTEGER,
    waits_for TEXT NOT NULL DEFAULT '',
    recoveries INTEGER NOT NULL DEFAULT 0,
    problem TEXT NOT NULL DEFAULT '',
    parent TEXT NOT NULL DEFAULT '', -- execution/run/seq
    UNIQUE (shard, namespace, execution)
) STRICT;

CREATE INDEX execution_active ON execution (shard, namespace, execution) WHERE status = 'active';
CREATE INDEX execution_due ON execution (shard, wake_at_ms) WHERE status = 'parked' AND wake_at_ms IS NOT NULL;

-- The journal, in the order of writing. One owner numbers all shards, so `shard_pos` grows within each; the newest row
-- is never deleted, so that no number is given twice.
CREATE TABLE event (
    shard_pos INTEGER NOT NULL PRIMARY KEY,
    number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    format INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    session INTEGER NOT NULL,
    trace_parent TEXT NOT NULL,
    usage TEXT, -- JSON
    checksum INTEGER NOT NULL, -- crc32 of body, position and at_ms: a flipped bit is found when it is read
    body BLOB NOT NULL,
    UNIQUE (number, position)
) STRICT;

-- What has arrived and is not yet journaled.
CREATE TABLE inbox (
    number INTEGER NOT NULL,
    arrival INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    format INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (number, arrival),
    UNIQUE (number, message_id)
) STRICT, WITHOUT ROWID;

-- What was sent and is not yet delivered: mail, or the start of a child when `digest` is there.
CREATE TABLE outbox (
    shard INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    execution TEXT NOT NULL,
    run TEXT NOT NULL,
    receiver_shard INTEGER NOT NULL,
    receiver_namespace TEXT NOT NULL,
    receiver_execution TEXT NOT NULL,
    n INTEGER NOT NULL,
    receiver_run TEXT NOT NULL,
    message_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    digest BLOB,
    format INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (shard, namespace, execution, run, receiver_shard, receiver_namespace, receiver_execution, n)
) STRICT, WITHOUT ROWID;

-- Steps known to be open, for people and for their next attempt.
CREATE TABLE running (
    number INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    started_at_ms INTEGER NOT NULL,
    progress BLOB,
    PRIMARY KEY (number, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letter (
    shard INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    execution TEXT NOT NULL,
    n INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    format INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (shard, namespace, execution, n),
    UNIQUE (shard, namespace, execution, message_id)
) STRICT, WITHOUT ROWID;

PRAGMA application_id = 0x50455244; -- "PERD"
PRAGMA user_version = 1;
