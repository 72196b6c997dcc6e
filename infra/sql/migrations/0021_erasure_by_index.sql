-- Erasure finds a document's and a question's events by index; what is said of an erased document (document.purged) stays,
-- because it holds nothing but ids; an answer kept for an Idempotency-Key becomes a whole problem document.

CREATE INDEX events_of_document ON events (tenant_id, (data ->> 'document_id'))
  WHERE type IN ('document.added', 'document.deleted');
CREATE INDEX events_of_query ON events (tenant_id, (data ->> 'query_id'))
  WHERE type IN ('query.answered', 'query.failed', 'feedback.received');
CREATE INDEX events_refused ON events (tenant_id, event_id) WHERE type = 'stream.refused';

CREATE OR REPLACE FUNCTION erase(kind text, place text, name text) RETURNS jsonb
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
  gone bytea := convert_to('{"type": "urn:penstock:problem:erased", "title": "Gone", "status": 410, '
                           '"detail": "the answer was erased on request", "code": "erased"}', 'UTF8');
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

  -- Its events are locked first: from here on no worker commits what it makes of them. What they led to is found by its
  -- cause below. A refused stream entry is text that nobody could read: the id standing in it is enough.
  SELECT about || coalesce(array_agg(e.event_id), '{}') INTO about FROM (
    SELECT x.event_id FROM unnest(names, documents) AS w (collection, document_id)
    JOIN events x ON x.tenant_id = tenant AND x.type IN ('document.added', 'document.deleted')
      AND x.data ->> 'document_id' = w.document_id
    WHERE x.data ->> 'collection' = w.collection
    UNION
    SELECT x.event_id FROM unnest(documents) AS w (document_id)
    JOIN events x ON x.tenant_id = tenant AND x.type = 'stream.refused'
      AND strpos(x.data #>> '{fields,data}', to_jsonb(w.document_id)::text) > 0) e;
  SELECT coalesce(array_agg(l.event_id), '{}') INTO everything FROM (
    SELECT e.event_id FROM events e
    WHERE e.tenant_id = tenant AND e.event_id = ANY (about || questions)
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
        body = gone
    WHERE r.tenant_id = tenant AND r.status IS NOT NULL
      AND r.body <> gone;
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
