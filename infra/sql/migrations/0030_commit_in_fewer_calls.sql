-- The commit of an effect names its tenants and locks its rows in one call, and writes what is said and how the attempts
-- ended in another; see 0025 and 0026 for how.

-- Says for whom the transaction acts, and locks the rows that still carry these tokens, in id order.
CREATE FUNCTION lock_for(tenants text, wanted text) RETURNS TABLE (event_id uuid, status text)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
BEGIN
  PERFORM public.act_as(tenants);
  RETURN QUERY
    SELECT g.event_id, e.status
    FROM (
      SELECT * FROM json_to_recordset(wanted::json) AS i (tenant_id text, event_id uuid, token bigint)
      ORDER BY i.event_id OFFSET 0
    ) g
    CROSS JOIN LATERAL (
      SELECT f.status FROM public.events f
      WHERE f.tenant_id = g.tenant_id AND f.event_id = g.event_id AND f.token = g.token
      OFFSET 0 FOR UPDATE
    ) e;
END
$$;
REVOKE ALL ON FUNCTION lock_for(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lock_for(text, text) TO penstock_worker;

-- Enters events that an effect says next; those without a queue are done at once. Then writes the status that each of the
-- events ended its attempt with, whose rows are locked.
CREATE FUNCTION ledger_write(said text, ends text) RETURNS void
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
BEGIN
  IF said <> '[]' THEN
    INSERT INTO public.events (
      tenant_id, event_id, source, id, type, major, queue, subject, data, accept_no, attributes, caused_by, status,
      finished_at, due_at)
    SELECT p.tenant_id, p.event_id, 'penstock', p.event_id::text, p.type, p.major, p.queue, p.subject, p.data,
           coalesce(p.accept_no, nextval('public.accept_numbers')), p.attributes, p.caused_by,
           CASE WHEN p.queue IS NULL THEN 'done' ELSE 'accepted' END,
           CASE WHEN p.queue IS NULL THEN clock_timestamp() END,
           CASE WHEN p.delay > 0 THEN now() + p.delay * interval '1 second' END
    FROM json_to_recordset(said::json) AS p (
      tenant_id text, event_id uuid, type text, major smallint, queue text, subject text, data jsonb, accept_no bigint,
      attributes jsonb, caused_by uuid, delay float8);
  END IF;
  IF ends <> '[]' THEN
    WITH given AS MATERIALIZED (
      SELECT * FROM json_to_recordset(ends::json) AS i (
        tenant_id text, event_id uuid, status text, attempts smallint, delay float8, error jsonb, note jsonb)
    )
    UPDATE public.events e
    SET (status, attempts, due_at, finished_at, dead_at, error, story) = (
      SELECT f.status, f.attempts,
             CASE WHEN f.delay IS NULL THEN NULL ELSE now() + f.delay * interval '1 second' END,
             CASE WHEN f.status IN ('done', 'dead') THEN clock_timestamp() END,
             CASE WHEN f.status = 'dead' THEN clock_timestamp() END,
             CASE WHEN f.status = 'done' THEN NULL ELSE coalesce(f.error, e.error) END,
             -- Waiting again for the same reason adds no line: a long outage would fill the row.
             CASE WHEN f.note IS NULL OR (f.note ->> 'what' = 'given back'
                    AND e.story -> -1 ->> 'what' = 'given back'
                    AND e.story -> -1 ->> 'error' = f.note ->> 'error') THEN e.story
                  ELSE e.story || f.note END
      FROM given f WHERE f.tenant_id = e.tenant_id AND f.event_id = e.event_id)
    WHERE e.tenant_id = ANY (ARRAY(SELECT g.tenant_id FROM given g))
      AND e.event_id = ANY (ARRAY(SELECT g.event_id FROM given g));
  END IF;
END
$$;
REVOKE ALL ON FUNCTION ledger_write(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger_write(text, text) TO penstock_gateway, penstock_worker;
