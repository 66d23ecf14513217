-- Named queries of the SQLite store: `-- name: x` starts query x, which lasts until the next.

-- name: begin
BEGIN IMMEDIATE
-- name: begin_read
BEGIN DEFERRED
-- name: commit
COMMIT
-- name: rollback
ROLLBACK

-- name: meta
SELECT name, value FROM meta
-- name: put_meta
INSERT INTO meta (name, value) VALUES (?, ?)
-- name: put_shard
INSERT INTO shard (shard) VALUES (?)

-- name: fence
SELECT 1 FROM fence WHERE session = ? AND n = 0 AND epoch = ?
-- name: dead_sessions
SELECT session FROM session WHERE closed_at_ms IS NULL
-- name: fence_off
UPDATE fence SET epoch = epoch + 1 WHERE session = ?
-- name: end_session
UPDATE session SET closed_at_ms = ?, clean = ? WHERE session = ? AND closed_at_ms IS NULL
-- name: count_recoveries
WITH at_work (number) AS (
    SELECT number FROM shard CROSS JOIN execution AS e INDEXED BY execution_active ON e.shard = shard.shard
    WHERE shard.session = ?1 AND e.status = 'active' AND e.position > 0
    UNION ALL
    SELECT number FROM shard CROSS JOIN execution AS e INDEXED BY execution_due ON e.shard = shard.shard
    WHERE shard.session = ?1 AND e.status = 'parked' AND e.wake_at_ms <= ?2 AND e.position > 0
)
UPDATE execution SET recoveries = recoveries + 1
WHERE number IN (SELECT number FROM at_work)
AND (
    number IN (SELECT number FROM running WHERE seq = 0 AND attempt > 0)
    OR NOT EXISTS (SELECT 1 FROM running JOIN at_work USING (number) WHERE seq = 0 AND attempt > 0)
)
-- name: free_shards
UPDATE shard SET session = NULL WHERE session = ?
-- name: put_session
INSERT INTO session (worker, fingerprint, lanes, opened_at_ms) VALUES (?, ?, ?, ?)
-- name: put_fence
INSERT INTO fence (session, n, epoch) VALUES (?, 0, 1)
-- name: own_shards
UPDATE shard SET session = ?
-- name: fingerprint
SELECT fingerprint FROM session WHERE session = ?
-- name: session_ended
SELECT clean FROM session WHERE session = ? AND closed_at_ms IS NOT NULL
-- name: last_shard_pos
SELECT coalesce(max(shard_pos), 0) FROM event

