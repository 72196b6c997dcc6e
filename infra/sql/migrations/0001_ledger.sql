-- The ledger: tenants, keys, events, usage and the roles that may touch them.
--
-- Every tenant-owned table has row-level security enabled (not forced: the owner maintains, and never serves), and
-- every key begins with the tenant, so that neither a clash nor a foreign key betrays another tenant's row.

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'penstock_gateway') THEN
    CREATE ROLE penstock_gateway NOLOGIN NOINHERIT;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'penstock_worker') THEN
    CREATE ROLE penstock_worker NOLOGIN NOINHERIT;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'penstock_system') THEN
    CREATE ROLE penstock_system NOLOGIN NOINHERIT;
  END IF;
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO penstock_gateway, penstock_worker, penstock_system;

-- The tenants that this transaction acts for; unset or empty denies everything.
CREATE FUNCTION app_tenants() RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT string_to_array(current_setting('app.tenants', true), ',') $$;

-- The one tenant that this transaction acts for; null when there is none or more than one.
CREATE FUNCTION app_tenant() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN cardinality(app_tenants()) = 1 THEN (app_tenants())[1] END $$;

-- Puts a table under row-level security by its tenant column: the policy is the same everywhere.
CREATE FUNCTION secure_table(target regclass, tenant_column name DEFAULT 'tenant_id') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
  EXECUTE format(
    'CREATE POLICY tenant_rows ON %s USING (%I = ANY ((SELECT app_tenants())::text[])) '
    'WITH CHECK (%I = ANY ((SELECT app_tenants())::text[]))',
    target, tenant_column, tenant_column);
END
$$;
REVOKE ALL ON FUNCTION secure_table(regclass, name) FROM PUBLIC;

