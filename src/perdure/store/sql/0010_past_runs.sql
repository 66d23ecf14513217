-- Past runs can be removed while their execution goes on: what belongs to each is found by its number.

CREATE INDEX past_run_ended ON past_run (namespace, ended_at_ms, number);
CREATE INDEX updates_run ON updates (shard, namespace, execution, run);

ALTER TABLE received ADD COLUMN number INTEGER; -- of the last run that received it; NULL: before this was written
CREATE INDEX received_run ON received (number) WHERE number IS NOT NULL;

-- The current run when something last referred to it: no later run does. NULL: before this was written.
ALTER TABLE blob ADD COLUMN number INTEGER;

PRAGMA user_version = 10;
