-- Questions to people: listed until they are answered, too late, or asked no more.

CREATE TABLE ask (
    shard INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    execution TEXT NOT NULL,
    run TEXT NOT NULL,
    seq INTEGER NOT NULL,
    position INTEGER NOT NULL, -- of the event that asks, in the run's journal
    addressee TEXT NOT NULL,
    escalate_to TEXT NOT NULL, -- who is asked instead, from then on
    escalate_at_ms INTEGER NOT NULL, -- 0: never
    asked_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL, -- 0: never
    message_id TEXT NOT NULL, -- of the answer that is on its way
    refused INTEGER NOT NULL, -- whether the last answer was
    PRIMARY KEY (shard, namespace, execution, run, seq)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 8;
