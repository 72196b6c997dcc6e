-- What a worker asks of the ledger for every event: taking it, and finishing it when it has no other effect.
--
-- Both look events up one by one in an index, whatever the planner believes. Its statistics lag behind a queue that
-- fills and empties; believing it to be almost empty, it read the whole backlog at each claim (6 of 9 ms at 6,000
-- waiting, in proportion beyond). So the lookup is lateral behind a fence (OFFSET 0), in order of ids, which is also
-- the order in which rows are locked; and rows that are locked are written by their primary key.

-- Marks events as running under a fencing token each and returns what a handler needs.
-- Finished events do not come back. An event that is not due yet, or that runs under a newer token, comes back with a
-- time and is left alone. An event found running under an older token lost its lease: a loss is charged, no attempt.
CREATE OR REPLACE FUNCTION ledger_claim(event_ids uuid[], tokens bigint[])
RETURNS TABLE (
  event_id uuid, tenant_id text, source text, id text, type text, major smallint, subject text, data jsonb,
  sequence bigint, accept_no bigint, attributes jsonb, expires_at timestamptz, attempts smallint, losses smallint,
  accepted_at timestamptz, not_before timestamptz, token bigint
)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
  WITH wanted AS (
    SELECT e.tenant_id, e.event_id, w.token AS new_token, e.status AS old_status,
           CASE WHEN e.status = 'running' AND e.token >= w.token THEN now() + interval '15 seconds'
                WHEN e.due_at > now() + interval '1 second' THEN e.due_at END AS not_before
    FROM (
      SELECT * FROM unnest(event_ids, tokens) AS u (event_id, token) ORDER BY u.event_id OFFSET 0
    ) AS w
    CROSS JOIN LATERAL (
      SELECT f.tenant_id, f.event_id, f.status, f.token, f.due_at FROM events f
      WHERE f.event_id = w.event_id AND f.finished_at IS NULL
      OFFSET 0 FOR UPDATE
    ) AS e
  ), taken AS (
    UPDATE events e
    SET status = 'running', token = w.new_token, started_at = now(), due_at = NULL,
        losses = e.losses + (w.old_status = 'running')::int
    FROM wanted w
    WHERE e.tenant_id = w.tenant_id AND e.event_id = w.event_id AND w.not_before IS NULL
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

-- Writes the ends of attempts whose token still holds; returns the events that were ours. One that is not running any
-- more under our token was finished by an earlier call whose reply was lost: it is ours and stays as it is.
CREATE FUNCTION ledger_finish(
  tenant_ids text[], event_ids uuid[], tokens bigint[], statuses text[], charged smallint[], delays float8[],
  errors jsonb[], notes jsonb[]
)
RETURNS SETOF uuid
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
  WITH held AS (
    SELECT f.*, e.status AS old_status
    FROM (
      SELECT * FROM unnest(tenant_ids, event_ids, tokens, statuses, charged, delays, errors, notes)
        AS u (tenant_id, event_id, token, status, attempts, delay, error, note)
      ORDER BY u.event_id OFFSET 0
    ) AS f
    CROSS JOIN LATERAL (
      SELECT g.status FROM events g
      WHERE g.tenant_id = f.tenant_id AND g.event_id = f.event_id AND g.token = f.token
      OFFSET 0 FOR UPDATE
    ) AS e
  ), written AS (
    UPDATE events e
    SET status = f.status,
        attempts = f.attempts,
        due_at = CASE WHEN f.delay IS NULL THEN NULL ELSE now() + f.delay * interval '1 second' END,
        finished_at = CASE WHEN f.status = 'done' THEN clock_timestamp() END,
        error = CASE WHEN f.status = 'done' THEN NULL ELSE coalesce(f.error, e.error) END,
        -- Waiting again for the same reason adds no line: a long outage would fill the row.
        story = CASE WHEN f.note IS NULL OR (f.note ->> 'what' = 'given back'
                       AND e.story -> -1 ->> 'what' = 'given back'
                       AND e.story -> -1 ->> 'error' = f.note ->> 'error') THEN e.story
                     ELSE e.story || f.note END
    FROM held f
    WHERE e.tenant_id = f.tenant_id AND e.event_id = f.event_id AND f.old_status = 'running'
  )
  SELECT event_id FROM held
$$;
REVOKE ALL ON FUNCTION ledger_finish(text[], uuid[], bigint[], text[], smallint[], float8[], jsonb[], jsonb[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger_finish(text[], uuid[], bigint[], text[], smallint[], float8[], jsonb[], jsonb[])
  TO penstock_worker;
