-- A key's own rate, replies that are repeated to whoever repeats a request, and what back-pressure looks at.

ALTER TABLE api_keys ADD COLUMN rate_per_minute int CHECK (rate_per_minute > 0);

-- Finds an API key by the hash of its secret, with its rate and its tenant's limits. `api_key_find` stays for older code.
CREATE FUNCTION api_key_look_up(secret_sha256 bytea)
RETURNS TABLE (
  tenant_id text, key_id text, scopes text[], expires_at timestamptz, suspended boolean, rate_per_minute int,
  limits jsonb
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT k.tenant_id, k.key_id, k.scopes, k.expires_at, t.suspended_at IS NOT NULL, k.rate_per_minute, t.limits
  FROM api_keys k JOIN tenants t USING (tenant_id)
  WHERE k.key_sha256 = secret_sha256 AND k.revoked_at IS NULL
$$;
REVOKE ALL ON FUNCTION api_key_look_up(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api_key_look_up(bytea) TO penstock_gateway;

-- What was answered to a request that carried an Idempotency-Key; the key itself stands in event_keys.
-- A row without a status belongs to whoever is at work until claimed_until; after that the next one may take it over.
CREATE TABLE request_replies (
  tenant_id text NOT NULL REFERENCES tenants,
  event_id uuid NOT NULL,
  claimed_until timestamptz NOT NULL,
  status smallint,
  headers jsonb,
  body bytea,
  sealed boolean NOT NULL DEFAULT false,
  made_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, event_id)
);
SELECT secure_table('request_replies');
GRANT SELECT, INSERT, UPDATE ON request_replies TO penstock_gateway;

-- How many events wait or run, of all tenants together; counts no further than it must.
CREATE FUNCTION system_waiting(at_most bigint) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$ SELECT count(*) FROM (SELECT FROM events WHERE finished_at IS NULL LIMIT at_most) AS waiting $$;
REVOKE ALL ON FUNCTION system_waiting(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION system_waiting(bigint) TO penstock_gateway, penstock_system;
