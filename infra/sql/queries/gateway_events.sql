-- name: show
-- One event without its data.
SELECT event_id, source, id, type, major, queue, subject, sequence, accept_no, attributes, expires_at, status, attempts,
       losses, due_at, accepted_at, started_at, finished_at, dead_at,
       error - 'trace' AS error, story, caused_by
FROM events
WHERE tenant_id = $1 AND event_id = $2;

-- name: find
-- The ledger's id of an event that its publisher calls (source, id).
SELECT event_id FROM event_keys WHERE tenant_id = $1 AND source = $2 AND id = $3;

-- name: caused
-- What an event led to, in order.
SELECT event_id FROM events WHERE tenant_id = $1 AND caused_by = $2 ORDER BY event_id LIMIT 1000;

-- name: page
-- Events newest first, after a place.
SELECT event_id, source, id, type, subject, status, attempts, error - 'trace' AS error, accepted_at,
       finished_at, due_at
FROM events
WHERE tenant_id = $1
  AND ($2::text IS NULL OR type = $2) AND ($3::text IS NULL OR status = $3) AND ($4::uuid IS NULL OR event_id < $4)
ORDER BY event_id DESC LIMIT $5;

-- name: page_unfinished
-- The same for a state that an event only has before it is finished: the index holds no others.
SELECT event_id, source, id, type, subject, status, attempts, error - 'trace' AS error, accepted_at,
       finished_at, due_at
FROM events
WHERE tenant_id = $1 AND finished_at IS NULL
  AND ($2::text IS NULL OR type = $2) AND ($3::text IS NULL OR status = $3) AND ($4::uuid IS NULL OR event_id < $4)
ORDER BY event_id DESC LIMIT $5;

-- name: page_dead
-- The same for dead events.
SELECT event_id, source, id, type, subject, status, attempts, error - 'trace' AS error, accepted_at,
       finished_at, due_at
FROM events
WHERE tenant_id = $1 AND dead_at IS NOT NULL
  AND ($2::text IS NULL OR type = $2) AND ($3::text IS NULL OR status = $3) AND ($4::uuid IS NULL OR event_id < $4)
ORDER BY event_id DESC LIMIT $5;

-- name: newest_of
-- The newest event that the gateway entered under one source of its own, such as a document's address.
SELECT e.event_id, e.type, e.status, e.data ->> 'title' AS title, e.data -> 'metadata' AS metadata, e.sequence,
       e.accept_no, e.error - 'trace' AS error, e.accepted_at
FROM (
  SELECT event_id FROM event_keys WHERE tenant_id = $1 AND source = $2 ORDER BY accepted_at DESC, event_id DESC LIMIT 1
) k
JOIN events e ON e.tenant_id = $1 AND e.event_id = k.event_id;
