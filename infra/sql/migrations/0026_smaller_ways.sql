-- More round trips less: see 0025. And no plan that was made while tables were empty, as statistics may believe them to be
-- for long, reads one from end to end: what is looked up is looked up one by one in an index, in an order that the planner
-- cannot turn round (laterals behind a fence, arrays in place of joins).

ALTER FUNCTION ledger_finish(text[], uuid[], bigint[], text[], smallint[], float8[], jsonb[], jsonb[])
  SET enable_seqscan = off;

-- What an alias means now, with the model to fall back to.
CREATE FUNCTION alias_for(tenant text, wanted text) RETURNS TABLE (model text, base_model text, dataset text)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
BEGIN
  PERFORM public.act_as(tenant);
  RETURN QUERY
    SELECT a.model, coalesce(m.base_model, a.previous), m.dataset
    FROM public.model_aliases a LEFT JOIN public.models m ON m.tenant_id = a.tenant_id AND m.model = a.model
    WHERE a.tenant_id = tenant AND a.alias = wanted;
END
$$;
REVOKE ALL ON FUNCTION alias_for(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION alias_for(text, text) TO penstock_gateway, penstock_worker;

-- The newest version of a template.
CREATE FUNCTION template_for(tenant text, wanted text) RETURNS TABLE (version int, body jsonb)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
BEGIN
  PERFORM public.act_as(tenant);
  RETURN QUERY
    SELECT t.version, t.body FROM public.templates t WHERE t.tenant_id = tenant AND t.name = wanted
    ORDER BY t.version DESC LIMIT 1;
END
$$;
REVOKE ALL ON FUNCTION template_for(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION template_for(text, text) TO penstock_gateway, penstock_worker;

-- Shows that a model is writing these answers; an answer that is finished stays as it is.
CREATE FUNCTION answers_begin(tenants text, begun text, open_states text[]) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
  PERFORM public.act_as(tenants);
  INSERT INTO public.answers AS a (tenant_id, query_id, status, question, collections, alias, subjectref, created_at)
  SELECT DISTINCT ON (i.tenant_id, i.query_id) i.tenant_id, i.query_id, 'streaming', i.question, i.collections, i.alias, i.subjectref, i.created_at
  FROM json_to_recordset(begun::json) AS i (
    tenant_id text, query_id uuid, question text, collections text[], alias text, subjectref text,
    created_at timestamptz)
  ORDER BY i.tenant_id, i.query_id
  ON CONFLICT (tenant_id, query_id) DO UPDATE SET status = 'streaming'
  WHERE a.status = ANY (open_states) AND coalesce(a.error ->> 'code', '') <> 'cancelled';
END
$$;
REVOKE ALL ON FUNCTION answers_begin(text, text, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION answers_begin(text, text, text[]) TO penstock_worker;

-- Marks events as running under a fencing token each and returns what a handler needs; see 0010. A few are taken one by
-- one: a statement that names its event prepares one partition, one that joins prepares all.
CREATE OR REPLACE FUNCTION ledger_claim(event_ids uuid[], tokens bigint[])
RETURNS TABLE (
  event_id uuid, tenant_id text, source text, id text, type text, major smallint, subject text, data jsonb,
  sequence bigint, accept_no bigint, attributes jsonb, expires_at timestamptz, attempts smallint, losses smallint,
  accepted_at timestamptz, not_before timestamptz, token bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  wanted_id uuid;
  new_token bigint;
BEGIN
  IF cardinality(event_ids) > 4 THEN
    RETURN QUERY
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
    FROM wanted w WHERE w.not_before IS NOT NULL;
    RETURN;
  END IF;
  FOR wanted_id, new_token IN SELECT u.event_id, u.token FROM unnest(event_ids, tokens) u (event_id, token) ORDER BY 1 LOOP
    RETURN QUERY
      UPDATE events e
      SET status = 'running', token = new_token, started_at = now(), due_at = NULL,
          losses = e.losses + (e.status = 'running')::int
      WHERE e.event_id = wanted_id AND e.finished_at IS NULL
        AND (e.status = 'running' AND e.token >= new_token) IS NOT TRUE
        AND (e.due_at > now() + interval '1 second') IS NOT TRUE
      RETURNING e.event_id, e.tenant_id, e.source, e.id, e.type, e.major, e.subject, e.data, e.sequence, e.accept_no,
                e.attributes, e.expires_at, e.attempts, e.losses, e.accepted_at, NULL::timestamptz, e.token;
    IF NOT FOUND THEN
      -- It may have become free meanwhile, so that nothing says when it is due.
      RETURN QUERY
        SELECT e.event_id, NULL::text, NULL::text, NULL::text, NULL::text, NULL::smallint, NULL::text, NULL::jsonb,
               NULL::bigint, NULL::bigint, NULL::jsonb, NULL::timestamptz, NULL::smallint, NULL::smallint,
               NULL::timestamptz,
               CASE WHEN e.status = 'running' AND e.token >= new_token THEN now() + interval '15 seconds'
                    ELSE greatest(e.due_at, now() + interval '1 second') END,
               NULL::bigint
        FROM events e WHERE e.event_id = wanted_id AND e.finished_at IS NULL;
    END IF;
  END LOOP;
END
$$;

-- Enters events: the caller's key first, then the row, for those whose key was free; of two with one key the first.
-- Where a key was not free, what is kept under all of them comes back; otherwise nothing.
CREATE OR REPLACE FUNCTION accept_for(tenants text, offered text) RETURNS SETOF event_keys
LANGUAGE plpgsql
SET enable_seqscan = off
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
      CROSS JOIN LATERAL (
        SELECT * FROM public.event_keys o WHERE o.tenant_id = i.tenant_id AND o.source = i.source AND o.id = i.id OFFSET 0
      ) k;
  END IF;
END
$$;
-- Writes answers and all that ends their events: the rows are locked under their tokens, the answer is written and
-- kept for whoever asks the same again, the out event is said, and the event is done. Each ending by itself: one that
-- must be judged first leaves no trace and comes back as not `ended`. These are endings of tenants with webhook
-- endpoints, and answers that have ended already. What does not come back is held by somebody else.
CREATE OR REPLACE FUNCTION answers_end(tenants text, endings text, open_states text[]) RETURNS TABLE (event_id uuid, ended boolean)
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
      SET status = 'done', due_at = NULL, finished_at = clock_timestamp(), error = NULL,
          attempts = (SELECT o.attempts FROM ours o WHERE o.event_id = e.event_id)
      -- Not a join, whose order the planner would choose.
      WHERE e.tenant_id = ANY (ARRAY(SELECT o.tenant_id FROM ours o))
        AND e.event_id = ANY (ARRAY(SELECT o.event_id FROM ours o))
    )
    SELECT h.event_id, h.status <> 'running' OR w.query_id IS NOT NULL
    FROM held h LEFT JOIN written w ON w.query_id = h.event_id;
END
$$;
-- What a search must know of collections, and what the same question was answered with; see 0022. The answer is kept
-- once, in its own row; the workers of an older version kept a copy.
CREATE OR REPLACE FUNCTION prepare_for(tenant text, wanted text[], question_sha256 bytea)
RETURNS TABLE (
  name text, space_id int, generation bigint, settings jsonb, model text, dimensions int, sha256 bytea, query_id uuid,
  result jsonb
)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
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
      OFFSET 0
    ) found ON true;
END
$$;
