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

-- name: attempts
-- The attempts of some deliveries, in order.
SELECT delivery_id, attempt, status_code, elapsed_ms, error, response_head, at
FROM delivery_attempts
WHERE tenant_id = $1 AND delivery_id = ANY ($2::uuid[])
ORDER BY delivery_id, attempt_id;

-- name: delivery_status
-- A delivery about to be replayed, locked.
SELECT status, endpoint_id FROM deliveries WHERE tenant_id = $1 AND delivery_id = $2 FOR UPDATE;

-- name: replay
-- Brings a delivery that has ended back to its beginning; the message stays the same, byte for byte.
UPDATE deliveries SET status = 'pending', attempts = 0, next_at = NULL, error = NULL, delivered_at = NULL
WHERE tenant_id = $1 AND delivery_id = $2;

-- name: test_message
-- A message that no event caused, to one endpoint.
INSERT INTO deliveries (tenant_id, delivery_id, endpoint_id, message_id, event_id, type, url, body)
VALUES ($1, $2, $3, $4, $5, $6, NULL, $7);
