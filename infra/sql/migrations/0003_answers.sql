-- Answers: prompt templates, answers, the exact cache, and the one function that searches.

-- A template never changes; a new text is a new version, and the newest one is used.
CREATE TABLE templates (
  tenant_id text NOT NULL REFERENCES tenants,
  name text NOT NULL,
  version int NOT NULL CHECK (version > 0),
  body jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, name, version)
);
SELECT secure_table('templates');

-- One row per question that a worker has taken up; until then the event itself says `pending`.
-- query_id is the ledger's id of the query.received event.
CREATE TABLE answers (
  tenant_id text NOT NULL REFERENCES tenants,
  query_id uuid NOT NULL,
  status text NOT NULL CHECK (status IN ('pending', 'streaming', 'answered', 'abstained', 'failed')),
  question text NOT NULL,
  standalone text,
  collections text[] NOT NULL,
  answer text,
  structured jsonb,
  citations jsonb NOT NULL DEFAULT '[]',
  passages jsonb NOT NULL DEFAULT '[]',
  report jsonb NOT NULL DEFAULT '{}',
  alias text,
  model text,
  usage jsonb NOT NULL DEFAULT '{}',
  timings_ms jsonb NOT NULL DEFAULT '{}',
  error jsonb,
  subjectref text,
  created_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  PRIMARY KEY (tenant_id, query_id)
);
CREATE INDEX answers_by_age ON answers (created_at);
SELECT secure_table('answers');

-- Exact repetitions. The key covers all that decides an answer, the collections' generations among it, so an entry
-- that is out of date is never found; it is deleted by age.
CREATE TABLE answer_cache (
  tenant_id text NOT NULL REFERENCES tenants,
  key_sha256 bytea NOT NULL,
  query_id uuid NOT NULL,
  result jsonb NOT NULL,
  made_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key_sha256)
);
CREATE INDEX answer_cache_by_age ON answer_cache (made_at);
SELECT secure_table('answer_cache');

GRANT SELECT, INSERT, UPDATE ON answers TO penstock_worker, penstock_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON answer_cache TO penstock_worker;
GRANT SELECT ON templates TO penstock_worker;
GRANT SELECT, INSERT ON templates TO penstock_gateway;

-- Lets a search go from the documents that pass a filter to the ids of their chunks without touching the chunks.
DROP INDEX chunks_by_document;
CREATE INDEX chunks_by_document ON chunks (tenant_id, collection_id, document_id, position) INCLUDE (chunk_id);

-- One word of a question in one language: what finds it, how often it occurs, what it weighs.
CREATE TYPE search_term AS (config regconfig, query tsquery, frequency float8, weight float8);

-- The rarest words of a question in each language of the collections, rarest first. Frequencies are those that
-- ANALYZE keeps of all chunks; a word that it does not list is rarer than all that it lists. A word weighs the
-- logarithm of how rare it is (inverse document frequency).
CREATE FUNCTION search_terms(configs regconfig[], question text) RETURNS search_term[]
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
  FROM numbered n WHERE n.place <= 8
$$;
REVOKE ALL ON FUNCTION search_terms(regconfig[], text) FROM PUBLIC;

-- One full-text condition that should bring about `room` rows of `base`: any of the rare words, or two or three less
-- rare ones together. PostgreSQL intersects the words inside the index, so rows that share only common words with
-- the question are never read.
CREATE FUNCTION search_condition(terms search_term[], base float8, room float8) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  clause record;
  chosen int[] := '{}';
  conditions tsquery[] := '{}';
  expected float8 := 0;
BEGIN
  FOR clause IN
    WITH t AS (
      SELECT u.query, u.frequency, 1 << (u.place - 1)::int AS bit
      FROM unnest(terms) WITH ORDINALITY u (config, query, frequency, weight, place)
    )
    -- Words of one question occur together oftener than by chance: four times, for each further word.
    SELECT a.bit AS members, a.query, a.frequency * base AS brings FROM t a
    UNION ALL
    SELECT a.bit | b.bit, a.query && b.query, 4 * a.frequency * b.frequency * base
    FROM t a JOIN t b ON a.bit < b.bit
    UNION ALL
    SELECT a.bit | b.bit | c.bit, a.query && b.query && c.query, 16 * a.frequency * b.frequency * c.frequency * base
    FROM t a JOIN t b ON a.bit < b.bit JOIN t c ON b.bit < c.bit
    ORDER BY 3, 1
  LOOP
    EXIT WHEN expected > 0 AND expected + clause.brings > room;
    chosen := chosen || clause.members;
    conditions := conditions || clause.query;
    expected := expected + clause.brings;
  END LOOP;
  RETURN (
    SELECT string_agg(c.condition::text, ' | ')::tsquery
    FROM unnest(chosen, conditions) c (members, condition)
    -- Without what a shorter clause finds already.
    WHERE NOT EXISTS (SELECT FROM unnest(chosen) o WHERE o <> c.members AND o & c.members = o)
  );
END
$$;
REVOKE ALL ON FUNCTION search_condition(search_term[], float8, float8) FROM PUBLIC;

