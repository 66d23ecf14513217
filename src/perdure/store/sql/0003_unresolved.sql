-- Steps that are declared once, have begun, and of which nobody knows what they did: listed until that is settled.

CREATE TABLE unresolved (
    shard INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    execution TEXT NOT NULL,
    run TEXT NOT NULL,
    seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    intent INTEGER NOT NULL, -- position of its intent, with the full input, in the run's journal
    unknown INTEGER NOT NULL, -- of the event that says so
    since_ms INTEGER NOT NULL,
    message_id TEXT NOT NULL, -- of the answer that is on its way
    refused INTEGER NOT NULL, -- whether the last answer was
    PRIMARY KEY (shard, namespace, execution, run, seq)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 3;
