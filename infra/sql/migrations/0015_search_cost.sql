-- The same searches at less than half of the cost (benchmarks/answer.py); what they promise is the same.

-- The six rarest words of a question find what eight found, and read half as much of the index.
CREATE OR REPLACE FUNCTION search_terms(configs regconfig[], question text) RETURNS search_term[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
  WITH known AS MATERIALIZED (
    SELECT s.most_common_elems::text::text[] AS elems, s.most_common_elem_freqs AS freqs
    FROM pg_stats s
    WHERE s.schemaname = 'public' AND s.tablename = 'chunks' AND s.attname = 'words'
  ), words AS (
    SELECT c.config, w.lexeme,
           ('''' || replace(replace(w.lexeme, '\', '\\'), '''', '''''') || '''')::tsquery AS query
    FROM unnest(configs) c (config), unnest(to_tsvector(c.config, question)) w
  ), rated AS (
    -- Behind the frequencies of the elements stand their minimum and maximum.
    SELECT w.config, w.lexeme, w.query,
           coalesce(k.freqs[array_position(k.elems, w.lexeme)], k.freqs[cardinality(k.elems) + 1] / 2, 0.001)::float8
             AS frequency
    FROM words w LEFT JOIN known k ON true
  ), numbered AS (
    SELECT r.*, row_number() OVER (PARTITION BY r.config ORDER BY r.frequency, r.lexeme) AS place FROM rated r
  )
  SELECT array_agg(ROW(n.config, n.query, n.frequency, ln(1 + 1 / greatest(n.frequency, 1e-6)))::search_term
                   ORDER BY n.config, n.place)
  FROM numbered n WHERE n.place <= 6
$$;

-- How many chunks a search may choose from, counted no further than about `cap`: documents that pass a filter are
-- counted until they should hold that many.
CREATE OR REPLACE FUNCTION search_scope(tenant text, within bigint[], filter jsonpath, cap int) RETURNS int
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  enough int;
  seen bigint;
  found bigint;
BEGIN
  IF filter IS NULL THEN
    SELECT count(*) INTO found FROM (
      SELECT FROM chunks c WHERE c.tenant_id = tenant AND c.collection_id = ANY (within) LIMIT cap
    ) few;
    RETURN found;
  END IF;
  SELECT least(cap, greatest(100, cap * d.reltuples / greatest(c.reltuples, 1))) INTO enough
  FROM pg_class d, pg_class c WHERE d.oid = 'public.documents'::regclass AND c.oid = 'public.chunks'::regclass;
  SELECT count(*), sum(few.chunks) INTO seen, found FROM (
    SELECT d.chunks FROM documents d
    WHERE d.tenant_id = tenant AND d.collection_id = ANY (within) AND d.metadata @@ filter AND d.chunks > 0
    LIMIT enough
  ) few;
  RETURN CASE WHEN seen = enough THEN cap ELSE least(coalesce(found, 0), cap) END;
END
$$;

-- The chunks nearest to a vector, best first; see 0003. Measured recall@10 stands in docs/decisions/0007-answers.md.
CREATE OR REPLACE FUNCTION search_near(
  tenant text, within bigint[], space int, question_vector halfvec, filter jsonpath, exactly boolean, pool int
)
RETURNS TABLE (chunk_id uuid, similarity float8)
LANGUAGE plpgsql ROWS 40
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  vectors text := 'vectors_' || space;
BEGIN
  IF exactly AND filter IS NULL THEN
    RETURN QUERY EXECUTE format(
      'SELECT v.chunk_id, -((v.embedding <#> $3) + 0) FROM %I v '
      'WHERE v.tenant_id = $1 AND v.collection_id = ANY ($2) ORDER BY (v.embedding <#> $3) + 0 LIMIT $4', vectors)
      USING tenant, within, question_vector, pool;
  ELSIF exactly THEN
    -- Materialized and lateral: from the few documents to their vectors, never the other way round.
    RETURN QUERY EXECUTE format(
      'WITH ours AS MATERIALIZED ('
      '  SELECT c.chunk_id FROM documents d '
      '  JOIN chunks c ON c.tenant_id = $1 AND c.collection_id = d.collection_id AND c.document_id = d.document_id '
      '  WHERE d.tenant_id = $1 AND d.collection_id = ANY ($2) AND d.metadata @@ $5) '
      'SELECT o.chunk_id, -n.distance FROM ours o CROSS JOIN LATERAL ('
      '  SELECT (v.embedding <#> $3) + 0 AS distance FROM %I v '
      '  WHERE v.tenant_id = $1 AND v.chunk_id = o.chunk_id OFFSET 0) n '
      'ORDER BY n.distance LIMIT $4', vectors)
      USING tenant, within, question_vector, pool, filter;
  ELSE
    PERFORM set_config('hnsw.ef_search', least(1000, greatest(CASE WHEN filter IS NULL THEN 256 ELSE 320 END, 6 * pool))::text, true),
            set_config('hnsw.iterative_scan', 'relaxed_order', true),
            set_config('hnsw.max_scan_tuples', '200000', true);
    -- The filter is a scalar subquery, so that it is asked about each row that the index brings, in the index's order.
    -- Relaxed order: sorted again outside, by an expression that the index does not know.
    RETURN QUERY EXECUTE format(
      'WITH near AS MATERIALIZED ('
      '  SELECT v.chunk_id, v.embedding <#> $3 AS distance FROM %I v '
      '  WHERE v.tenant_id = $1 AND v.collection_id = ANY ($2) '
      || CASE WHEN filter IS NULL THEN '' ELSE
      '  AND (SELECT d.metadata @@ $5 FROM chunks c '
      '       JOIN documents d ON d.tenant_id = c.tenant_id AND d.collection_id = c.collection_id '
      '         AND d.document_id = c.document_id '
      '       WHERE c.tenant_id = v.tenant_id AND c.chunk_id = v.chunk_id) ' END ||
      '  ORDER BY v.embedding <#> $3 LIMIT $4) '
      'SELECT near.chunk_id, -near.distance FROM near ORDER BY near.distance + 0', vectors)
      USING tenant, within, question_vector, pool, filter;
  END IF;
END
$$;

-- The chunks that share the rarest words with a question, best first; see 0003. They are rated before a filter is asked
-- about them.
CREATE OR REPLACE FUNCTION search_words(
  tenant text, within bigint[], terms search_term[], filter jsonpath, exactly boolean, base float8, room float8,
  pool int
)
RETURNS TABLE (chunk_id uuid, worth float8)
LANGUAGE plpgsql ROWS 40
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  language record;
  rare search_term[];
  condition tsquery;
  any_word tsquery;
BEGIN
  FOR language IN
    SELECT array_agg(DISTINCT c.collection_id) AS ids, (
        SELECT array_agg(t::search_term ORDER BY t.frequency) FROM unnest(terms) t WHERE t.config = c.text_config
      ) AS terms
    FROM collections c WHERE c.tenant_id = tenant AND c.collection_id = ANY (within)
    GROUP BY c.text_config
  LOOP
    rare := language.terms;
    condition := search_condition(rare, base, room);
    CONTINUE WHEN condition IS NULL;
    SELECT string_agg(t.query::text, ' | ')::tsquery INTO any_word FROM unnest(rare) t;
    RETURN QUERY EXECUTE
      'WITH found AS MATERIALIZED ('
      || CASE WHEN exactly AND filter IS NOT NULL THEN
      '  SELECT c.chunk_id, c.collection_id, c.document_id, c.words FROM documents d '
      '  JOIN chunks c ON c.tenant_id = $1 AND c.collection_id = d.collection_id AND c.document_id = d.document_id '
      '  WHERE d.tenant_id = $1 AND d.collection_id = ANY ($2) AND d.metadata @@ $4 AND c.words @@ $3 LIMIT 5000'
      ELSE
      '  SELECT c.chunk_id, c.collection_id, c.document_id, c.words FROM chunks c '
      '  WHERE c.tenant_id = $1 AND c.collection_id = ANY ($2) AND c.words @@ $3 LIMIT 5000' END ||
      '), rated AS MATERIALIZED ('
      '  SELECT f.*, '
      '    coalesce($7 * (f.words @@ $8)::int, 0) '
      '    + coalesce($9 * (f.words @@ $10)::int, 0) '
      '    + coalesce($11 * (f.words @@ $12)::int, 0) '
      '    + coalesce($13 * (f.words @@ $14)::int, 0) '
      '    + coalesce($15 * (f.words @@ $16)::int, 0) '
      '    + coalesce($17 * (f.words @@ $18)::int, 0) '
      '    AS got FROM found f ORDER BY got DESC, f.chunk_id), '
      'best AS MATERIALIZED (SELECT r.chunk_id, r.words, r.got FROM rated r '
      || CASE WHEN filter IS NULL OR exactly THEN '' ELSE
      -- Asked in the order of worth and no longer than it takes to fill the pool.
      '  WHERE (SELECT d.metadata @@ $4 FROM documents d WHERE d.tenant_id = $1 '
      '         AND d.collection_id = r.collection_id AND d.document_id = r.document_id) ' END ||
      '  LIMIT $5) '
      'SELECT b.chunk_id, b.got * (1 + ts_rank_cd(b.words, $6, 33)) FROM best b ORDER BY 2 DESC, 1'
      USING tenant, language.ids, condition, filter, pool, any_word,
        (rare[1]).weight, (rare[1]).query,
        (rare[2]).weight, (rare[2]).query,
        (rare[3]).weight, (rare[3]).query,
        (rare[4]).weight, (rare[4]).query,
        (rare[5]).weight, (rare[5]).query,
        (rare[6]).weight, (rare[6]).query;
  END LOOP;
END
$$;

-- Passages for a question; see 0003 and 0008.
CREATE OR REPLACE FUNCTION search_passages(
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
  pool int := least(greatest(3 * top_k, 30), 400);
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
  -- Beyond that share of the table it does not matter how many there are: the index finds enough of them at once.
  cap := least(20000, greatest(2000, everything / CASE WHEN filter IS NULL THEN 20 ELSE 50 END));
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
      200 * CASE WHEN filter IS NULL OR scope < 2000 THEN 1 ELSE least(3, 1 / share) END, pool) w
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
