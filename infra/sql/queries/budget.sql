-- name: limits
-- Own limits of tenants; `has_*` tells "unlimited" (a JSON null) from "not set".
SELECT tenant_id,
       limits ? 'budget_day' AS has_day, (limits ->> 'budget_day')::float8 AS day,
       limits ? 'budget_month' AS has_month, (limits ->> 'budget_month')::float8 AS month
FROM tenants
WHERE tenant_id = ANY ($1::text[]);

-- name: lock_tenants
-- One reserving transaction per tenant at a time; the array is sorted, so that two cannot wait for each other.
SELECT pg_advisory_xact_lock(hashtextextended('penstock.budget.' || tenant, 0))
FROM unnest($1::text[]) AS tenant;

-- name: expire
-- Promises whose caller died: the money may have been spent, so it is booked as waste.
WITH gone AS (
  DELETE FROM budget_reservations
  WHERE tenant_id = ANY ($1::text[]) AND expires_at <= now()
  RETURNING tenant_id, purpose, model, cost_micros
)
INSERT INTO usage AS u (tenant_id, purpose, model, calls, cost_micros, wasted_micros)
SELECT tenant_id, purpose, model, count(*), sum(cost_micros), sum(cost_micros)
FROM gone
GROUP BY tenant_id, purpose, model
ORDER BY tenant_id, purpose, model
ON CONFLICT (tenant_id, day, purpose, model) DO UPDATE
SET calls = u.calls + excluded.calls,
    cost_micros = u.cost_micros + excluded.cost_micros,
    wasted_micros = u.wasted_micros + excluded.wasted_micros;

-- name: spent
-- What tenants have spent this UTC day and month, and what is promised to calls under way.
SELECT t.tenant_id,
       coalesce(u.day, 0)::bigint AS day,
       coalesce(u.month, 0)::bigint AS month,
       coalesce(r.reserved, 0)::bigint AS reserved
FROM unnest($1::text[]) AS t (tenant_id)
CROSS JOIN LATERAL (
  SELECT sum(cost_micros) AS month,
         sum(cost_micros) FILTER (WHERE day = (now() AT TIME ZONE 'utc')::date) AS day
  FROM usage
  WHERE tenant_id = t.tenant_id AND day >= date_trunc('month', now() AT TIME ZONE 'utc')::date
) AS u
CROSS JOIN LATERAL (
  SELECT sum(cost_micros) AS reserved FROM budget_reservations WHERE tenant_id = t.tenant_id
) AS r;

-- name: promise
-- Records promises; one that stands already under its key stays as it is.
INSERT INTO budget_reservations (tenant_id, reservation_id, purpose, model, cost_micros, expires_at)
SELECT tenant_id, reservation_id, purpose, model, cost_micros, now() + make_interval(secs => lifetime)
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::float8[])
  AS p (tenant_id, reservation_id, purpose, model, cost_micros, lifetime)
ON CONFLICT (tenant_id, reservation_id) DO NOTHING;

-- name: book
-- Adds what calls cost; a tenant that is gone is left out.
INSERT INTO usage AS u
  (tenant_id, purpose, model, calls, tokens_in, tokens_out, cost_micros, wasted_micros)
SELECT b.tenant_id, b.purpose, b.model, b.calls, b.tokens_in, b.tokens_out, b.cost_micros, b.wasted_micros
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
  AS b (tenant_id, purpose, model, calls, tokens_in, tokens_out, cost_micros, wasted_micros)
JOIN tenants USING (tenant_id)
ORDER BY b.tenant_id, b.purpose, b.model
ON CONFLICT (tenant_id, day, purpose, model) DO UPDATE
SET calls = u.calls + excluded.calls,
    tokens_in = u.tokens_in + excluded.tokens_in,
    tokens_out = u.tokens_out + excluded.tokens_out,
    cost_micros = u.cost_micros + excluded.cost_micros,
    wasted_micros = u.wasted_micros + excluded.wasted_micros;

-- name: book_documents
-- Adds what embedding documents cost, in the order of keys; one whose collection is gone is left out.
INSERT INTO document_usage AS u (tenant_id, collection_id, document_id, embedded_tokens, cost_micros)
SELECT b.tenant_id, b.collection_id, b.document_id, b.tokens, b.micros
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::float8[])
  AS b (tenant_id, collection_id, document_id, tokens, micros)
JOIN collections USING (tenant_id, collection_id)
ORDER BY 1, 2, 3
ON CONFLICT (tenant_id, collection_id, document_id) DO UPDATE
SET embedded_tokens = u.embedded_tokens + excluded.embedded_tokens, cost_micros = u.cost_micros + excluded.cost_micros;

-- name: release
-- Takes back promises that are settled.
DELETE FROM budget_reservations
WHERE tenant_id = ANY ($1::text[]) AND reservation_id = ANY ($2::uuid[]);

-- name: standing
-- Which of these promises stand already: asking again for the same one costs nothing.
SELECT reservation_id FROM budget_reservations
WHERE tenant_id = ANY ($1::text[]) AND reservation_id = ANY ($2::uuid[]);
