-- Erasure: what is known of a document, a question, a person or a whole tenant is taken out; ids, hashes and states stay.
--
-- The functions run as the owner, because nobody who serves may delete. They take the tenant from the transaction,
-- never as an argument, and name it in every statement. Steps of training runs (training.advance) hold ids only and
-- stay: they stop the jobs and delete the files at the provider.

ALTER TABLE training_runs ADD COLUMN tainted_at timestamptz;
ALTER TABLE models ADD COLUMN tainted_at timestamptz;
CREATE INDEX events_by_person ON events (tenant_id, (attributes ->> 'subjectref')) WHERE attributes ? 'subjectref';
CREATE INDEX answers_by_person ON answers (tenant_id, subjectref) WHERE subjectref IS NOT NULL;
CREATE INDEX examples_by_event ON examples (tenant_id, event_id) WHERE event_id IS NOT NULL;

-- Blanks events: their data and attributes, what errors and stories say beyond codes. What is unfinished ends, and a
-- worker that holds it cannot commit, because its token is gone.
-- Returns the unfinished ones, whose jobs are to be removed from their queues.
CREATE FUNCTION erase_events(ids uuid[]) RETURNS TABLE (event_id uuid, queue text)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  WITH before AS (
    SELECT e.event_id, e.queue, e.finished_at FROM events e
    WHERE e.tenant_id = app_tenant() AND e.event_id = ANY (ids) AND e.type <> 'training.advance'
    ORDER BY e.event_id
    FOR UPDATE
  ), blanked AS (
    UPDATE events e
    SET data = '{}', attributes = '{}', token = NULL, due_at = NULL, dead_at = NULL,
        status = CASE WHEN e.finished_at IS NULL THEN 'dead' ELSE e.status END,
        finished_at = coalesce(e.finished_at, clock_timestamp()),
        error = CASE WHEN e.finished_at IS NULL OR e.status = 'dead'
                     THEN '{"code": "erased", "message": "erased on request"}'::jsonb END,
        story = (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                          'at', s -> 'at', 'what', s -> 'what', 'by', s -> 'by')) ORDER BY n), '[]')
                 FROM jsonb_array_elements(e.story) WITH ORDINALITY AS t (s, n))
                || jsonb_build_object('at', now(), 'what', 'erased')
    FROM before b
    WHERE e.tenant_id = app_tenant() AND e.event_id = b.event_id
    RETURNING e.event_id
  )
  SELECT b.event_id, b.queue FROM before b JOIN blanked USING (event_id)
  WHERE b.queue IS NOT NULL AND b.finished_at IS NULL
$$;
REVOKE ALL ON FUNCTION erase_events(uuid[]) FROM PUBLIC;

-- Takes back examples: no text and no vector of them stays. Runs that were made of them, and their models, are tainted;
-- runs that have not ended are asked to stop.
-- Returns the tainted runs.
CREATE FUNCTION erase_examples(ids uuid[]) RETURNS TABLE (run_id uuid)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  tenant text := app_tenant();
  runs uuid[];
BEGIN
  SELECT array_agg(DISTINCT r.run_id) INTO runs FROM (
    SELECT x.run_id FROM run_examples x WHERE x.tenant_id = tenant AND x.example_id = ANY (ids)
    UNION ALL
    SELECT x.run_id FROM examples x WHERE x.tenant_id = tenant AND x.example_id = ANY (ids) AND x.run_id IS NOT NULL
  ) r;
  UPDATE examples x
  SET status = 'withdrawn', messages = '[]', embedding = NULL, source = NULL, supplier = NULL, lineage = NULL,
      reason = 'erased', changed_at = now()
  WHERE x.tenant_id = tenant AND x.example_id = ANY (ids);
  DELETE FROM example_vectors v WHERE v.tenant_id = tenant AND v.example_id = ANY (ids);
  DELETE FROM evaluation_contexts v WHERE v.tenant_id = tenant AND v.example_id = ANY (ids);
  UPDATE evaluations v SET answer = NULL, error = NULL WHERE v.tenant_id = tenant AND v.example_id = ANY (ids);
  UPDATE training_runs t
  SET tainted_at = coalesce(t.tainted_at, now()), updated_at = now(),
      cancel_asked_at = CASE WHEN t.ended_at IS NULL THEN coalesce(t.cancel_asked_at, now()) ELSE t.cancel_asked_at END
  WHERE t.tenant_id = tenant AND t.run_id = ANY (runs);
  UPDATE models m SET tainted_at = coalesce(m.tainted_at, now())
  WHERE m.tenant_id = tenant AND m.run_id = ANY (runs);
  RETURN QUERY SELECT unnest(runs);
