-- Lists: what executions are found by, and the indexes that yield them newest first. Pauses. Retention.

ALTER TABLE execution ADD COLUMN parent_execution TEXT; -- of `parent`, which is execution/run/seq

UPDATE execution SET parent_execution = (
    WITH without_seq (text) AS (
        SELECT substr(rtrim(parent, replace(parent, '/', '')), 1, length(rtrim(parent, replace(parent, '/', ''))) - 1)
    )
    SELECT substr(rtrim(text, replace(text, '/', '')), 1, length(rtrim(text, replace(text, '/', ''))) - 1)
    FROM without_seq
) WHERE parent <> '';

-- What changes while an execution runs (position, status, wake_at_ms) is in none of these: its steps pay for no index.
CREATE INDEX execution_created ON execution (namespace, created_at_ms);
CREATE INDEX execution_workflow ON execution (namespace, workflow, created_at_ms);
CREATE INDEX execution_open ON execution (namespace, created_at_ms) WHERE closed_at_ms IS NULL;
CREATE INDEX execution_ended ON execution (namespace, status, created_at_ms) WHERE closed_at_ms IS NOT NULL;
CREATE INDEX execution_closed ON execution (namespace, closed_at_ms) WHERE closed_at_ms IS NOT NULL;
CREATE INDEX execution_parent ON execution (namespace, parent_execution, created_at_ms)
WHERE parent_execution IS NOT NULL;

-- Of a list there is a row for each item, numbered from 1. A namespace and the time of creation are copies of the
-- execution's, so that the index yields newest first.
CREATE TABLE attribute (
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    item INTEGER NOT NULL,
    kind TEXT NOT NULL, -- text, number, bool, time
    value ANY NOT NULL,
    namespace TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (number, name, item)
) STRICT, WITHOUT ROWID;

CREATE INDEX attribute_value ON attribute (namespace, name, kind, value, created_at_ms, number);

-- Requests to pause, resume or terminate are found behind any number of other letters.
ALTER TABLE inbox ADD COLUMN request INTEGER NOT NULL DEFAULT 0;
CREATE INDEX inbox_request ON inbox (number, arrival) WHERE request = 1;

-- Executions whose rows are gone, and whose events are deleted in small bites.
CREATE TABLE forgotten (
    number INTEGER NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 5;