CREATE TABLE tenants (
  tenant_id text PRIMARY KEY CHECK (tenant_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  title text NOT NULL DEFAULT '',
  limits jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now(),
  suspended_at timestamptz
);
SELECT secure_table('tenants');

CREATE TABLE api_keys (
  tenant_id text NOT NULL REFERENCES tenants,
  key_id text NOT NULL,
  key_sha256 bytea NOT NULL,
  title text NOT NULL DEFAULT '',
  scopes text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz,
  PRIMARY KEY (tenant_id, key_id)
);
CREATE INDEX api_keys_by_hash ON api_keys USING hash (key_sha256);
SELECT secure_table('api_keys');

-- Finds an API key by the hash of its secret: the only way in for somebody whose tenant is not yet known.
CREATE FUNCTION api_key_find(secret_sha256 bytea)
RETURNS TABLE (tenant_id text, key_id text, scopes text[], expires_at timestamptz, suspended boolean)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT k.tenant_id, k.key_id, k.scopes, k.expires_at, t.suspended_at IS NOT NULL
  FROM api_keys k JOIN tenants t USING (tenant_id)
  WHERE k.key_sha256 = secret_sha256 AND k.revoked_at IS NULL
$$;
REVOKE ALL ON FUNCTION api_key_find(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api_key_find(bytea) TO penstock_gateway;

-- Remembers that keys were used, at most once a minute each.
CREATE FUNCTION api_keys_used(key_ids text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  UPDATE api_keys SET last_used_at = now()
  WHERE key_id = ANY (key_ids) AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
$$;
REVOKE ALL ON FUNCTION api_keys_used(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api_keys_used(text[]) TO penstock_gateway;

-- The smallest UUID of a moment: bounds of partitions and windows over UUIDv7 keys.
CREATE FUNCTION uuid_floor(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- The caller's idempotency keys. Not partitioned, because only so can they be unique; pruned after 400 days.
CREATE TABLE event_keys (
  tenant_id text NOT NULL,
  source text NOT NULL,
  id text NOT NULL,
  event_id uuid NOT NULL,
  accepted_at timestamptz NOT NULL DEFAULT now(),
  data_sha256 bytea NOT NULL,
  PRIMARY KEY (tenant_id, source, id)
);
SELECT secure_table('event_keys');

-- No cache: in automatic mode a later version must have a greater number, whichever session accepted it.
CREATE SEQUENCE accept_numbers;

-- One row per event: outbox, idempotency record, audit trail, dead-letter store and what replay reads.
--
-- status is in no index, so that taking an event is a heap-only update; finished_at and dead_at are, and change once.
-- written_in orders rows by transaction: all rows below a snapshot's xmin are visible, which lets the sweeper look at
-- each event exactly once however long a publisher's transaction was open.
CREATE TABLE events (
  tenant_id text NOT NULL,
  event_id uuid NOT NULL,
  source text NOT NULL,
  id text NOT NULL,
  type text NOT NULL,
  major smallint NOT NULL DEFAULT 1,
  queue text,
  subject text,
  data jsonb NOT NULL,
  sequence bigint,
  accept_no bigint NOT NULL DEFAULT nextval('accept_numbers'),
  attributes jsonb NOT NULL DEFAULT '{}',
  expires_at timestamptz,
  status text NOT NULL DEFAULT 'accepted'
    CHECK (status IN ('accepted', 'running', 'retrying', 'paused_budget', 'done', 'dead')),
  attempts smallint NOT NULL DEFAULT 0,
  losses smallint NOT NULL DEFAULT 0,
  token bigint,
  due_at timestamptz,
  accepted_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  finished_at timestamptz,
  dead_at timestamptz,
  error jsonb,
  story jsonb NOT NULL DEFAULT '[]',
  caused_by uuid,
  written_in xid8 NOT NULL DEFAULT pg_current_xact_id(),
  PRIMARY KEY (tenant_id, event_id)
) PARTITION BY RANGE (event_id);
CREATE INDEX events_unfinished ON events (event_id) WHERE finished_at IS NULL;
CREATE INDEX events_written ON events (written_in, event_id);
CREATE INDEX events_dead ON events (tenant_id, event_id) WHERE dead_at IS NOT NULL;
CREATE INDEX events_caused ON events (tenant_id, caused_by) WHERE caused_by IS NOT NULL;
SELECT secure_table('events');

-- Makes the daily partitions of a table keyed by UUIDv7, from today on.
CREATE FUNCTION make_partitions(parent regclass, ahead int DEFAULT 3) RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  first_day date := (now() AT TIME ZONE 'utc')::date;
  one_day date;
  child text;
  made int := 0;
BEGIN
  FOR offset_days IN 0..ahead LOOP
    one_day := first_day + offset_days;
    child := parent::text || to_char(one_day, '_YYYYMMDD');
    IF to_regclass('public.' || child) IS NULL THEN
      EXECUTE format(
        'CREATE TABLE public.%I PARTITION OF %s FOR VALUES FROM (%L) TO (%L)',
        child, parent,
        uuid_floor(one_day::timestamp AT TIME ZONE 'utc'),
        uuid_floor((one_day + 1)::timestamp AT TIME ZONE 'utc'));
      made := made + 1;
    END IF;
  END LOOP;
  RETURN made;
END
$$;
REVOKE ALL ON FUNCTION make_partitions(regclass, int) FROM PUBLIC;

-- Ids from a clock that is a day or more behind or ahead land here: an insert never fails for want of a partition.
CREATE TABLE events_default PARTITION OF events DEFAULT;
SELECT make_partitions('events');

-- Detaches a partition, moves its unfinished rows to the default partition, and drops it. Returns how many moved.
CREATE FUNCTION retire_partition(parent regclass, child text) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  moved bigint := 0;
BEGIN
  EXECUTE format('ALTER TABLE %s DETACH PARTITION public.%I', parent, child);
  IF parent = 'public.events'::regclass THEN
    EXECUTE format('INSERT INTO events SELECT * FROM public.%I WHERE finished_at IS NULL', child);
    GET DIAGNOSTICS moved = ROW_COUNT;
  END IF;
  EXECUTE format('DROP TABLE public.%I', child);
  RETURN moved;
END
$$;
REVOKE ALL ON FUNCTION retire_partition(regclass, text) FROM PUBLIC;

-- Marks events as running under a fencing token each and returns what a handler needs.
-- Finished events do not come back. An event that is not due yet, or that runs under a newer token, comes back with a
-- time and is left alone. An event found running under an older token lost its lease: a loss is charged, no attempt.
CREATE FUNCTION ledger_claim(event_ids uuid[], tokens bigint[])
RETURNS TABLE (
  event_id uuid, tenant_id text, source text, id text, type text, major smallint, subject text, data jsonb,
  sequence bigint, accept_no bigint, attributes jsonb, expires_at timestamptz, attempts smallint, losses smallint,
  accepted_at timestamptz, not_before timestamptz, token bigint
)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  WITH wanted AS (
    SELECT e.event_id, w.token AS new_token, e.status AS old_status,
           CASE WHEN e.status = 'running' AND e.token >= w.token THEN now() + interval '15 seconds'
                WHEN e.due_at > now() + interval '1 second' THEN e.due_at END AS not_before
    FROM unnest(event_ids, tokens) AS w (event_id, token)
    JOIN events e ON e.event_id = w.event_id AND e.finished_at IS NULL
    ORDER BY e.event_id
    FOR UPDATE OF e
  ), taken AS (
    UPDATE events e
    SET status = 'running', token = w.new_token, started_at = now(), due_at = NULL,
        losses = e.losses + (w.old_status = 'running')::int
    FROM wanted w
    WHERE e.event_id = w.event_id AND e.finished_at IS NULL AND w.not_before IS NULL
    RETURNING e.*
  )
  SELECT t.event_id, t.tenant_id, t.source, t.id, t.type, t.major, t.subject, t.data, t.sequence, t.accept_no,
         t.attributes, t.expires_at, t.attempts, t.losses, t.accepted_at, NULL::timestamptz, t.token
  FROM taken t
  UNION ALL
  SELECT w.event_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
         NULL, NULL, NULL, NULL, NULL, w.not_before, NULL
  FROM wanted w WHERE w.not_before IS NOT NULL
$$;
REVOKE ALL ON FUNCTION ledger_claim(uuid[], bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger_claim(uuid[], bigint[]) TO penstock_worker;

-- Which of these events exist, whoever owns them: tells a finished job from one that never had a ledger row.
CREATE FUNCTION ledger_known(event_ids uuid[]) RETURNS TABLE (event_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$ SELECT e.event_id FROM events e WHERE e.event_id = ANY (event_ids) $$;
REVOKE ALL ON FUNCTION ledger_known(uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger_known(uuid[]) TO penstock_worker;

-- What the model calls cost, per tenant, day and purpose.
CREATE TABLE usage (
  tenant_id text NOT NULL REFERENCES tenants,
  day date NOT NULL DEFAULT (now() AT TIME ZONE 'utc')::date,
  purpose text NOT NULL CHECK (purpose IN ('embed', 'chat', 'judge', 'train')),
  model text NOT NULL,
  calls bigint NOT NULL DEFAULT 0,
  tokens_in bigint NOT NULL DEFAULT 0,
  tokens_out bigint NOT NULL DEFAULT 0,
  cost_micros bigint NOT NULL DEFAULT 0,
  wasted_micros bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, day, purpose, model)
);
SELECT secure_table('usage');

-- Money that is promised to calls under way; what a crash leaves behind expires.
CREATE TABLE budget_reservations (
  tenant_id text NOT NULL REFERENCES tenants,
  reservation_id uuid NOT NULL,
  purpose text NOT NULL,
  model text NOT NULL,
  cost_micros bigint NOT NULL,
  made_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, reservation_id)
);
SELECT secure_table('budget_reservations');

CREATE TABLE audit_log (
  tenant_id text NOT NULL,
  audit_id uuid NOT NULL DEFAULT gen_random_uuid(),
  at timestamptz NOT NULL DEFAULT now(),
  actor text NOT NULL,
  action text NOT NULL,
  target text NOT NULL,
  details jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (tenant_id, audit_id)
);
SELECT secure_table('audit_log');

-- Who may do what. Nobody who serves owns anything; the system role sees ids, types, states and times, no payload.
GRANT SELECT ON tenants TO penstock_gateway, penstock_worker;
GRANT SELECT, INSERT, UPDATE (revoked_at) ON api_keys TO penstock_gateway;
GRANT SELECT, INSERT ON event_keys TO penstock_gateway, penstock_worker;
GRANT SELECT, INSERT ON events TO penstock_gateway;
GRANT UPDATE (status, attempts, losses, token, due_at, finished_at, dead_at, error, story) ON events TO penstock_gateway;
GRANT SELECT, INSERT, UPDATE ON events TO penstock_worker;
GRANT USAGE ON SEQUENCE accept_numbers TO penstock_gateway, penstock_worker;
GRANT SELECT, INSERT, UPDATE ON usage TO penstock_gateway, penstock_worker;
GRANT SELECT, INSERT, DELETE ON budget_reservations TO penstock_gateway, penstock_worker;
GRANT SELECT, INSERT ON audit_log TO penstock_gateway, penstock_worker;

-- Unfinished events by keyset, for filling an emptied Redis: ids, queues and times, never a payload.
CREATE FUNCTION system_unfinished(after uuid, at_most int)
RETURNS TABLE (event_id uuid, type text, queue text, due_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT e.event_id, e.type, e.queue, e.due_at FROM events e
  WHERE e.finished_at IS NULL AND e.queue IS NOT NULL AND e.event_id > after
  ORDER BY e.event_id LIMIT at_most
$$;
REVOKE ALL ON FUNCTION system_unfinished(uuid, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION system_unfinished(uuid, int) TO penstock_system, penstock_worker;

-- Unfinished events written between two snapshots, by keyset: each event is looked at once.
CREATE FUNCTION system_written(low xid8, high xid8, after uuid, at_most int)
RETURNS TABLE (event_id uuid, type text, queue text, due_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT e.event_id, e.type, e.queue, e.due_at FROM events e
  WHERE e.written_in >= low AND e.written_in < high
    AND e.finished_at IS NULL AND e.queue IS NOT NULL AND e.event_id > after
  ORDER BY e.event_id LIMIT at_most
$$;
REVOKE ALL ON FUNCTION system_written(xid8, xid8, uuid, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION system_written(xid8, xid8, uuid, int) TO penstock_system;

-- Counts per queue, type and status, for `penstock status`; unfinished and dead events only.
CREATE FUNCTION system_counts()
RETURNS TABLE (queue text, type text, status text, events bigint, oldest timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT e.queue, e.type, e.status, count(*), min(e.accepted_at) FROM events e
  WHERE e.finished_at IS NULL OR e.dead_at IS NOT NULL
  GROUP BY e.queue, e.type, e.status
$$;
REVOKE ALL ON FUNCTION system_counts() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION system_counts() TO penstock_system, penstock_gateway, penstock_worker;

-- Dead events per queue, for scaling figures and metrics.
CREATE FUNCTION system_dead() RETURNS TABLE (queue text, events bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$ SELECT e.queue, count(*) FROM events e WHERE e.dead_at IS NOT NULL GROUP BY e.queue $$;
REVOKE ALL ON FUNCTION system_dead() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION system_dead() TO penstock_system, penstock_gateway, penstock_worker;
