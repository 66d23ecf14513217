-- Runs that are over though their execution is not: continue-as-new, rewind. And where forks come from.
--
-- `number` stays the short name of one run: a past run's events keep theirs, the next one gets a new one.

ALTER TABLE execution ADD COLUMN first_run TEXT NOT NULL DEFAULT ''; -- of those up to this one; '': this one
ALTER TABLE execution ADD COLUMN run_began_at_ms INTEGER; -- NULL: with the execution
ALTER TABLE execution ADD COLUMN origin TEXT NOT NULL DEFAULT ''; -- execution/run/position it was copied from

CREATE TABLE past_run (
    number INTEGER NOT NULL PRIMARY KEY,
    shard INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    execution TEXT NOT NULL,
    run TEXT NOT NULL,
    workflow TEXT NOT NULL,
    status TEXT NOT NULL, -- continued, abandoned, or how it had ended before it was rewound
    position INTEGER NOT NULL,
    began_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER NOT NULL,
    origin TEXT NOT NULL
) STRICT;

CREATE INDEX past_run_execution ON past_run (shard, namespace, execution, number);

-- Messages that past runs received: none is put into an inbox of the execution again.
CREATE TABLE received (
    shard INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    execution TEXT NOT NULL,
    message_id TEXT NOT NULL,
    PRIMARY KEY (shard, namespace, execution, message_id)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 6;
