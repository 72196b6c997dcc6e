-- name: load
-- Messages with the endpoints that they go to; what another tenant owns is not seen.
SELECT d.tenant_id, d.delivery_id, d.endpoint_id, d.message_id, d.type, d.status, d.attempts, d.body,
       coalesce(d.url, e.url) AS url, e.status AS endpoint_status, e.headers, e.timeout_seconds, e.secrets,
       e.failing_since
FROM unnest($1::text[], $2::uuid[]) AS i (tenant_id, delivery_id)
JOIN deliveries d USING (tenant_id, delivery_id)
JOIN webhook_endpoints e ON e.tenant_id = d.tenant_id AND e.endpoint_id = d.endpoint_id

-- name: log_attempt
-- Keeps one attempt for the endpoint's owner to look at.
INSERT INTO delivery_attempts
  (tenant_id, attempt_id, delivery_id, attempt, status_code, elapsed_ms, error, response_head, at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: settle
-- Moves a delivery on, unless it is in a state from which that is not allowed.
UPDATE deliveries
SET status = $3,
    attempts = $5,
    next_at = now() + $6::float8 * interval '1 second',
    error = $7::jsonb,
    delivered_at = CASE WHEN $3 = 'delivered' THEN clock_timestamp() END
WHERE tenant_id = $1 AND delivery_id = $2 AND status = ANY ($4::text[])

-- name: bury
-- Gives a delivery up because its event was buried.
UPDATE deliveries
SET status = 'dead', next_at = NULL, error = $4::jsonb
WHERE tenant_id = $1 AND delivery_id = $2 AND status = ANY ($3::text[])

-- name: endpoint_failing
-- Begins or ends an endpoint's unbroken series of failures.
UPDATE webhook_endpoints
SET failing_since = CASE WHEN $3::boolean THEN coalesce(failing_since, now()) END, updated_at = now()
WHERE tenant_id = $1 AND endpoint_id = $2 AND (failing_since IS NULL) = $3

-- name: disable_endpoint
-- Sends an endpoint nothing more; returns its id when it was not disabled before.
UPDATE webhook_endpoints
SET status = 'disabled', status_reason = $4, updated_at = now()
WHERE tenant_id = $1 AND endpoint_id = $2 AND status = ANY ($3::text[])
RETURNING endpoint_id
