-- An event's way in and an answer's way out are one round trip each. These functions say for whom they act, as
-- `search_for` does (0022), and run as their caller, so they may no more than the caller may.
--
-- What they do and `ledger_claim` does is planned once per connection. Arrays of one element look cheaper to the
-- planner than arrays of unknown length, so it planned each call anew: 1.6 of the 2.2 ms of a claim.

ALTER FUNCTION ledger_claim(uuid[], bigint[]) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION ledger_finish(text[], uuid[], bigint[], text[], smallint[], float8[], jsonb[], jsonb[])
  SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION prepare_for(text, text[], bytea) SET plan_cache_mode = force_generic_plan;

-- Answers are written once and read seldom: compressing them cost more than the room that they take.
ALTER TABLE answers SET (toast_tuple_target = 8160);
ALTER TABLE answer_cache SET (toast_tuple_target = 8160);

-- Enters events: the caller's key first, then the row, for those whose key was free; of two with one key the first.
-- Where a key was not free, what is kept under all of them comes back; otherwise nothing.
CREATE FUNCTION accept_for(tenants text, offered text) RETURNS SETOF event_keys
LANGUAGE plpgsql
AS $$
DECLARE
  entered bigint;
BEGIN
  PERFORM public.act_as(tenants);
  WITH input AS (
    SELECT * FROM json_to_recordset(offered::json) AS i (
      tenant_id text, event_id uuid, source text, id text, type text, major smallint, queue text, subject text,
      data jsonb, sequence bigint, attributes jsonb, expires_at timestamptz, sha text)
  ), keys AS (
    INSERT INTO public.event_keys (tenant_id, source, id, event_id, data_sha256)
    SELECT i.tenant_id, i.source, i.id, i.event_id, decode(i.sha, 'hex') FROM input i
    ORDER BY i.tenant_id, i.source, i.id, i.event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id
  )
  INSERT INTO public.events (
    tenant_id, event_id, source, id, type, major, queue, subject, data, sequence, attributes, expires_at)
  SELECT i.tenant_id, i.event_id, i.source, i.id, i.type, i.major, i.queue, i.subject, i.data, i.sequence,
         i.attributes, i.expires_at
  FROM input i JOIN keys k USING (event_id);
  GET DIAGNOSTICS entered = ROW_COUNT;
  IF entered < json_array_length(offered::json) THEN
    RETURN QUERY
      SELECT k.* FROM json_to_recordset(offered::json) AS i (tenant_id text, source text, id text)
      JOIN public.event_keys k USING (tenant_id, source, id);
  END IF;
