-- What has become of updates, for callers who ask again; and where the published state stands in the journal.

ALTER TABLE execution ADD COLUMN state_position INTEGER;

CREATE TABLE updates (
    shard INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    execution TEXT NOT NULL,
    update_id TEXT NOT NULL,
    run TEXT NOT NULL,
    status TEXT NOT NULL, -- accepted, completed, rejected, closed
    position INTEGER NOT NULL, -- of its event in the journal; of a rejection, its number among the execution's
    failure BLOB, -- of a rejection: it is in no journal
    PRIMARY KEY (shard, namespace, execution, update_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX updates_rejected ON updates (shard, namespace, execution, position) WHERE status = 'rejected';

PRAGMA user_version = 2;
