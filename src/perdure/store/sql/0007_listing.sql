-- Lists of what stalled or is paused are short, however many are open: they need not be looked for among those.

CREATE INDEX execution_stalled ON execution (namespace, created_at_ms) WHERE status = 'stalled';
CREATE INDEX execution_paused ON execution (namespace, created_at_ms) WHERE status = 'paused';

PRAGMA user_version = 7;
