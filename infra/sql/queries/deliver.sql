-- name: load
-- Messages with the endpoints that they go to; what another tenant owns is not seen.
SELECT d.tenant_id, d.delivery_id, d.endpoint_id, d.message_id, d.type, d.status, d.attempts, d.body,
       coalesce(d.url, e.url) AS url, e.status AS endpoint_status, e.headers, e.timeout_seconds, e.secrets,
       e.failing_since, e.rate_limit,
       coalesce(greatest(extract(epoch FROM e.throttled_until - now()), 0), 0)::float8 AS throttled_for
FROM unnest($1::text[], $2::uuid[]) AS i (tenant_id, delivery_id)
JOIN deliveries d USING (tenant_id, delivery_id)
JOIN webhook_endpoints e ON e.tenant_id = d.tenant_id AND e.endpoint_id = d.endpoint_id

-- name: record
-- Keeps attempts for their endpoints' owners to look at, and moves deliveries on from states that allow it.
WITH r AS (
  SELECT * FROM unnest(
    $1::text[], $2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::real[], $7::text[], $8::text[], $9::timestamptz[],
    $10::text[], $11::text[], $12::int[], $13::float8[], $14::jsonb[]
  ) AS r (tenant_id, delivery_id, attempt_id, attempt, status_code, elapsed_ms, error_class, response_head, at,
          status, sources, attempts, delay, error)
), logged AS (
  INSERT INTO delivery_attempts
    (tenant_id, attempt_id, delivery_id, attempt, status_code, elapsed_ms, error, response_head, at)
  SELECT tenant_id, attempt_id, delivery_id, attempt, status_code, elapsed_ms, error_class, response_head, at
  FROM r WHERE attempt_id IS NOT NULL
)
UPDATE deliveries d
SET status = r.status,
    attempts = r.attempts,
    next_at = now() + r.delay * interval '1 second',
    error = r.error,
    delivered_at = CASE WHEN r.status = 'delivered' THEN clock_timestamp() END
FROM r
WHERE d.tenant_id = r.tenant_id AND d.delivery_id = r.delivery_id AND d.status = ANY (string_to_array(r.sources, ','))

-- name: bury
-- Gives a delivery up because its event was buried.
UPDATE deliveries
SET status = 'dead', next_at = NULL, error = $4::jsonb
WHERE tenant_id = $1 AND delivery_id = $2 AND status = ANY ($3::text[])

-- name: endpoints
-- What attempts said of their endpoints: whether they fail, from when on they are left alone, and when that is over.
UPDATE webhook_endpoints e
SET failing_since = CASE WHEN f.failed THEN coalesce(e.failing_since, now()) WHEN NOT f.failed THEN NULL
                         ELSE e.failing_since END,
    status = CASE WHEN f.pause IS NOT NULL THEN 'throttled' WHEN NOT f.failed THEN 'active' ELSE e.status END,
    status_reason = CASE WHEN f.pause IS NOT NULL THEN f.reason WHEN NOT f.failed THEN NULL ELSE e.status_reason END,
    throttled_until = CASE WHEN f.pause IS NOT NULL THEN now() + f.pause * interval '1 second'
                           WHEN NOT f.failed THEN NULL ELSE e.throttled_until END,
    updated_at = now()
FROM unnest($1::text[], $2::uuid[], $3::boolean[], $4::float8[], $5::text[])
  AS f (tenant_id, endpoint_id, failed, pause, reason)
WHERE e.tenant_id = f.tenant_id AND e.endpoint_id = f.endpoint_id AND e.status <> 'disabled'

-- name: disable_endpoint
-- Sends an endpoint nothing more; returns its id when it was not disabled before.
UPDATE webhook_endpoints
SET status = 'disabled', status_reason = $4, throttled_until = NULL, updated_at = now()
WHERE tenant_id = $1 AND endpoint_id = $2 AND status = ANY ($3::text[])
RETURNING endpoint_id