END
$$;
REVOKE ALL ON FUNCTION erase_examples(uuid[]) FROM PUBLIC;

-- Takes documents out: chunks, with them their vectors in every space, what the caches kept; a tombstone stays.
CREATE FUNCTION erase_documents(collection_ids bigint[], document_ids text[], OUT documents bigint, OUT chunks bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  tenant text := app_tenant();
BEGIN
  UPDATE documents d
  SET status = 'purged', settled_sequence = greatest(d.settled_sequence, d.sequence), served_sequence = NULL,
      content_sha256 = NULL, recipe_sha256 = NULL, title = NULL, metadata = '{}', media_type = NULL, uri = NULL,
      chunks = 0, tokens = 0, error = NULL, indexed_at = NULL, updated_at = now(), revision = d.revision + 1
  FROM unnest(collection_ids, document_ids) AS w (collection_id, document_id)
  WHERE d.tenant_id = tenant AND d.collection_id = w.collection_id AND d.document_id = w.document_id
    AND NOT (d.status = 'purged' AND d.content_sha256 IS NULL AND d.title IS NULL AND d.metadata = '{}'
             AND d.uri IS NULL AND d.error IS NULL);
  GET DIAGNOSTICS documents = ROW_COUNT;
  DELETE FROM chunks c USING unnest(collection_ids, document_ids) AS w (collection_id, document_id)
  WHERE c.tenant_id = tenant AND c.collection_id = w.collection_id AND c.document_id = w.document_id;
  GET DIAGNOSTICS chunks = ROW_COUNT;
END
$$;
REVOKE ALL ON FUNCTION erase_documents(bigint[], text[]) FROM PUBLIC;

-- Erases one document, question or person of the transaction's tenant, with all that was made of it.
--
-- kind: document (place is its collection, name its id), query (name is its id), subject (name is the subjectref).
-- Returns counts, and what is left to do outside of the database: streams of answers and jobs to remove from Redis, runs
-- whose files the training wing deletes.
CREATE FUNCTION erase(kind text, place text, name text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  tenant text := app_tenant();
  names text[] := '{}';
  documents text[] := '{}';
  collection_ids bigint[];
  document_ids text[];
  questions uuid[] := '{}';
  made_of uuid[];
  answered uuid[];
  about uuid[] := '{}';
  everything uuid[];
  taught uuid[];
  runs uuid[];
  jobs jsonb;
  rewritten jsonb;
  counts jsonb := '{}';
  touched bigint;
  more bigint;
BEGIN
  IF tenant IS NULL THEN
    RAISE EXCEPTION 'no tenant' USING ERRCODE = 'insufficient_privilege';
  END IF;
  -- What it begins with.
  CASE kind
    WHEN 'document' THEN
      names := ARRAY[place];
      documents := ARRAY[name];
    WHEN 'query' THEN
      questions := ARRAY[name::uuid];
    WHEN 'subject' THEN
      SELECT coalesce(array_agg(e.event_id), '{}') INTO about FROM events e
      WHERE e.tenant_id = tenant AND e.attributes ? 'subjectref' AND e.attributes ->> 'subjectref' = name;
      SELECT coalesce(array_agg(d.collection), '{}'), coalesce(array_agg(d.document_id), '{}') INTO names, documents
      FROM (SELECT DISTINCT e.data ->> 'collection' AS collection, e.data ->> 'document_id' AS document_id FROM events e
            WHERE e.tenant_id = tenant AND e.event_id = ANY (about)
              AND e.type IN ('document.added', 'document.deleted')) d;
      SELECT coalesce(array_agg(q.id), '{}') INTO questions FROM (
        SELECT e.event_id AS id FROM events e
        WHERE e.tenant_id = tenant AND e.event_id = ANY (about) AND e.type = 'query.received'
        UNION
        SELECT a.query_id FROM answers a WHERE a.tenant_id = tenant AND a.subjectref = name) q;
  END CASE;

  -- Its events are locked first: from here on no worker commits what it makes of them.
  SELECT coalesce(array_agg(l.event_id), '{}') INTO everything FROM (
    SELECT e.event_id FROM events e
    WHERE e.tenant_id = tenant AND (
      e.event_id = ANY (about || questions)
      OR (e.type LIKE 'document.%' AND cardinality(documents) > 0 AND EXISTS (
        SELECT FROM unnest(names, documents) AS w (collection, document_id)
        WHERE e.data ->> 'document_id' = w.document_id AND e.data ->> 'collection' = w.collection)))
    ORDER BY e.event_id
    FOR UPDATE) l;
  -- An answer that is being written may have read the documents: it is begun again without them.
  WITH again AS (
    UPDATE events e
    SET status = 'accepted', token = NULL, due_at = now() + interval '1 second', written_in = pg_current_xact_id()
    WHERE e.tenant_id = tenant AND e.type = 'query.received' AND e.status = 'running' AND cardinality(documents) > 0
      AND NOT e.event_id = ANY (everything) AND e.data -> 'collections' ?| names
    RETURNING e.event_id, e.type, e.queue
  )
  SELECT coalesce(jsonb_agg(jsonb_build_object('event_id', a.event_id, 'type', a.type, 'queue', a.queue)), '[]')
  INTO rewritten FROM again a;

  -- What was made of it: answers from its documents, examples, and what events led to.
  SELECT coalesce(array_agg(a.query_id), '{}') INTO made_of FROM answers a
  WHERE a.tenant_id = tenant AND cardinality(documents) > 0 AND EXISTS (
    SELECT FROM jsonb_array_elements(a.passages) p, unnest(names, documents) AS w (collection, document_id)
    WHERE p ->> 'document_id' = w.document_id AND p ->> 'collection' = w.collection);
  answered := questions || made_of;
  SELECT everything || coalesce(array_agg(e.event_id), '{}') INTO everything FROM events e
  WHERE e.tenant_id = tenant AND e.type IN ('query.answered', 'query.failed', 'feedback.received')
    AND e.data ->> 'query_id' = ANY (answered::text[]) AND NOT e.event_id = ANY (everything);
  SELECT coalesce(array_agg(x.example_id), '{}') INTO taught FROM examples x
  WHERE x.tenant_id = tenant AND x.status || x.messages::text <> 'withdrawn[]'
    AND (x.event_id = ANY (everything) OR x.query_id = ANY (answered::text[]) OR EXISTS (
      SELECT FROM jsonb_array_elements(x.lineage -> 'documents') p, unnest(names, documents) AS w (collection, document_id)
      WHERE p ->> 'document_id' = w.document_id AND p ->> 'collection' = w.collection));
  SELECT everything || coalesce(array_agg(e.event_id), '{}') INTO everything FROM (
    SELECT c.event_id FROM events c WHERE c.tenant_id = tenant AND c.caused_by = ANY (everything)
    UNION
    SELECT x.event_id FROM examples x
    WHERE x.tenant_id = tenant AND x.example_id = ANY (taught) AND x.event_id IS NOT NULL) e
  WHERE NOT e.event_id = ANY (everything);
  -- Deliveries of what these led to are due by events of their own.
  SELECT everything || coalesce(array_agg(e.event_id), '{}') INTO everything FROM events e
  WHERE e.tenant_id = tenant AND e.caused_by = ANY (everything) AND NOT e.event_id = ANY (everything);

  SELECT count(*) INTO touched FROM events e
  WHERE e.tenant_id = tenant AND e.event_id = ANY (everything) AND e.type <> 'training.advance'
    AND (e.data <> '{}' OR e.attributes <> '{}');
  counts := counts || jsonb_build_object('events', touched);
  SELECT coalesce(jsonb_agg(jsonb_build_object('event_id', e.event_id, 'queue', e.queue)), '[]') INTO jobs
  FROM erase_events(everything) e;

  SELECT coalesce(array_agg(c.collection_id), '{}'), coalesce(array_agg(w.document_id), '{}')
    INTO collection_ids, document_ids
  FROM unnest(names, documents) AS w (collection, document_id)
  JOIN collections c ON c.tenant_id = tenant AND c.name = w.collection;
  SELECT d.documents, d.chunks INTO touched, more FROM erase_documents(collection_ids, document_ids) d;
  counts := counts || jsonb_build_object('documents', touched, 'chunks', more);
  -- Vectors of earlier versions too, and of questions: what is in use stands in the vector tables.
  IF cardinality(documents) + cardinality(questions) + cardinality(taught) > 0 THEN
    DELETE FROM embedding_cache k WHERE k.tenant_id = tenant;
    GET DIAGNOSTICS touched = ROW_COUNT;
    counts := counts || jsonb_build_object('cached_embeddings', touched);
    DELETE FROM evaluation_contexts v WHERE v.tenant_id = tenant AND EXISTS (
      SELECT FROM unnest(documents) AS w (document_id)
      WHERE strpos(v.passages::text, to_jsonb(w.document_id)::text) > 0);
    UPDATE request_replies r
    SET status = 410, sealed = false, headers = '{"content-type": "application/problem+json"}',
        body = convert_to('{"type": "about:blank", "title": "Erased", "status": 410, "code": "erased"}', 'UTF8')
    WHERE r.tenant_id = tenant AND r.status IS NOT NULL
      AND r.body <> convert_to('{"type": "about:blank", "title": "Erased", "status": 410, "code": "erased"}', 'UTF8');
    GET DIAGNOSTICS touched = ROW_COUNT;
    counts := counts || jsonb_build_object('replies', touched);
  END IF;

  DELETE FROM answer_cache k WHERE k.tenant_id = tenant AND k.query_id = ANY (answered);
  GET DIAGNOSTICS touched = ROW_COUNT;
  counts := counts || jsonb_build_object('cached_answers', touched);
  INSERT INTO answers (tenant_id, query_id, status, question, collections, finished_at)
  SELECT tenant, e.event_id, 'failed', '', '{}', now() FROM events e
  WHERE e.tenant_id = tenant AND e.event_id = ANY (questions) AND e.type = 'query.received'
  ON CONFLICT (tenant_id, query_id) DO NOTHING;
  UPDATE answers a
  SET question = CASE WHEN a.query_id = ANY (questions) THEN '' ELSE a.question END,
      subjectref = CASE WHEN a.query_id = ANY (questions) THEN NULL ELSE a.subjectref END,
      standalone = NULL, answer = NULL, structured = NULL, citations = '[]', passages = '[]', report = '{}',
      status = CASE WHEN a.status IN ('pending', 'streaming') THEN 'failed' ELSE a.status END,
      finished_at = coalesce(a.finished_at, now()),
      error = '{"code": "erased", "message": "erased on request"}'
  WHERE a.tenant_id = tenant AND a.query_id = ANY (answered);
  GET DIAGNOSTICS touched = ROW_COUNT;
  counts := counts || jsonb_build_object('answers', touched);

  SELECT array_agg(r.run_id) INTO runs FROM erase_examples(taught) r;
  UPDATE training_runs t SET reason = '' WHERE t.tenant_id = tenant AND t.run_id = ANY (everything);
  counts := counts || jsonb_build_object(
    'examples', cardinality(taught), 'tainted_runs', coalesce(cardinality(runs), 0), 'tainted_models',
    (SELECT count(*) FROM models m WHERE m.tenant_id = tenant AND m.run_id = ANY (runs)));

  UPDATE delivery_attempts t SET response_head = NULL, error = NULL
  FROM deliveries d
  WHERE d.tenant_id = tenant AND d.event_id = ANY (everything)
    AND t.tenant_id = tenant AND t.delivery_id = d.delivery_id;
  UPDATE deliveries d
  SET body = '', next_at = NULL,
      error = CASE WHEN d.status <> 'delivered' THEN '{"code": "erased", "message": "erased on request"}'::jsonb END,
      status = CASE WHEN d.status <> 'delivered' THEN 'dead' ELSE d.status END
  WHERE d.tenant_id = tenant AND d.event_id = ANY (everything) AND d.body <> '';
  GET DIAGNOSTICS touched = ROW_COUNT;
  counts := counts || jsonb_build_object('deliveries', touched);

  RETURN jsonb_build_object(
    'counts', counts, 'jobs', jobs, 'again', rewritten, 'queries', to_jsonb(answered),
    'runs', to_jsonb(coalesce(runs, '{}')), 'documents',
    (SELECT coalesce(jsonb_agg(jsonb_build_array(w.collection, w.document_id)), '[]')
     FROM unnest(names, documents) AS w (collection, document_id)));
END
$$;
REVOKE ALL ON FUNCTION erase(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase(text, text, text) TO penstock_gateway;

-- Erases some of what the transaction's tenant has, at most so many rows of a table at a time.
-- Returns how many rows it has touched, per table, and jobs to remove from Redis; nothing touched means done.
CREATE FUNCTION erase_tenant_step(at_most int) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  tenant text := app_tenant();
  target text;
  counts jsonb := '{}';
  jobs jsonb;
  queries jsonb;
  ids uuid[];
  touched bigint;
BEGIN
  IF tenant IS NULL THEN
    RAISE EXCEPTION 'no tenant' USING ERRCODE = 'insufficient_privilege';
  END IF;
  UPDATE tenants t SET suspended_at = coalesce(t.suspended_at, now()), title = '' WHERE t.tenant_id = tenant;
  UPDATE api_keys k SET revoked_at = coalesce(k.revoked_at, now()), title = '' WHERE k.tenant_id = tenant;

  SELECT array_agg(e.event_id) INTO ids FROM (
    SELECT e.event_id FROM events e
    WHERE e.tenant_id = tenant AND e.type <> 'training.advance' AND (e.data <> '{}' OR e.attributes <> '{}')
    LIMIT at_most) e;
  SELECT coalesce(jsonb_agg(jsonb_build_object('event_id', e.event_id, 'queue', e.queue)), '[]') INTO jobs
  FROM erase_events(ids) e;
  counts := jsonb_build_object('events', coalesce(cardinality(ids), 0));

  SELECT array_agg(x.example_id) INTO ids FROM (
    SELECT x.example_id FROM examples x
    WHERE x.tenant_id = tenant AND x.status || x.messages::text <> 'withdrawn[]' LIMIT at_most) x;
  PERFORM erase_examples(ids);
  counts := counts || jsonb_build_object('examples', coalesce(cardinality(ids), 0));

  SELECT coalesce(jsonb_agg(a.query_id), '[]') INTO queries FROM (
    SELECT a.query_id FROM answers a WHERE a.tenant_id = tenant ORDER BY a.query_id LIMIT at_most) a;
  DELETE FROM answers a WHERE a.tenant_id = tenant AND a.query_id::text IN (SELECT jsonb_array_elements_text(queries));
  counts := counts || jsonb_build_object('answers', jsonb_array_length(queries));

  -- What hangs on another table comes before it.
  FOREACH target IN ARRAY ARRAY[
    'chunks', 'documents', 'collections', 'embedding_cache', 'answer_cache', 'templates', 'request_replies',
    'evaluation_contexts', 'example_vectors', 'delivery_attempts', 'webhook_replays', 'deliveries', 'webhook_endpoints',
    'budget_reservations'
  ] LOOP
    EXECUTE format(
      'DELETE FROM public.%1$I WHERE (tableoid, ctid) IN '
      '(SELECT tableoid, ctid FROM public.%1$I WHERE tenant_id = $1 LIMIT $2) AND tenant_id = $1', target)
      USING tenant, at_most;
    GET DIAGNOSTICS touched = ROW_COUNT;
    counts := counts || jsonb_build_object(target, touched);
    -- A table is emptied before the one that it hangs on.
    EXIT WHEN touched = at_most;
  END LOOP;
  UPDATE evaluations v SET answer = NULL, error = NULL
  WHERE v.tenant_id = tenant AND (v.answer IS NOT NULL OR v.error IS NOT NULL);
  UPDATE training_events v SET details = '{}' WHERE v.tenant_id = tenant AND v.details <> '{}';
  UPDATE training_runs t
  SET reason = '', error = NULL, evaluation = NULL, tainted_at = coalesce(t.tainted_at, now()),
      cancel_asked_at = CASE WHEN t.ended_at IS NULL THEN coalesce(t.cancel_asked_at, now()) ELSE t.cancel_asked_at END
  WHERE t.tenant_id = tenant AND (t.reason <> '' OR t.error IS NOT NULL OR t.evaluation IS NOT NULL OR t.tainted_at IS NULL);
  UPDATE models m SET tainted_at = coalesce(m.tainted_at, now()) WHERE m.tenant_id = tenant AND m.tainted_at IS NULL;
  UPDATE model_alias_history h SET reason = '' WHERE h.tenant_id = tenant AND h.reason <> '';
  RETURN jsonb_build_object('counts', counts, 'jobs', jobs, 'queries', queries);
END
$$;
REVOKE ALL ON FUNCTION erase_tenant_step(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_tenant_step(int) TO penstock_gateway;
