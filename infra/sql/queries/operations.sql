-- name: counts
-- Unfinished and dead events per queue, type and status.
SELECT queue, type, status, events, oldest FROM system_counts() ORDER BY queue, type, status

-- name: events
-- Events, newest first, by tenant, type and status, before a place.
SELECT event_id, tenant_id, type, status, subject, source, id, attempts, losses, accepted_at, started_at, finished_at,
       due_at, error
FROM events
WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR type = $2) AND ($3::text IS NULL OR status = $3)
  AND ($4::uuid IS NULL OR event_id < $4)
ORDER BY event_id DESC LIMIT $5

-- name: event
-- One event with its story; no payload.
SELECT event_id, tenant_id, type, major, status, queue, subject, source, id, sequence, accept_no, attributes, attempts,
       losses, token, accepted_at, started_at, finished_at, due_at, error, story, caused_by
FROM events WHERE event_id = $1

-- name: caused
-- What an event caused, in order.
SELECT event_id, type, status FROM events WHERE tenant_id = $1 AND caused_by = $2 ORDER BY event_id

-- name: dead
-- Dead events, newest first, by tenant, queue, type, error and time.
SELECT event_id, tenant_id, queue, type, subject, attempts, losses, accepted_at, dead_at, error
FROM events
WHERE dead_at IS NOT NULL
  AND ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR queue = $2) AND ($3::text IS NULL OR type = $3)
  AND ($4::text IS NULL OR error ->> 'code' = $4) AND ($5::timestamptz IS NULL OR dead_at >= $5)
  AND ($6::uuid IS NULL OR event_id = $6) AND ($8::timestamptz IS NULL OR dead_at < $8)
ORDER BY event_id DESC LIMIT $7

-- name: replay
-- Brings dead events back, one every so many seconds. written_in is set anew, so that the sweeper looks at them even
-- if this process dies before it has told Redis.
UPDATE events e
SET status = 'accepted', attempts = 0, losses = 0, finished_at = NULL, dead_at = NULL,
    due_at = CASE WHEN r.wait > 0 THEN now() + r.wait * interval '1 second' END,
    story = e.story || jsonb_build_object('at', now(), 'what', 'replayed', 'by', $3::text),
    written_in = pg_current_xact_id()
FROM unnest($1::uuid[], $2::float8[]) AS r (event_id, wait)
WHERE e.event_id = r.event_id AND e.status = 'dead' AND e.queue IS NOT NULL
RETURNING e.event_id, e.tenant_id, e.type, e.queue, r.wait

-- name: discard
-- Takes dead events off the list for good; the row and its story stay until retention.
UPDATE events e
SET dead_at = NULL, story = e.story || jsonb_build_object('at', now(), 'what', 'discarded', 'by', $2::text)
WHERE e.event_id = ANY ($1::uuid[]) AND e.dead_at IS NOT NULL
RETURNING e.event_id, e.tenant_id

-- name: audit
-- One audit line per tenant that an operator touched.
INSERT INTO audit_log (tenant_id, actor, action, target, details)
SELECT t.tenant_id, $2, $3, 'events', jsonb_build_object('events', t.events)
FROM jsonb_to_recordset($1::jsonb) AS t (tenant_id text, events int)

-- name: usage
-- What was used and paid, per tenant and day, from a day on.
SELECT tenant_id, day, purpose, model, calls, tokens_in, tokens_out, cost_micros / 1e6 AS cost_usd,
       wasted_micros / 1e6 AS wasted_usd
FROM usage
WHERE ($1::text IS NULL OR tenant_id = $1) AND day >= $2
ORDER BY day DESC, tenant_id, purpose, model

-- name: usage_of_collections
-- What embedding the documents of each collection has cost, the dearest first; dropped ones too.
SELECT c.tenant_id, coalesce(c.dropped_name, c.name) AS collection, count(u.document_id) AS documents,
       coalesce(sum(u.embedded_tokens), 0)::bigint AS embedded_tokens, coalesce(sum(u.cost_micros), 0) / 1e6 AS cost_usd
FROM collections c LEFT JOIN document_usage u USING (tenant_id, collection_id)
WHERE ($1::text IS NULL OR c.tenant_id = $1) AND ($2::text IS NULL OR coalesce(c.dropped_name, c.name) = $2)
GROUP BY c.tenant_id, c.collection_id
ORDER BY embedded_tokens DESC, 1, 2
LIMIT $3

-- name: usage_of_documents
-- What embedding each document has cost, the dearest first; deleted ones too.
SELECT c.tenant_id, coalesce(c.dropped_name, c.name) AS collection, u.document_id, u.embedded_tokens, u.cost_micros / 1e6 AS cost_usd
FROM document_usage u JOIN collections c USING (tenant_id, collection_id)
WHERE ($1::text IS NULL OR c.tenant_id = $1) AND ($2::text IS NULL OR coalesce(c.dropped_name, c.name) = $2)
ORDER BY u.embedded_tokens DESC, 1, 2, 3
LIMIT $3
