-- Questions are found by whom they ask: until they escalate, and after it. In the order of their list.

CREATE INDEX ask_addressee ON ask (namespace, addressee, shard, execution, run, seq);
CREATE INDEX ask_escalated ON ask (namespace, escalate_to, shard, execution, run, seq) WHERE escalate_at_ms > 0;

PRAGMA user_version = 11;