END
$$;
REVOKE ALL ON FUNCTION accept_for(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION accept_for(text, text) TO penstock_gateway, penstock_worker;

-- Writes answers and all that ends their events: the rows are locked under their tokens, the answer is written and
-- kept for whoever asks the same again, the out event is said, and the event is done. Each ending by itself: one that
-- must be judged first leaves no trace and comes back as not `ended`. These are endings of tenants with webhook
-- endpoints, and answers that have ended already. What does not come back is held by somebody else.
CREATE FUNCTION answers_end(tenants text, endings text, open_states text[]) RETURNS TABLE (event_id uuid, ended boolean)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
-- Statistics lag behind a queue that fills and empties; see 0010.
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  PERFORM public.act_as(tenants);
  RETURN QUERY
    WITH held AS MATERIALIZED (
      SELECT g.*, e.status, e.accepted_at, e.subjectref,
             EXISTS (
               SELECT FROM public.webhook_endpoints w WHERE w.tenant_id = g.tenant_id AND w.status <> 'disabled'
             ) AS heard
      FROM (
        SELECT * FROM json_to_recordset(endings::json) AS i (
          tenant_id text, event_id uuid, token bigint, attempts smallint, collections text[], standalone text,
          alias text, keep_as text, said_id uuid, type text, major smallint, data jsonb, attributes jsonb)
        ORDER BY i.event_id OFFSET 0
      ) g
      CROSS JOIN LATERAL (
        SELECT f.status, f.accepted_at, f.attributes ->> 'subjectref' AS subjectref FROM public.events f
        WHERE f.tenant_id = g.tenant_id AND f.event_id = g.event_id AND f.token = g.token
        OFFSET 0 FOR UPDATE
      ) e
    ), written AS (
      INSERT INTO public.answers AS a (
        tenant_id, query_id, status, question, standalone, collections, answer, structured, citations, passages, report,
        alias, model, usage, timings_ms, subjectref, created_at, finished_at)
      SELECT h.tenant_id, h.event_id, h.data ->> 'status', h.data ->> 'question', h.standalone, h.collections,
             h.data ->> 'answer', nullif(h.data -> 'structured', 'null'), h.data -> 'citations', h.data -> 'passages',
             h.data -> 'report', h.alias, h.data ->> 'model', h.data -> 'usage', h.data -> 'timings_ms', h.subjectref,
             h.accepted_at, now()
      FROM held h WHERE h.status = 'running' AND NOT h.heard
      ON CONFLICT (tenant_id, query_id) DO UPDATE SET
        status = excluded.status, standalone = excluded.standalone, answer = excluded.answer,
        structured = excluded.structured, citations = excluded.citations, passages = excluded.passages,
        report = excluded.report, alias = excluded.alias, model = excluded.model, usage = excluded.usage,
        timings_ms = excluded.timings_ms, error = NULL, finished_at = excluded.finished_at
      WHERE a.status = ANY (open_states) AND coalesce(a.error ->> 'code', '') <> 'cancelled'
      RETURNING a.query_id
    ), ours AS MATERIALIZED (
      SELECT h.* FROM held h JOIN written w ON w.query_id = h.event_id
    ), kept AS (
      INSERT INTO public.answer_cache (tenant_id, key_sha256, query_id, result)
      SELECT DISTINCT ON (o.tenant_id, o.keep_as) o.tenant_id, decode(o.keep_as, 'hex'), o.event_id, '{}'
      FROM ours o WHERE o.keep_as IS NOT NULL
      ORDER BY o.tenant_id, o.keep_as, o.event_id
      ON CONFLICT (tenant_id, key_sha256)
      DO UPDATE SET query_id = excluded.query_id, result = excluded.result, made_at = now()
    ), said AS (
      INSERT INTO public.events (
        tenant_id, event_id, source, id, type, major, subject, data, attributes, caused_by, status, finished_at)
      SELECT o.tenant_id, o.said_id, 'penstock', o.said_id::text, o.type, o.major, o.event_id::text, o.data,
             o.attributes, o.event_id, 'done', clock_timestamp()
      FROM ours o
    ), finished AS (
      UPDATE public.events e
      SET status = 'done', attempts = o.attempts, due_at = NULL, finished_at = clock_timestamp(), error = NULL
      FROM ours o WHERE e.tenant_id = o.tenant_id AND e.event_id = o.event_id
    )
    SELECT h.event_id, h.status <> 'running' OR w.query_id IS NOT NULL
    FROM held h LEFT JOIN written w ON w.query_id = h.event_id;
END
$$;
REVOKE ALL ON FUNCTION answers_end(text, text, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION answers_end(text, text, text[]) TO penstock_worker;

-- What a search must know of collections, and what the same question was answered with; see 0022. The answer is kept
-- once, in its own row; the workers of an older version kept a copy.
CREATE OR REPLACE FUNCTION prepare_for(tenant text, wanted text[], question_sha256 bytea)
RETURNS TABLE (
  name text, space_id int, generation bigint, settings jsonb, model text, dimensions int, sha256 bytea, query_id uuid,
  result jsonb
)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
  PERFORM public.act_as(tenant);
  RETURN QUERY
    WITH named AS (
      SELECT c.name, c.space_id, c.generation, c.settings, s.model, s.dimensions
      FROM public.collections c JOIN public.embedding_spaces s ON s.space_id = c.space_id
      WHERE c.tenant_id = tenant AND c.name = ANY (wanted)
    ), key AS (
      SELECT pg_catalog.sha256(question_sha256 || convert_to(
        string_agg(jsonb_build_array(n.name, n.space_id, n.generation, n.settings)::text, ',' ORDER BY n.name), 'UTF8'))
        AS sha256
      FROM named n
    )
    SELECT n.name, n.space_id, n.generation, n.settings, n.model, n.dimensions, k.sha256, found.query_id, found.result
    FROM named n CROSS JOIN key k
    LEFT JOIN LATERAL (
      SELECT a.query_id, CASE WHEN a.result <> '{}' THEN a.result ELSE jsonb_build_object(
        'answer', w.answer, 'structured', w.structured, 'citations', w.citations, 'passages', w.passages,
        'standalone', w.standalone, 'model', w.model, 'query_id', w.query_id) END AS result
      FROM public.answer_cache a
      LEFT JOIN public.answers w ON w.tenant_id = a.tenant_id AND w.query_id = a.query_id AND w.status = 'answered'
      WHERE a.tenant_id = tenant AND a.key_sha256 = k.sha256 AND a.made_at > now() - interval '1 day'
        AND (a.result <> '{}' OR w.query_id IS NOT NULL)
    ) found ON true;
END
$$;
