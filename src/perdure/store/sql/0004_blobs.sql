-- Large values, apart from the events that refer to them (docs/decisions/0007-values-at-rest.md).
--
-- Two tables: marking a blob as owned, which commits do, must not rewrite megabytes.

CREATE TABLE blob (
    blob INTEGER NOT NULL PRIMARY KEY,
    shard INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    execution TEXT NOT NULL,
    address BLOB NOT NULL,
    put_at_ms INTEGER NOT NULL,
    owned INTEGER NOT NULL DEFAULT 0, -- 1: something that was committed refers to it
    UNIQUE (shard, namespace, execution, address)
) STRICT;

CREATE INDEX blob_loose ON blob (put_at_ms) WHERE owned = 0;

CREATE TABLE blob_data (
    blob INTEGER NOT NULL PRIMARY KEY,
    data BLOB NOT NULL
) STRICT;

PRAGMA user_version = 4;