-- name: number
SELECT number FROM execution WHERE shard = ? AND namespace = ? AND execution = ? AND run = ?
-- name: advance
UPDATE execution SET position = ?, recoveries = 0 WHERE number = ? AND position = ? AND status = 'active'
-- name: advance_idle
UPDATE execution
SET position = ?, recoveries = 0, status = 'active', wake_at_ms = NULL, waits_for = '', problem = ''
WHERE number = ? AND position = ? AND status IN ('parked', 'paused', 'stalled')
-- name: advance_closing
UPDATE execution
SET position = ?, recoveries = 0, status = ?, closed_at_ms = ?, wake_at_ms = NULL, waits_for = '', problem = ''
WHERE number = ? AND position = ? AND status IN ('active', 'parked', 'paused', 'stalled')
-- name: at_position
SELECT 1 FROM execution WHERE number = ? AND position = ? AND status IN ('active', 'parked', 'paused', 'stalled')
-- name: advance_many
UPDATE execution SET position = batch.column1, recoveries = 0 FROM (VALUES (?, ?, ?)) AS batch
WHERE number = batch.column2 AND position = batch.column3 AND status = 'active'
-- name: advance_idle_many
UPDATE execution
SET position = batch.column1, recoveries = 0, status = 'active', wake_at_ms = NULL, waits_for = '', problem = ''
FROM (VALUES (?, ?, ?)) AS batch
WHERE number = batch.column2 AND position = batch.column3 AND status IN ('parked', 'paused', 'stalled')
-- name: append_event
INSERT INTO event (shard_pos, number, position, shard, format, at_ms, session, trace_parent, usage, checksum, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
-- name: put_execution
INSERT INTO execution
(shard, namespace, execution, run, lane, workflow, status, wake_at_ms, position, start_digest, created_at_ms, parent,
 parent_execution)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
-- name: begin_again
UPDATE execution
SET number = ?, run = ?, lane = ?, workflow = ?, status = ?, wake_at_ms = ?, position = ?, start_digest = ?,
    created_at_ms = ?, parent = ?, parent_execution = ?, closed_at_ms = NULL, waits_for = '', recoveries = 0,
    problem = '', state_position = NULL, first_run = '', run_began_at_ms = NULL, origin = ''
WHERE number = ?
-- name: has_run
SELECT 1 FROM execution WHERE shard = ?1 AND namespace = ?2 AND execution = ?3 AND ?4 IN (run, first_run)
UNION ALL
SELECT 1 FROM past_run WHERE shard = ?1 AND namespace = ?2 AND execution = ?3 AND run = ?4
-- name: wake
UPDATE execution SET status = 'active', wake_at_ms = NULL, waits_for = '', problem = ''
WHERE number = ? AND status IN ('parked', 'paused', 'stalled')
-- name: park
UPDATE execution SET status = 'parked', wake_at_ms = ?, waits_for = ?, problem = ?
WHERE number = ? AND position = ? AND status IN ('active', 'parked')
AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.number = execution.number)
-- name: pause
UPDATE execution SET status = 'paused', wake_at_ms = ?, waits_for = ?, problem = ?
WHERE number = ? AND position = ? AND status IN ('active', 'parked', 'paused')
AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.number = execution.number AND request = 1)
-- name: stall
UPDATE execution SET status = 'stalled', wake_at_ms = ?, waits_for = ?, problem = ?
WHERE number = ? AND position = ? AND status IN ('active', 'parked', 'paused', 'stalled')
-- name: resume
UPDATE execution SET status = 'active', recoveries = 0, wake_at_ms = NULL, waits_for = '', problem = ''
WHERE shard = ? AND namespace = ? AND execution = ? AND status = 'stalled'