-- How many chunks a search may choose from, counted no further than `cap`.
CREATE FUNCTION search_scope(tenant text, within bigint[], filter jsonpath, cap int) RETURNS int
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  found bigint;
BEGIN
  IF filter IS NULL THEN
    SELECT count(*) INTO found FROM (
      SELECT FROM chunks c WHERE c.tenant_id = tenant AND c.collection_id = ANY (within) LIMIT cap
    ) few;
  ELSE
    SELECT sum(few.chunks) INTO found FROM (
      SELECT d.chunks FROM documents d
      WHERE d.tenant_id = tenant AND d.collection_id = ANY (within) AND d.metadata @@ filter AND d.chunks > 0
      LIMIT cap
    ) few;
  END IF;
  RETURN least(coalesce(found, 0), cap);
END
$$;
REVOKE ALL ON FUNCTION search_scope(text, bigint[], jsonpath, int) FROM PUBLIC;

-- The chunks nearest to a vector, best first. Reading all rows in scope is exact, and cheaper than the index as long
-- as they are few; the index walks past the rows of others, so it pays where the scope is a large part of the table.
CREATE FUNCTION search_near(
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
    PERFORM set_config('hnsw.ef_search', least(1000, greatest(320, 8 * pool))::text, true),
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
REVOKE ALL ON FUNCTION search_near(text, bigint[], int, halfvec, jsonpath, boolean, int) FROM PUBLIC;

-- The chunks that share the rarest words with a question, best first. A shared word counts what it weighs; among
-- chunks that share the same words, those win in which the words stand close together (ts_rank_cd).
CREATE FUNCTION search_words(
  tenant text, within bigint[], terms search_term[], filter jsonpath, exactly boolean, base float8, room float8,
  pool int
)
RETURNS TABLE (chunk_id uuid, worth float8)
LANGUAGE plpgsql ROWS 40
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  language record;
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
    condition := search_condition(language.terms, base, room);
    CONTINUE WHEN condition IS NULL;
    SELECT string_agg(t.query::text, ' | ')::tsquery INTO any_word FROM unnest(language.terms::search_term[]) t;
    RETURN QUERY EXECUTE
      'WITH found AS MATERIALIZED ('
      || CASE WHEN exactly AND filter IS NOT NULL THEN
      '  SELECT c.chunk_id, c.words FROM documents d '
      '  JOIN chunks c ON c.tenant_id = $1 AND c.collection_id = d.collection_id AND c.document_id = d.document_id '
      '  WHERE d.tenant_id = $1 AND d.collection_id = ANY ($2) AND d.metadata @@ $5 AND c.words @@ $3 LIMIT 5000'
      ELSE
      '  SELECT c.chunk_id, c.words FROM chunks c '
      '  WHERE c.tenant_id = $1 AND c.collection_id = ANY ($2) AND c.words @@ $3 '
      || CASE WHEN filter IS NULL THEN '' ELSE
      '  AND (SELECT d.metadata @@ $5 FROM documents d WHERE d.tenant_id = c.tenant_id '
      '       AND d.collection_id = c.collection_id AND d.document_id = c.document_id) ' END ||
      '  LIMIT 5000' END ||
      '), best AS MATERIALIZED ('
      '  SELECT f.chunk_id, f.words, g.got FROM found f CROSS JOIN LATERAL ('
      '    SELECT sum(t.weight) AS got FROM unnest($4) t WHERE f.words @@ t.query) g '
      '  ORDER BY g.got DESC, f.chunk_id LIMIT 2 * $6) '
      'SELECT b.chunk_id, b.got * (1 + ts_rank_cd(b.words, $7, 33)) FROM best b ORDER BY 2 DESC, 1 LIMIT $6'
      USING tenant, language.ids, condition, language.terms::search_term[], filter, pool, any_word;
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION search_words(text, bigint[], search_term[], jsonpath, boolean, float8, float8, int) FROM PUBLIC;

-- Passages for a question, best first, within one embedding space: by nearness, by words, or both fused by reciprocal
-- rank (RRF, Cormack et al. 2009, k = 60).
--
-- It runs as the owner, because row-level security would keep full-text and jsonb conditions from their indexes;
-- therefore it takes the tenant from the transaction, never from the caller, and each step names it. Collections that
-- are unknown or live in another space bring nothing; the caller has looked them up.
CREATE FUNCTION search_passages(
  wanted text[], space int, question_vector halfvec, question text, mode text, top_k int, filter jsonpath
)
RETURNS TABLE (
  chunk_id uuid, document_id text, collection text, "position" int, text text, heading text, page int, tokens int,
  title text, metadata jsonb, score float8, similarity float8, coverage float8
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
            FROM unnest(terms) t WHERE t.config = o.text_config)
    FROM unnest(ids, scores, similarities) w (chunk_id, score, similarity)
    JOIN chunks c ON c.tenant_id = tenant AND c.chunk_id = w.chunk_id
    JOIN collections o ON o.tenant_id = tenant AND o.collection_id = c.collection_id
    JOIN documents d ON d.tenant_id = tenant AND d.collection_id = c.collection_id AND d.document_id = c.document_id
    ORDER BY w.score DESC, c.chunk_id;
END
$$;
REVOKE ALL ON FUNCTION search_passages(text[], int, halfvec, text, text, int, jsonpath) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION search_passages(text[], int, halfvec, text, text, int, jsonpath)
  TO penstock_gateway, penstock_worker;
