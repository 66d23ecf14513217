-- Dead letters that were sent to nobody: there is no execution with which they would be removed.

ALTER TABLE dead_letter ADD COLUMN stray_at_ms INTEGER; -- when; NULL: it was for an execution that is there

CREATE INDEX dead_letter_stray ON dead_letter (namespace, stray_at_ms) WHERE stray_at_ms IS NOT NULL;

PRAGMA user_version = 9;
