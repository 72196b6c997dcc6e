-- name: try_lock
-- One maintainer at a time.
SELECT pg_try_advisory_lock($1)

-- name: unlock
-- The next maintainer may begin.
SELECT pg_advisory_unlock($1)

-- name: make_partitions
-- Today's and the next three days' partitions.
SELECT make_partitions($1::text::regclass)

-- name: old_partitions
-- Partitions whose upper bound is at or below a moment.
SELECT c.relname AS child
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::text::regclass
  AND substring(pg_get_expr(c.relpartbound, c.oid) FROM $re$TO \('([0-9a-f-]{36})'\)$re$)::uuid <= $2::uuid
ORDER BY c.relname

-- name: retire_partition
-- Moves what is unfinished to the default partition and drops the rest with its partition.
SELECT retire_partition($1::text::regclass, $2::text)

-- name: prune_keys
-- Idempotency keys older than so many days.
DELETE FROM event_keys WHERE accepted_at < now() - $1::int * interval '1 day'

-- name: prune_reservations
-- Reservations that a crash left behind a day ago.
DELETE FROM budget_reservations WHERE expires_at < now() - interval '1 day'

-- name: prune_answers
-- Finished answers older than so many days.
DELETE FROM answers WHERE finished_at < now() - $1::int * interval '1 day'

-- name: prune_answer_cache
-- Cached answers older than so many days.
DELETE FROM answer_cache WHERE made_at < now() - $1::int * interval '1 day'

-- name: prune_deliveries
-- Messages that ended and are older than so many days.
DELETE FROM deliveries
WHERE status IN ('delivered', 'dead') AND created_at < now() - $1::int * interval '1 day'

-- name: prune_embedding_cache
-- Cached embeddings older than so many days; those in use stand in the vector tables.
DELETE FROM embedding_cache WHERE made_at < now() - $1::int * interval '1 day'

-- name: prune_replies
-- Answers kept for repeated requests, with their keys: who repeats a request days later means a new one.
WITH gone AS (
  DELETE FROM request_replies WHERE made_at < now() - $1::int * interval '1 day' RETURNING tenant_id, event_id
)
DELETE FROM event_keys k USING gone
WHERE k.tenant_id = gone.tenant_id AND k.source = 'penstock:gateway/requests' AND k.event_id = gone.event_id

-- name: prune_replays
-- Nonces of webhook replays older than so many days, like the idempotency keys of events.
DELETE FROM webhook_replays WHERE created_at < now() - $1::int * interval '1 day'

-- name: prune_dropped
-- What is left of collections that were dropped so many days ago: no event of theirs is left to be held against them.
DELETE FROM collections WHERE dropped_at < now() - $1::int * interval '1 day'

-- name: prune_recall
-- Samples of recall older than so many days.
DELETE FROM recall_samples WHERE taken_at < now() - $1::int * interval '1 day'

-- name: refresh_words
-- How rare words are, from a sample of all chunks; null when nothing was due.
SELECT word_shares_refresh()

-- name: sealed_endpoints
-- Webhook endpoints with what is sealed in their rows, after a place.
SELECT tenant_id, endpoint_id, secrets, headers
FROM webhook_endpoints
WHERE $2::uuid IS NULL OR (tenant_id, endpoint_id) > ($1::text, $2::uuid)
ORDER BY tenant_id, endpoint_id LIMIT $3

-- name: reseal_endpoint
-- The same contents under another key, unless they changed since they were read.
UPDATE webhook_endpoints SET secrets = $5, headers = $6
WHERE tenant_id = $1 AND endpoint_id = $2 AND secrets = $3 AND headers = $4

-- name: headers_in_the_clear
-- Whether an earlier version left values of headers unsealed.
SELECT EXISTS (SELECT FROM webhook_endpoints WHERE headers @? '$.* ? (@.type() == "string")')
