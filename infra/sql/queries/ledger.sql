-- name: accept
-- Enters events: the caller's key first, then the row, for those whose key was free; of two with one key the first.
-- How many rows were inserted is all that is told: fewer than given means that keys were not free (`find_keys`).
-- They come as one JSON array of objects, as text, so that a connection of somebody else's, with codecs of its own, can
-- be used.
WITH input AS (
  SELECT * FROM json_to_recordset($1::text::json) AS i (
    tenant_id text, event_id uuid, source text, id text, type text, major smallint, queue text, subject text,
    data jsonb, sequence bigint, attributes jsonb, expires_at timestamptz, sha text)
), keys AS (
  INSERT INTO event_keys (tenant_id, source, id, event_id, data_sha256)
  SELECT tenant_id, source, id, event_id, decode(sha, 'hex') FROM input ORDER BY tenant_id, source, id, event_id
  ON CONFLICT DO NOTHING
  RETURNING event_id
)
INSERT INTO events (tenant_id, event_id, source, id, type, major, queue, subject, data, sequence, attributes, expires_at)
SELECT tenant_id, event_id, source, id, type, major, queue, subject, data, sequence, attributes, expires_at
FROM input JOIN keys USING (event_id)

-- name: enter
-- The same as a transaction of its own, which says itself for whom it acts; when some keys were not free, what is kept
-- under all of them comes back.
SELECT tenant_id, source, id, event_id, data_sha256 FROM accept_for($1, $2)

-- name: find_keys
-- What is kept under the callers' keys that were not free.
SELECT k.tenant_id, k.source, k.id, k.event_id, k.data_sha256
FROM unnest($1::text[], $2::text[], $3::text[]) AS i (tenant_id, source, id)
JOIN event_keys k USING (tenant_id, source, id)

-- name: claim
-- Marks events as running and returns what their handlers need. The mark is not waited for until it is on disk: a server
-- that crashes forgets it; then the token that a worker holds writes nothing, and its job is given back.
SELECT c.* FROM ledger_claim($1::uuid[], $2::bigint[]) c, set_config('synchronous_commit', 'off', true)

-- name: known
-- Which of these ids the ledger has at all.
SELECT * FROM ledger_known($1::uuid[])

-- name: lock
-- Locks the rows that are still ours under their tokens, in id order; says itself for whom the transaction acts.
SELECT event_id, status FROM lock_for($1, $2)

-- name: finish_bare
-- Writes the ends of attempts that have no effect, where the token still holds; returns the ids that were ours.
SELECT ledger_finish($1::text[], $2::uuid[], $3::bigint[], $4::text[], $5::smallint[], $6::float8[], $7::jsonb[],
  $8::jsonb[]) AS event_id

-- name: accept_numbers
-- Rising numbers for the events of one transaction.
SELECT nextval('accept_numbers') FROM generate_series(1, $1::int)

-- name: write
-- Enters events that an effect says next, and writes how attempts ended.
SELECT ledger_write($1, $2)

-- name: endpoints
-- The endpoints of these tenants that may receive something.
SELECT tenant_id, endpoint_id, types, filter, payload, url, callback_prefix
FROM webhook_endpoints
WHERE tenant_id = ANY ($1::text[]) AND status <> 'disabled'

-- name: filtered
-- Which data pass their endpoint's content filter; an empty filter passes everything.
SELECT f.index FROM unnest($1::int[], $2::jsonb[], $3::text[]) AS f (index, data, filter)
WHERE f.filter IS NULL OR f.data @@ f.filter::jsonpath

-- name: deliver
-- Writes one message to one endpoint each.
INSERT INTO deliveries (tenant_id, delivery_id, endpoint_id, message_id, event_id, type, url, body)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::bytea[])