-- name: receiver
SELECT number, run, status, parent, first_run, position FROM execution WHERE shard = ? AND namespace = ? AND execution = ?
-- name: put_letter
INSERT INTO inbox (number, arrival, message_id, format, checksum, body, request)
VALUES (?1, coalesce((SELECT max(arrival) FROM inbox WHERE number = ?1), 0) + 1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (number, message_id) DO NOTHING
-- name: letters
SELECT arrival, message_id, format, checksum, body FROM inbox WHERE number = ? ORDER BY arrival LIMIT ?
-- name: waiting
SELECT message_id FROM inbox WHERE number = ? LIMIT ?
-- name: waiting_requests
SELECT message_id, format, checksum, body FROM inbox WHERE number = ? AND request = 1
-- name: take_letter
DELETE FROM inbox WHERE number = ? AND message_id = ?
-- name: empty_inbox
DELETE FROM inbox WHERE number = ?
-- name: bury
INSERT INTO dead_letter (shard, namespace, execution, n, message_id, format, checksum, body, stray_at_ms)
VALUES (?1, ?2, ?3, coalesce(
    (SELECT max(n) FROM dead_letter WHERE shard = ?1 AND namespace = ?2 AND execution = ?3), 0
) + 1, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (shard, namespace, execution, message_id) DO NOTHING
-- name: dead_letters
SELECT n, message_id, format, checksum, body FROM dead_letter
WHERE shard = ? AND namespace = ? AND execution = ? ORDER BY n LIMIT ?

-- name: updates_used
SELECT EXISTS (SELECT 1 FROM updates)
-- name: update
SELECT run, status, position, failure FROM updates
WHERE shard = ? AND namespace = ? AND execution = ? AND update_id = ?
-- name: put_update
INSERT INTO updates (shard, namespace, execution, update_id, run, status, position, failure)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (shard, namespace, execution, update_id) DO UPDATE
SET run = excluded.run, status = excluded.status, position = excluded.position, failure = excluded.failure
-- name: last_rejection
SELECT coalesce(max(position), 0) FROM updates
WHERE status = 'rejected' AND shard = ? AND namespace = ? AND execution = ?
-- name: forget_rejections
DELETE FROM updates
WHERE status = 'rejected' AND shard = ? AND namespace = ? AND execution = ? AND position <= ?
-- name: close_updates
UPDATE updates SET status = 'closed'
WHERE shard = ? AND namespace = ? AND execution = ? AND run = ? AND status = 'accepted'
-- name: drop_updates
DELETE FROM updates WHERE shard = ? AND namespace = ? AND execution = ?
-- name: publish
UPDATE execution SET state_position = ? WHERE number = ?

-- name: put_unresolved
INSERT INTO unresolved
(shard, namespace, execution, run, seq, attempt, intent, unknown, since_ms, message_id, refused)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (shard, namespace, execution, run, seq) DO UPDATE
SET message_id = excluded.message_id, refused = excluded.refused
-- name: claim_unresolved
UPDATE unresolved SET message_id = ?1, refused = 0
WHERE shard = ?2 AND namespace = ?3 AND execution = ?4 AND run = ?5 AND seq = ?6 AND attempt = ?7
AND message_id IN ('', ?1)
-- name: end_unresolved
DELETE FROM unresolved WHERE shard = ? AND namespace = ? AND execution = ? AND run = ? AND seq = ?
-- name: unresolved
SELECT shard, namespace, execution, run, seq, attempt, intent, unknown, since_ms, message_id, refused FROM unresolved
WHERE (shard, namespace, execution, run, seq) > (?1, ?2, ?3, ?4, ?5) AND namespace = ?6
AND (?7 = '' OR execution = ?7)
ORDER BY shard, namespace, execution, run, seq LIMIT ?8

-- name: put_ask
INSERT INTO ask
(shard, namespace, execution, run, seq, position, addressee, escalate_to, escalate_at_ms, asked_at_ms, expires_at_ms,
message_id, refused)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
-- name: claim_ask
UPDATE ask SET message_id = ?1, refused = 0
WHERE shard = ?2 AND namespace = ?3 AND execution = ?4 AND run = ?5 AND seq = ?6 AND message_id IN ('', ?1)
-- name: reopen_ask
UPDATE ask SET message_id = '', refused = 1
WHERE shard = ? AND namespace = ? AND execution = ? AND run = ? AND seq = ?
-- name: end_ask
DELETE FROM ask WHERE shard = ? AND namespace = ? AND execution = ? AND run = ? AND seq = ?
-- name: end_asks
DELETE FROM ask WHERE shard = ? AND namespace = ? AND execution = ? AND run = ?
-- name: asks
SELECT shard, namespace, execution, run, seq, position, addressee, escalate_to, escalate_at_ms, asked_at_ms,
expires_at_ms, message_id, refused FROM ask
WHERE (shard, namespace, execution, run, seq) > (?1, ?2, ?3, ?4, ?5) AND namespace = ?6
AND (?7 = '' OR execution = ?7)
AND (?9 = 0 OR (message_id = '' AND NOT (expires_at_ms > 0 AND expires_at_ms <= ?9)))
AND ?8 = '' ORDER BY shard, namespace, execution, run, seq LIMIT ?10
-- name: asks_of
SELECT shard, namespace, execution, run, seq, position, addressee, escalate_to, escalate_at_ms, asked_at_ms,
       expires_at_ms, message_id, refused
FROM ask INDEXED BY ask_addressee
WHERE namespace = ?6 AND addressee = ?8 AND (shard, execution, run, seq) > (?1, ?3, ?4, ?5)
AND (?7 = '' OR execution = ?7) AND NOT (escalate_at_ms > 0 AND escalate_at_ms <= ?9)
AND (?9 = 0 OR (message_id = '' AND NOT (expires_at_ms > 0 AND expires_at_ms <= ?9)))
UNION ALL
SELECT shard, namespace, execution, run, seq, position, addressee, escalate_to, escalate_at_ms, asked_at_ms,
       expires_at_ms, message_id, refused
FROM ask INDEXED BY ask_escalated
WHERE namespace = ?6 AND escalate_to = ?8 AND (shard, execution, run, seq) > (?1, ?3, ?4, ?5)
AND (?7 = '' OR execution = ?7) AND escalate_at_ms > 0 AND escalate_at_ms <= ?9
AND (?9 = 0 OR (message_id = '' AND NOT (expires_at_ms > 0 AND expires_at_ms <= ?9)))
ORDER BY shard, execution, run, seq LIMIT ?10

-- name: outbox_used
SELECT EXISTS (SELECT 1 FROM outbox)
-- name: queued
SELECT 1 FROM outbox WHERE shard = ? AND namespace = ? AND execution = ? AND run = ?
AND receiver_shard = ? AND receiver_namespace = ? AND receiver_execution = ? LIMIT 1
-- name: queue
INSERT INTO outbox
(shard, namespace, execution, run, receiver_shard, receiver_namespace, receiver_execution, n,
 receiver_run, message_id, seq, digest, format, checksum, body)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, coalesce(
    (SELECT max(n) FROM outbox WHERE shard = ?1 AND namespace = ?2 AND execution = ?3 AND run = ?4
     AND receiver_shard = ?5 AND receiver_namespace = ?6 AND receiver_execution = ?7), 0
) + 1, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
-- name: outbox
SELECT shard, namespace, execution, run, receiver_shard, receiver_namespace, receiver_execution, n,
       receiver_run, message_id, seq, digest, format, checksum, body
FROM outbox
ORDER BY shard, namespace, execution, run, receiver_shard, receiver_namespace, receiver_execution, n LIMIT ?
-- name: dequeue
DELETE FROM outbox WHERE shard = ? AND namespace = ? AND execution = ? AND run = ?
AND receiver_shard = ? AND receiver_namespace = ? AND receiver_execution = ? AND n = ?

-- name: keep_run
INSERT INTO past_run
(number, shard, namespace, execution, run, workflow, status, position, began_at_ms, ended_at_ms, origin)
SELECT number, shard, namespace, execution, run, workflow, ?, position, coalesce(run_began_at_ms, created_at_ms), ?,
       origin
FROM execution WHERE number = ?
-- name: new_number
UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'execution' RETURNING seq
-- name: next_run
UPDATE execution
SET number = ?, run = ?, workflow = ?, position = ?, run_began_at_ms = ?, origin = ?, state_position = ?,
    first_run = CASE first_run WHEN '' THEN run ELSE first_run END, status = 'active', closed_at_ms = NULL,
    wake_at_ms = NULL, waits_for = '', problem = '', recoveries = 0
WHERE number = ?
-- name: drop_attributes
DELETE FROM attribute WHERE number = ?
-- name: put_attribute
INSERT INTO attribute (number, name, item, kind, value, namespace, created_at_ms)
SELECT number, ?2, ?3, ?4, ?5, namespace, created_at_ms FROM execution WHERE number = ?1
-- name: attributes
SELECT name, item, kind, value FROM attribute JOIN execution AS e USING (number)
WHERE e.shard = ? AND e.namespace = ? AND e.execution = ? ORDER BY name, item
-- name: move_attributes
UPDATE attribute SET number = ? WHERE number = ?
-- name: forked
UPDATE execution SET origin = ?, state_position = ? WHERE number = ?
-- name: runs
SELECT number, run, workflow, status, position, coalesce(run_began_at_ms, created_at_ms), closed_at_ms, origin
FROM execution WHERE shard = ?1 AND namespace = ?2 AND execution = ?3 AND number < ?4
UNION ALL
SELECT number, run, workflow, status, position, began_at_ms, ended_at_ms, origin
FROM past_run WHERE shard = ?1 AND namespace = ?2 AND execution = ?3 AND number < ?4
ORDER BY number DESC LIMIT ?5
-- name: received_used
SELECT EXISTS (SELECT 1 FROM received)
-- name: was_received
SELECT 1 FROM received WHERE shard = ? AND namespace = ? AND execution = ? AND message_id = ?
-- name: put_received
INSERT INTO received (shard, namespace, execution, message_id, number) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET number = excluded.number
-- name: drop_received
DELETE FROM received WHERE shard = ? AND namespace = ? AND execution = ?
-- name: move_letters
UPDATE inbox SET number = ?, arrival = arrival + ? WHERE number = ?
-- name: put_carried
INSERT INTO inbox (number, arrival, message_id, format, checksum, body) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (number, message_id) DO NOTHING

-- name: running_used
SELECT EXISTS (SELECT 1 FROM running)
-- name: put_running
INSERT INTO running (number, seq, name, attempt, started_at_ms, progress) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (number, seq) DO UPDATE
SET name = excluded.name, attempt = excluded.attempt, started_at_ms = excluded.started_at_ms,
    progress = excluded.progress
-- name: end_running
DELETE FROM running WHERE number = ? AND seq = ?
-- name: end_all_running
DELETE FROM running WHERE number = ?
-- name: running
SELECT execution.run, seq, name, attempt, started_at_ms, progress FROM running JOIN execution USING (number)
WHERE shard = ? AND namespace = ? AND execution = ? ORDER BY seq

-- name: journal
SELECT number, position FROM execution WHERE shard = ?1 AND namespace = ?2 AND execution = ?3 AND run = ?4
UNION ALL
SELECT number, position FROM past_run WHERE shard = ?1 AND namespace = ?2 AND execution = ?3 AND run = ?4
-- name: load
SELECT position, at_ms, session, trace_parent, usage, format, checksum, body
FROM event WHERE number = ? AND position >= ? ORDER BY position LIMIT ?
-- name: inbox
SELECT arrival, message_id, format, checksum, body FROM inbox JOIN execution USING (number)
WHERE shard = ? AND namespace = ? AND execution = ? ORDER BY arrival LIMIT ?
-- name: requests
SELECT arrival, message_id, format, checksum, body FROM inbox JOIN execution USING (number)
WHERE shard = ? AND namespace = ? AND execution = ? AND request = 1 ORDER BY arrival LIMIT ?
-- name: tail
SELECT shard_pos, coalesce(execution.namespace, past_run.namespace),
       coalesce(execution.execution, past_run.execution), coalesce(execution.run, past_run.run),
       event.position, at_ms, session, trace_parent, usage, format, checksum, body
FROM event LEFT JOIN execution USING (number) LEFT JOIN past_run ON past_run.number = event.number
WHERE shard_pos > ? AND event.shard = ? AND coalesce(execution.number, past_run.number) IS NOT NULL
ORDER BY shard_pos LIMIT ?

-- name: row
SELECT shard, namespace, execution, run, lane, workflow, status, position, start_digest, created_at_ms,
       closed_at_ms, wake_at_ms, waits_for, recoveries, problem, parent, state_position, first_run
FROM execution WHERE shard = ? AND namespace = ? AND execution = ?
-- A list: a beginning that goes through an index, conditions, an end. `sqlite_listing.py` joins them.

-- name: list_columns
SELECT e.shard, e.namespace, e.execution, e.run, e.lane, e.workflow, e.status, e.position, e.start_digest,
       e.created_at_ms, e.closed_at_ms, e.wake_at_ms, e.waits_for, e.recoveries, e.problem, e.parent,
       e.state_position, e.first_run
-- name: list_all
FROM execution AS e INDEXED BY execution_created WHERE e.namespace = ?
-- name: list_workflow
FROM execution AS e INDEXED BY execution_workflow WHERE e.namespace = ? AND e.workflow = ?
-- name: list_parent
FROM execution AS e INDEXED BY execution_parent WHERE e.namespace = ? AND e.parent_execution = ?
-- name: list_open
FROM execution AS e INDEXED BY execution_open WHERE e.namespace = ? AND e.closed_at_ms IS NULL
-- name: list_active
FROM execution AS e INDEXED BY execution_active WHERE e.namespace = ? AND e.status = 'active'
-- name: list_parked
FROM execution AS e INDEXED BY execution_open
WHERE e.namespace = ? AND e.closed_at_ms IS NULL AND e.status = 'parked'
-- name: list_paused
FROM execution AS e INDEXED BY execution_paused WHERE e.namespace = ? AND e.status = 'paused'
-- name: list_stalled
FROM execution AS e INDEXED BY execution_stalled WHERE e.namespace = ? AND e.status = 'stalled'
-- name: list_ended
FROM execution AS e INDEXED BY execution_ended WHERE e.namespace = ? AND e.status = ? AND e.closed_at_ms IS NOT NULL
-- name: list_prefix
FROM shard CROSS JOIN execution AS e
ON e.shard = shard.shard AND e.namespace = ? AND e.execution >= ? AND e.execution < ? WHERE true
-- name: list_crowd
SELECT count(*) FROM (
    SELECT 1 FROM shard CROSS JOIN execution AS e
    ON e.shard = shard.shard AND e.namespace = ? AND e.execution >= ? AND e.execution < ? LIMIT ?
)
-- name: list_equal
FROM attribute AS a INDEXED BY attribute_value CROSS JOIN execution AS e ON e.number = a.number
WHERE a.namespace = ? AND a.name = ? AND a.kind = ? AND a.value = ?
-- name: list_if_status
AND e.status IN (SELECT value FROM json_each(?))
-- name: list_if_workflow
AND e.workflow = ?
-- name: list_if_parent
AND e.parent_execution = ?
-- name: list_if_prefix
AND e.execution >= ? AND e.execution < ?
-- name: list_if_from
AND e.created_at_ms >= ?
-- name: list_if_until
AND e.created_at_ms < ?
-- name: list_if_=
AND EXISTS (SELECT 1 FROM attribute AS x WHERE x.number = e.number AND x.name = ? AND x.kind = ? AND x.value = ?)
-- name: list_if_<
AND EXISTS (SELECT 1 FROM attribute AS x WHERE x.number = e.number AND x.name = ? AND x.kind = ? AND x.value < ?)
-- name: list_if_<=
AND EXISTS (SELECT 1 FROM attribute AS x WHERE x.number = e.number AND x.name = ? AND x.kind = ? AND x.value <= ?)
-- name: list_if_>
AND EXISTS (SELECT 1 FROM attribute AS x WHERE x.number = e.number AND x.name = ? AND x.kind = ? AND x.value > ?)
-- name: list_if_>=
AND EXISTS (SELECT 1 FROM attribute AS x WHERE x.number = e.number AND x.name = ? AND x.kind = ? AND x.value >= ?)
-- name: list_if_!=
AND EXISTS (SELECT 1 FROM attribute AS x WHERE x.number = e.number AND x.name = ? AND x.kind = ? AND x.value <> ?)
AND NOT EXISTS (SELECT 1 FROM attribute AS y WHERE y.number = e.number AND y.name = ? AND y.kind = ? AND y.value = ?)
-- name: list_after
AND (e.created_at_ms, e.execution) < (?, ?)
-- name: list_end
ORDER BY e.created_at_ms DESC, e.execution DESC LIMIT ?
-- name: list_equal_after
AND a.created_at_ms <= ? AND (a.created_at_ms, e.execution) < (?, ?)
-- name: list_equal_end
ORDER BY a.created_at_ms DESC, e.execution DESC LIMIT ?

-- name: open_statuses
SELECT status, count(*) FROM execution INDEXED BY execution_open
WHERE closed_at_ms IS NULL AND namespace = ?1 GROUP BY status
-- name: closed_statuses
SELECT status, count(*) FROM execution INDEXED BY execution_ended
WHERE closed_at_ms IS NOT NULL AND namespace = ?1 GROUP BY status
-- name: active
SELECT shard, namespace, execution, run, lane, workflow, status, position, start_digest, created_at_ms,
       closed_at_ms, wake_at_ms, waits_for, recoveries, problem, parent, state_position, first_run
FROM execution
WHERE status = 'active' AND (shard, namespace, execution) > (?1, ?2, ?3)
AND lane IN (SELECT value FROM json_each(?4))
ORDER BY shard, namespace, execution LIMIT ?5
-- name: due
SELECT e.shard, e.namespace, e.execution, e.run, e.lane, e.workflow, e.status, e.position, e.start_digest,
       e.created_at_ms, e.closed_at_ms, e.wake_at_ms, e.waits_for, e.recoveries, e.problem, e.parent,
       e.state_position, e.first_run
FROM shard CROSS JOIN execution AS e INDEXED BY execution_due ON e.shard = shard.shard
WHERE shard.shard >= ?1 AND shard.session = ?6 AND e.status = 'parked' AND e.wake_at_ms <= ?5
AND (e.shard, e.namespace, e.execution) > (?1, ?2, ?3)
AND e.lane IN (SELECT value FROM json_each(?4))
ORDER BY shard.shard, e.namespace, e.execution LIMIT ?7
-- name: next_wake
SELECT min((
    SELECT wake_at_ms FROM execution INDEXED BY execution_due
    WHERE execution.shard = shard.shard AND status = 'parked' AND wake_at_ms > ?2
    ORDER BY wake_at_ms LIMIT 1
)) FROM shard WHERE session = ?1

-- name: put_blob
INSERT INTO blob (shard, namespace, execution, address, put_at_ms) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (shard, namespace, execution, address) DO UPDATE SET put_at_ms = excluded.put_at_ms
RETURNING blob
-- name: put_blob_data
INSERT INTO blob_data (blob, data) VALUES (?, ?) ON CONFLICT (blob) DO NOTHING
-- name: keep_blob
UPDATE blob
SET owned = 1, number = (SELECT number FROM execution WHERE shard = ?1 AND namespace = ?2 AND execution = ?3)
WHERE shard = ?1 AND namespace = ?2 AND execution = ?3 AND address = ?4
-- name: blob
SELECT data FROM blob JOIN blob_data USING (blob)
WHERE shard = ? AND namespace = ? AND execution = ? AND address = ?
-- name: loose_blobs
SELECT blob FROM blob INDEXED BY blob_loose WHERE owned = 0 AND put_at_ms < ? ORDER BY put_at_ms LIMIT ?
-- name: delete_blob_data
DELETE FROM blob_data WHERE blob = ?
-- name: delete_blob
DELETE FROM blob WHERE blob = ?

-- name: expired
SELECT number, shard, namespace, execution, run, lane, workflow, status, position, start_digest, created_at_ms,
       closed_at_ms, wake_at_ms, waits_for, recoveries, problem, parent, state_position, first_run
FROM execution INDEXED BY execution_closed
WHERE namespace = ? AND closed_at_ms IS NOT NULL AND closed_at_ms < ? AND (closed_at_ms, number) > (?, ?)
ORDER BY closed_at_ms, number LIMIT ?
-- name: sends_still
SELECT 1 FROM outbox WHERE shard = ? AND namespace = ? AND execution = ? LIMIT 1
-- name: is_unresolved
SELECT 1 FROM unresolved WHERE shard = ? AND namespace = ? AND execution = ? LIMIT 1
-- name: has_letter
SELECT 1 FROM inbox WHERE number = ? AND message_id = ?
-- name: past_events
SELECT sum(position) FROM past_run WHERE shard = ? AND namespace = ? AND execution = ?
-- name: forget_run
INSERT INTO forgotten (number) VALUES (?)
-- name: forget_past_runs
INSERT INTO forgotten (number)
SELECT number FROM past_run WHERE shard = ? AND namespace = ? AND execution = ? ORDER BY number LIMIT ?
-- name: collect_past_run
DELETE FROM past_run WHERE number IN (
    SELECT number FROM past_run WHERE shard = ? AND namespace = ? AND execution = ? ORDER BY number LIMIT ?
)
-- name: collect_dead_letter
DELETE FROM dead_letter WHERE (shard, namespace, execution, n) IN (
    SELECT shard, namespace, execution, n FROM dead_letter
    WHERE shard = ? AND namespace = ? AND execution = ? LIMIT ?
)
-- name: collect_updates
DELETE FROM updates WHERE (shard, namespace, execution, update_id) IN (
    SELECT shard, namespace, execution, update_id FROM updates
    WHERE shard = ? AND namespace = ? AND execution = ? LIMIT ?
)
-- name: collect_received
DELETE FROM received WHERE (shard, namespace, execution, message_id) IN (
    SELECT shard, namespace, execution, message_id FROM received
    WHERE shard = ? AND namespace = ? AND execution = ? LIMIT ?
)
-- name: collect_ask
DELETE FROM ask WHERE (shard, namespace, execution, run, seq) IN (
    SELECT shard, namespace, execution, run, seq FROM ask
    WHERE shard = ? AND namespace = ? AND execution = ? LIMIT ?
)
-- name: past_runs
SELECT number, shard, namespace, execution, run, position, ended_at_ms, origin
FROM past_run INDEXED BY past_run_ended
WHERE namespace = ? AND ended_at_ms < ? AND (ended_at_ms, number) > (?, ?) ORDER BY ended_at_ms, number LIMIT ?
-- name: run_is_needed
SELECT EXISTS (
    SELECT 1 FROM outbox WHERE shard = ?1 AND namespace = ?2 AND execution = ?3 AND run = ?4
) OR EXISTS (
    SELECT 1 FROM unresolved WHERE shard = ?1 AND namespace = ?2 AND execution = ?3 AND run = ?4
)
-- name: collect_received_of_run
DELETE FROM received WHERE (shard, namespace, execution, message_id) IN (
    SELECT shard, namespace, execution, message_id FROM received WHERE number = ? LIMIT ?
)
-- name: collect_updates_of_run
DELETE FROM updates WHERE (shard, namespace, execution, update_id) IN (
    SELECT shard, namespace, execution, update_id FROM updates
    WHERE shard = ? AND namespace = ? AND execution = ? AND run = ? AND status <> 'accepted' LIMIT ?
)
-- name: end_past_run
DELETE FROM past_run WHERE number = ?
-- name: letters_wait
SELECT EXISTS (SELECT 1 FROM outbox) OR EXISTS (
    SELECT 1 FROM dead_letter WHERE shard = ?1 AND namespace = ?2 AND execution = ?3
) OR EXISTS (
    SELECT 1 FROM execution JOIN inbox USING (number) WHERE shard = ?1 AND namespace = ?2 AND execution = ?3
)
-- name: loosen_blobs
UPDATE blob SET owned = 0 WHERE shard = ?1 AND namespace = ?2 AND execution = ?3 AND owned = 1 AND number < (
    SELECT min(number) FROM (
        SELECT number FROM execution WHERE shard = ?1 AND namespace = ?2 AND execution = ?3
        UNION ALL
        SELECT number FROM past_run WHERE shard = ?1 AND namespace = ?2 AND execution = ?3
    )
)
-- name: collect_strays
DELETE FROM dead_letter WHERE (shard, namespace, execution, n) IN (
    SELECT shard, namespace, execution, n FROM dead_letter INDEXED BY dead_letter_stray
    WHERE namespace = ? AND stray_at_ms IS NOT NULL AND stray_at_ms < ? LIMIT ?
)
-- name: bury_blobs
UPDATE blob SET execution = ?, owned = 0, put_at_ms = 0 WHERE shard = ? AND namespace = ? AND execution = ?
-- name: collect_execution
DELETE FROM execution WHERE number = ?
-- name: forgotten
SELECT number FROM forgotten ORDER BY number LIMIT ?
-- name: collect_events
DELETE FROM event WHERE shard_pos IN (
    SELECT shard_pos FROM event
    WHERE number = ? AND shard_pos < (SELECT max(shard_pos) FROM event) ORDER BY position LIMIT ?
)
-- name: end_forgotten
DELETE FROM forgotten WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM event WHERE number = ?1)
-- name: changed
SELECT changes()

-- name: data_version
PRAGMA data_version
-- name: user_version
PRAGMA user_version
-- name: application_id
PRAGMA application_id
-- name: object_count
SELECT count(*) FROM sqlite_schema
