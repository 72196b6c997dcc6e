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

-- The words of a question as lexemes of one language, with what each is worth: the logarithm of how rare it is among
-- all chunks, by the statistics that ANALYZE keeps. Words that it does not list are rarer than all that it lists.
CREATE FUNCTION search_terms(config regconfig, question text, at_most int)
RETURNS TABLE (lexeme text, frequency float4, weight float4)
LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
  WITH words AS (
    SELECT w.lexeme FROM unnest(to_tsvector(config, question)) w
  ), known AS (
    SELECT s.most_common_elems::text::text[] AS elems, s.most_common_elem_freqs AS freqs
    FROM pg_stats s
    WHERE s.schemaname = 'public' AND s.tablename = 'chunks' AND s.attname = 'words'
  ), rated AS (
    -- After the frequencies of the elements stand their minimum and maximum.
    SELECT w.lexeme, coalesce(k.freqs[array_position(k.elems, w.lexeme)],
                              k.freqs[cardinality(k.elems) + 1] / 2, 0.001)::float4 AS frequency
    FROM words w LEFT JOIN known k ON true
  )
  SELECT r.lexeme, r.frequency, ln(1 + 1 / greatest(r.frequency, 1e-6))::float4
  FROM rated r ORDER BY 2, 1 LIMIT at_most
$$;
REVOKE ALL ON FUNCTION search_terms(regconfig, text, int) FROM PUBLIC;

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
-- as there are few; the index pays when the scope is a large part of the table, because it walks past all others.
CREATE FUNCTION search_near(
  tenant text, within bigint[], space int, question_vector halfvec, filter jsonpath, scope int, cap int, pool int
)
RETURNS TABLE (chunk_id uuid, similarity float8)
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  vectors text := 'vectors_' || space;
  everything float8;
  exactly boolean;
BEGIN
  SELECT greatest(c.reltuples, scope) INTO everything FROM pg_class c
  WHERE c.oid = to_regclass('public.' || quote_ident(vectors));
  -- Rows that the index must visit to find `pool` of ours, against rows that a scan reads. A visit costs about
  -- eight times a read, three times one that goes through a document.
  exactly := scope < cap
    AND scope * (CASE WHEN filter IS NULL THEN 1 ELSE 3 END) <= 8 * greatest(200, pool * everything / greatest(scope, 1));
  IF exactly AND filter IS NULL THEN
    RETURN QUERY EXECUTE format(
      'SELECT v.chunk_id, -((v.embedding <#> $3) + 0) FROM %I v '
      'WHERE v.tenant_id = $1 AND v.collection_id = ANY ($2) ORDER BY (v.embedding <#> $3) + 0 LIMIT $4', vectors)
      USING tenant, within, question_vector, pool;
  ELSIF exactly THEN
    RETURN QUERY EXECUTE format(
      'SELECT v.chunk_id, -((v.embedding <#> $3) + 0) '
      'FROM documents d '
      'JOIN chunks c ON c.tenant_id = d.tenant_id AND c.collection_id = d.collection_id '
      '  AND c.document_id = d.document_id '
      'JOIN %I v ON v.tenant_id = c.tenant_id AND v.chunk_id = c.chunk_id '
      'WHERE d.tenant_id = $1 AND d.collection_id = ANY ($2) AND d.metadata @@ $5 '
      'ORDER BY (v.embedding <#> $3) + 0 LIMIT $4', vectors)
      USING tenant, within, question_vector, pool, filter;
  ELSE
    PERFORM set_config('hnsw.ef_search', least(1000, greatest(100, 2 * pool))::text, true),
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
REVOKE ALL ON FUNCTION search_near(text, bigint[], int, halfvec, jsonpath, int, int, int) FROM PUBLIC;

-- The chunks that share the rarest words with a question, best first. A shared word counts what it is worth; among
-- chunks that share the same words, those win in which the words stand close together (ts_rank_cd).
CREATE FUNCTION search_words(
  tenant text, within bigint[], question text, filter jsonpath, scope int, cap int, pool int
)
RETURNS TABLE (chunk_id uuid, worth float8)
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  language record;
  everything float8;
  asked tsquery[];
  weights float4[];
  any_word tsquery;
