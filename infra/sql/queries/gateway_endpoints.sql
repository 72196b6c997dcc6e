-- name: create
-- A new endpoint with its first sealed secret.
INSERT INTO webhook_endpoints
  (tenant_id, endpoint_id, url, types, filter, payload, headers, timeout_seconds, rate_limit, callback_prefix, description,
   secrets)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
RETURNING endpoint_id, url, types, filter, payload, headers, timeout_seconds, rate_limit, callback_prefix, description,
          secrets, status, status_reason, failing_since, throttled_until, created_at, updated_at;

-- name: show
-- One endpoint; with a lock when it is about to change.
SELECT endpoint_id, url, types, filter, payload, headers, timeout_seconds, rate_limit, callback_prefix, description,
       secrets, status, status_reason, failing_since, throttled_until, created_at, updated_at
FROM webhook_endpoints
WHERE tenant_id = $1 AND endpoint_id = $2;

-- name: lock
-- The same, locked until the end of the transaction.
SELECT endpoint_id, url, types, filter, payload, headers, timeout_seconds, rate_limit, callback_prefix, description,
       secrets, status, status_reason, failing_since, throttled_until, created_at, updated_at
FROM webhook_endpoints
WHERE tenant_id = $1 AND endpoint_id = $2
FOR UPDATE;

-- name: page
-- A tenant's endpoints, oldest first, after a place.
SELECT endpoint_id, url, types, filter, payload, headers, timeout_seconds, rate_limit, callback_prefix, description,
       secrets, status, status_reason, failing_since, throttled_until, created_at, updated_at
FROM webhook_endpoints
WHERE tenant_id = $1 AND ($2::uuid IS NULL OR endpoint_id > $2)
ORDER BY endpoint_id LIMIT $3;

-- name: change
-- What an owner may change; enabling an endpoint forgets why it was disabled.
UPDATE webhook_endpoints
SET url = $3, types = $4, filter = $5, payload = $6, headers = $7, timeout_seconds = $8, rate_limit = $9,
    callback_prefix = $10, description = $11, status = $12,
    status_reason = CASE WHEN $12 = status THEN status_reason WHEN $12 = 'disabled' THEN 'disabled by its owner' END,
    failing_since = CASE WHEN $12 = status THEN failing_since END,
    throttled_until = CASE WHEN $12 = status THEN throttled_until END,
    updated_at = now()
WHERE tenant_id = $1 AND endpoint_id = $2
RETURNING endpoint_id, url, types, filter, payload, headers, timeout_seconds, rate_limit, callback_prefix, description,
          secrets, status, status_reason, failing_since, throttled_until, created_at, updated_at;

-- name: set_secrets
-- The sealed secrets after a rotation.
UPDATE webhook_endpoints SET secrets = $3, updated_at = now() WHERE tenant_id = $1 AND endpoint_id = $2;

-- name: delete
-- Removes an endpoint and, with it, its deliveries.
DELETE FROM webhook_endpoints WHERE tenant_id = $1 AND endpoint_id = $2 RETURNING endpoint_id;

-- name: deliveries
-- Messages to one endpoint, newest first, after a place; never their bodies.
SELECT delivery_id, endpoint_id, message_id, event_id, type, url, status, attempts, next_at, error, created_at, delivered_at
FROM deliveries
WHERE tenant_id = $1 AND endpoint_id = $2
  AND ($3::text IS NULL OR status = $3) AND ($4::uuid IS NULL OR delivery_id < $4)
ORDER BY delivery_id DESC LIMIT $5;

-- name: delivery
-- One message; never its body.
SELECT delivery_id, endpoint_id, message_id, event_id, type, url, status, attempts, next_at, error, created_at, delivered_at
FROM deliveries
WHERE tenant_id = $1 AND delivery_id = $2;

-- name: attempts
-- The attempts of some deliveries, in order.
SELECT delivery_id, attempt, status_code, elapsed_ms, error, response_head, at
FROM delivery_attempts
WHERE tenant_id = $1 AND delivery_id = ANY ($2::uuid[])
ORDER BY delivery_id, attempt_id;

-- name: delivery_status
-- A delivery about to be replayed, locked; one that was erased has nothing to send.
SELECT status, endpoint_id FROM deliveries
WHERE tenant_id = $1 AND delivery_id = $2 AND octet_length(body) > 0
FOR UPDATE;

-- name: test_message
-- A message that no event caused, to one endpoint.
INSERT INTO deliveries (tenant_id, delivery_id, endpoint_id, message_id, event_id, type, url, body)
VALUES ($1, $2, $3, $4, $5, $6, NULL, $7);

-- name: begin_replay
-- Takes a nonce; no row when it was taken before.
INSERT INTO webhook_replays (tenant_id, endpoint_id, nonce, replay_id, selection) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
RETURNING replay_id;

-- name: end_replay
-- How many messages a replay sends again, and where its next page begins.
UPDATE webhook_replays SET messages = $4, next_after = $5 WHERE tenant_id = $1 AND endpoint_id = $2 AND nonce = $3;

-- name: known_replay
-- What a nonce was used for.
SELECT replay_id, selection, messages, next_after FROM webhook_replays WHERE tenant_id = $1 AND endpoint_id = $2 AND nonce = $3;

-- name: replayable
-- Messages to an endpoint that have ended, by status, type, time, error and contents, oldest first; locked. What was
-- erased has no bytes to send.
SELECT delivery_id, type, created_at
FROM deliveries
WHERE tenant_id = $1 AND endpoint_id = $2 AND status = ANY ($3::text[])
  AND ($4::text[] IS NULL OR type = ANY ($4))
  AND ($5::timestamptz IS NULL OR created_at >= $5) AND ($6::timestamptz IS NULL OR created_at < $6)
  AND ($7::text IS NULL OR error ->> 'code' = $7)
  AND CASE WHEN octet_length(body) = 0 THEN false WHEN $8::text IS NULL THEN true
           ELSE (convert_from(body, 'UTF8')::jsonb -> 'data') @@ $8::jsonpath END
  AND ($9::uuid IS NULL OR delivery_id > $9)
ORDER BY delivery_id LIMIT $10
FOR UPDATE;

-- name: replay_many
-- Brings deliveries that have ended back to their beginning; the messages stay the same, byte for byte.
UPDATE deliveries SET status = 'pending', attempts = 0, next_at = NULL, error = NULL, delivered_at = NULL
WHERE tenant_id = $1 AND delivery_id = ANY ($2::uuid[]);

-- name: never_sent
-- Out events of a time that an endpoint was never sent: it has no message of them, or one that died untried. What was
-- erased stays untold.
SELECT e.event_id, e.type, e.data, e.accept_no, e.accepted_at, d.delivery_id
FROM events e
LEFT JOIN deliveries d ON d.tenant_id = e.tenant_id AND d.event_id = e.event_id AND d.endpoint_id = $2
WHERE e.tenant_id = $1 AND e.queue IS NULL AND e.type = ANY ($3::text[]) AND e.data <> '{}'
  AND e.event_id >= $4 AND e.event_id < $5
  AND (d.delivery_id IS NULL OR (d.status = 'dead' AND d.attempts = 0))
  AND ($6::text IS NULL OR e.data @@ $6::jsonpath)
  AND ($7::uuid IS NULL OR e.event_id > $7)
ORDER BY e.event_id LIMIT $8;
