-- Searches that bring the neighbours of what they find.

-- Passages for a question, best first, within one embedding space: by nearness, by words, or both fused by reciprocal
-- rank (RRF, Cormack et al. 2009, k = 60).
--
-- It runs as the owner, because row-level security would keep full-text and jsonb conditions from their indexes;
-- therefore it takes the tenant from the transaction, never from the caller, and each step names it. Collections that
-- are unknown or live in another space bring nothing; the caller has looked them up. `beside` holds up to `around`
-- chunks before and behind each passage in its document.
CREATE FUNCTION search_passages(
  wanted text[], space int, question_vector halfvec, question text, mode text, top_k int, filter jsonpath, around int
)
RETURNS TABLE (
  chunk_id uuid, document_id text, collection text, "position" int, text text, heading text, page int, tokens int,
  title text, metadata jsonb, score float8, similarity float8, coverage float8, beside jsonb
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
-- A search reads no table from end to end, whatever the statistics say; compiling costs more than it saves.
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
  tenant text := app_tenant();
  pool int := least(greatest(4 * top_k, 40), 400);
  within bigint[];
  configs regconfig[];
  terms search_term[];
  everything float8;
  cap int;
  scope int;
  share float8;
  ids uuid[];
  scores float8[];
  similarities float8[];
BEGIN
  SELECT array_agg(c.collection_id), array_agg(DISTINCT c.text_config) INTO within, configs FROM collections c
  WHERE c.tenant_id = tenant AND c.name = ANY (wanted) AND c.space_id = space;
  SELECT greatest(c.reltuples, 1) INTO everything FROM pg_class c WHERE c.oid = 'public.chunks'::regclass;
  -- Beyond a twentieth of the table it does not matter how many there are: the index finds enough of them at once.
  cap := least(20000, greatest(2000, everything / 20));
  scope := search_scope(tenant, within, filter, cap);
  IF within IS NULL OR scope = 0 THEN
    RETURN;
  END IF;
  everything := greatest(everything, scope);
  share := scope / everything;
  terms := search_terms(configs, question);

  WITH near AS (
    SELECT n.chunk_id, n.similarity, row_number() OVER (ORDER BY n.similarity DESC, n.chunk_id) AS place
    FROM search_near(tenant, within, space, question_vector, filter,
      -- A row that the index visits costs about eight times one that a scan reads; through a document, three times.
      scope < cap AND scope * (CASE WHEN filter IS NULL THEN 1 ELSE 3 END) <= 8 * greatest(200, pool / share), pool) n
    WHERE mode <> 'text'
  ), worded AS (
    SELECT w.chunk_id, row_number() OVER (ORDER BY w.worth DESC, w.chunk_id) AS place
    FROM search_words(tenant, within, terms, filter, scope < 2000,
      CASE WHEN scope < 2000 OR (filter IS NULL AND scope < cap) THEN scope ELSE everything END,
      500 * CASE WHEN filter IS NULL OR scope < 2000 THEN 1 ELSE least(5, 1 / share) END, pool) w
    WHERE mode <> 'vector'
  ), fused AS (
    SELECT coalesce(n.chunk_id, w.chunk_id) AS chunk_id, n.similarity,
           coalesce(1.0 / (60 + n.place), 0) + coalesce(1.0 / (60 + w.place), 0) AS score
    FROM near n FULL JOIN worded w ON w.chunk_id = n.chunk_id
  ), distinct_texts AS (
    -- The same text in two documents is one passage: the better placed of them.
    SELECT DISTINCT ON (c.sha256) f.chunk_id, f.score, f.similarity
    FROM fused f JOIN chunks c ON c.tenant_id = tenant AND c.chunk_id = f.chunk_id
    ORDER BY c.sha256, f.score DESC, f.chunk_id
  ), best AS (
    SELECT * FROM distinct_texts d ORDER BY d.score DESC, d.chunk_id LIMIT top_k
  )
  SELECT array_agg(b.chunk_id), array_agg(b.score), array_agg(b.similarity) INTO ids, scores, similarities FROM best b;

  IF question_vector IS NOT NULL AND array_position(similarities, NULL) IS NOT NULL THEN
    -- Passages that were found by their words alone: how near are they?
    EXECUTE format(
      'SELECT array_agg(coalesce(w.similarity, -(v.embedding <#> $4)) ORDER BY w.place) '
      'FROM unnest($2, $3) WITH ORDINALITY w (chunk_id, similarity, place) '
      'LEFT JOIN %I v ON v.tenant_id = $1 AND v.chunk_id = w.chunk_id', 'vectors_' || space)
      INTO similarities USING tenant, ids, similarities, question_vector;
  END IF;

  RETURN QUERY
    SELECT c.chunk_id, c.document_id, o.name, c.position, c.text, c.heading, c.page, c.tokens,
           d.title, d.metadata, w.score, w.similarity,
           (SELECT coalesce(sum(t.weight) FILTER (WHERE c.words @@ t.query) / sum(t.weight), 0)
            FROM unnest(terms) t WHERE t.config = o.text_config),
           CASE WHEN around > 0 THEN (
             SELECT jsonb_agg(jsonb_build_object(
               'chunk_id', b.chunk_id, 'position', b.position, 'text', b.text, 'heading', b.heading, 'page', b.page))
             FROM chunks b
             WHERE b.tenant_id = tenant AND b.collection_id = c.collection_id AND b.document_id = c.document_id
               AND b.position BETWEEN c.position - around AND c.position + around AND b.position <> c.position) END
    FROM unnest(ids, scores, similarities) w (chunk_id, score, similarity)
    JOIN chunks c ON c.tenant_id = tenant AND c.chunk_id = w.chunk_id
    JOIN collections o ON o.tenant_id = tenant AND o.collection_id = c.collection_id
    JOIN documents d ON d.tenant_id = tenant AND d.collection_id = c.collection_id AND d.document_id = c.document_id
    ORDER BY w.score DESC, c.chunk_id;
END
$$;
REVOKE ALL ON FUNCTION search_passages(text[], int, halfvec, text, text, int, jsonpath, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION search_passages(text[], int, halfvec, text, text, int, jsonpath, int)
  TO penstock_gateway, penstock_worker;

-- What the code before this migration calls.
CREATE OR REPLACE FUNCTION search_passages(
  wanted text[], space int, question_vector halfvec, question text, mode text, top_k int, filter jsonpath
)
RETURNS TABLE (
  chunk_id uuid, document_id text, collection text, "position" int, text text, heading text, page int, tokens int,
  title text, metadata jsonb, score float8, similarity float8, coverage float8
)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT s.chunk_id, s.document_id, s.collection, s.position, s.text, s.heading, s.page, s.tokens, s.title, s.metadata,
         s.score, s.similarity, s.coverage
  FROM search_passages(wanted, space, question_vector, question, mode, top_k, filter, 0) s
$$;