BEGIN
  SELECT greatest(c.reltuples, 0) INTO everything FROM pg_class c WHERE c.oid = 'public.chunks'::regclass;
  FOR language IN
    SELECT c.text_config AS config, array_agg(c.collection_id) AS ids FROM collections c
    WHERE c.tenant_id = tenant AND c.collection_id = ANY (within) GROUP BY c.text_config
  LOOP
    -- Common words bring many rows and say little: they are left out once 20,000 rows would be read.
    SELECT array_agg(t.query ORDER BY t.place), array_agg(t.weight ORDER BY t.place),
           string_agg(t.query::text, ' | ')::tsquery
    INTO asked, weights, any_word
    FROM (
      SELECT ('''' || replace(replace(s.lexeme, '\', '\\'), '''', '''''') || '''')::tsquery AS query, s.weight,
             row_number() OVER (ORDER BY s.frequency, s.lexeme) AS place,
             sum(s.frequency * everything) OVER (ORDER BY s.frequency, s.lexeme) AS read_rows
      FROM search_terms(language.config, question, 24) s
    ) t
    WHERE t.place = 1 OR t.read_rows <= 20000 OR scope < cap;
    CONTINUE WHEN asked IS NULL;
    IF scope < cap AND filter IS NULL THEN
      RETURN QUERY
        SELECT r.chunk_id, r.got * (1 + r.close) FROM (
          SELECT c.chunk_id, (SELECT sum(q.weight) FROM unnest(asked, weights) q (query, weight) WHERE c.words @@ q.query) AS got,
                 ts_rank_cd(c.words, any_word, 33) AS close
          FROM chunks c
          WHERE c.tenant_id = tenant AND c.collection_id = ANY (language.ids) AND c.words @@ any_word
        ) r ORDER BY 2 DESC, 1 LIMIT pool;
    ELSE
      RETURN QUERY
        WITH hits AS MATERIALIZED (
          SELECT c.chunk_id, sum(q.weight) AS got
          FROM unnest(asked, weights) q (query, weight)
          JOIN chunks c ON c.words @@ q.query
          WHERE c.tenant_id = tenant AND c.collection_id = ANY (language.ids)
          GROUP BY c.chunk_id
        ), best AS MATERIALIZED (
          SELECT h.chunk_id, h.got, c.words FROM hits h
          JOIN chunks c ON c.tenant_id = tenant AND c.chunk_id = h.chunk_id
          WHERE filter IS NULL OR (
            SELECT d.metadata @@ filter FROM documents d
            WHERE d.tenant_id = c.tenant_id AND d.collection_id = c.collection_id AND d.document_id = c.document_id)
          ORDER BY h.got DESC, h.chunk_id LIMIT 2 * pool
        )
        SELECT b.chunk_id, b.got * (1 + ts_rank_cd(b.words, any_word, 33)) FROM best b ORDER BY 2 DESC, 1 LIMIT pool;
    END IF;
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION search_words(text, bigint[], text, jsonpath, int, int, int) FROM PUBLIC;

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
AS $$
DECLARE
  tenant text := app_tenant();
  cap constant int := 20000;
  pool int := least(greatest(4 * top_k, 40), 400);
  within bigint[];
  scope int;
  ids uuid[];
  scores float8[];
  similarities float8[];
BEGIN
  SELECT array_agg(c.collection_id) INTO within FROM collections c
  WHERE c.tenant_id = tenant AND c.name = ANY (wanted) AND c.space_id = space;
  scope := search_scope(tenant, within, filter, cap);
  IF within IS NULL OR scope = 0 THEN
    RETURN;
  END IF;

  WITH near AS (
    SELECT n.chunk_id, n.similarity, row_number() OVER (ORDER BY n.similarity DESC, n.chunk_id) AS place
    FROM search_near(tenant, within, space, question_vector, filter, scope, cap, pool) n
    WHERE mode <> 'text'
  ), worded AS (
    SELECT w.chunk_id, row_number() OVER (ORDER BY w.worth DESC, w.chunk_id) AS place
    FROM search_words(tenant, within, question, filter, scope, cap, pool) w
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
           (SELECT (sum(t.weight) FILTER (WHERE c.words @@ ('''' || replace(replace(t.lexeme, '\', '\\'), '''', '''''') || '''')::tsquery)
                    / sum(t.weight))::float8
            FROM search_terms(o.text_config, question, 24) t)
    FROM unnest(ids, scores, similarities) w (chunk_id, score, similarity)
    JOIN chunks c ON c.tenant_id = tenant AND c.chunk_id = w.chunk_id
    JOIN collections o ON o.tenant_id = tenant AND o.collection_id = c.collection_id
    JOIN documents d ON d.tenant_id = tenant AND d.collection_id = c.collection_id AND d.document_id = c.document_id
    ORDER BY w.score DESC, c.chunk_id;
END
$$;
REVOKE ALL ON FUNCTION search_passages(text[], int, halfvec, text, text, int, jsonpath) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION search_passages(text[], int, halfvec, text, text, int, jsonpath) TO penstock_gateway, penstock_worker;
