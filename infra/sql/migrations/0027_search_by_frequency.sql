-- A search costs less: it looks its words up instead of reading what ANALYZE keeps, and a walk of the vector index keeps
-- nothing for a second one that hardly ever comes. Figures: docs/decisions/0007-answers.md.

-- How large a share of all chunks holds a word, from a sample; `penstock maintain` takes it anew. The words of all
-- tenants stand in it, so they are hashes, and nobody but the owner reads them. They only order results.
CREATE TABLE word_shares (
  word_hash bigint PRIMARY KEY,
  share real NOT NULL
);
CREATE TABLE word_sample (
  taken_at timestamptz NOT NULL DEFAULT now(),
  chunks float8 NOT NULL
);
-- And how large a share of them is in a collection that holds a thousandth or more. Not a column of collections: an
-- update of all its rows would wait for who writes documents, and they for it.
CREATE TABLE collection_shares (
  collection_id bigint PRIMARY KEY,
  share real NOT NULL
);

-- Over how many vectors a space's index was built, with more care than those get that are added one by one; 0 for the
-- indexes of earlier versions. As long as those are half of all, a search walks less.
ALTER TABLE embedding_spaces ADD COLUMN built bigint NOT NULL DEFAULT 0;

-- Takes the shares of words anew, when there are a tenth more or fewer chunks than last time, or a day has passed.
-- Returns the words kept; null when nothing was due. A word that occurs once in the sample is as rare as one that does not.
CREATE FUNCTION word_shares_refresh() RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  everything float8;
  size bigint;
  kept bigint;
BEGIN
  SELECT greatest(c.reltuples, 0) INTO everything FROM pg_class c WHERE c.oid = 'public.chunks'::regclass;
  PERFORM FROM word_sample s
  WHERE abs(everything - s.chunks) <= s.chunks / 10 AND s.taken_at > now() - interval '1 day';
  IF FOUND OR everything = 0 THEN
    RETURN NULL;
  END IF;
  CREATE TEMP TABLE sampled ON COMMIT DROP AS
    SELECT c.collection_id, c.words FROM chunks c TABLESAMPLE SYSTEM (least(100, 100 * 30000 / everything));
  SELECT count(*) INTO size FROM sampled;
  DELETE FROM word_shares;
  INSERT INTO word_shares (word_hash, share)
  SELECT hashtextextended(s.word, 0), least(1, sum(s.ndoc)::float8 / size)
  FROM ts_stat('SELECT words FROM pg_temp.sampled') s WHERE s.ndoc > 1 GROUP BY 1;
  GET DIAGNOSTICS kept = ROW_COUNT;
  DELETE FROM collection_shares;
  INSERT INTO collection_shares (collection_id, share)
  SELECT d.collection_id, count(*)::float8 / size FROM sampled d GROUP BY 1 HAVING count(*) >= size / 1000.0;
  DROP TABLE sampled;
  DELETE FROM word_sample;
  INSERT INTO word_sample (chunks) VALUES (everything);
  RETURN kept;
END
$$;
REVOKE ALL ON FUNCTION word_shares_refresh() FROM PUBLIC;
SELECT word_shares_refresh();

-- The five rarest words of a question; see 0003.
CREATE OR REPLACE FUNCTION search_terms(configs regconfig[], question text) RETURNS search_term[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
  WITH rated AS (
    SELECT c.config, w.lexeme,
           ('''' || replace(replace(w.lexeme, '\', '\\'), '''', '''''') || '''')::tsquery AS query,
           -- Whatever the sample does not know is rare; where there is no sample, all words are alike.
           coalesce(s.share, CASE WHEN EXISTS (SELECT FROM word_sample) THEN 0.00003 ELSE 0.001 END)::float8 AS frequency
    FROM unnest(configs) c (config) CROSS JOIN unnest(to_tsvector(c.config, question)) w
    LEFT JOIN word_shares s ON s.word_hash = hashtextextended(w.lexeme, 0)
  ), numbered AS (
    SELECT r.*, row_number() OVER (PARTITION BY r.config ORDER BY r.frequency, r.lexeme) AS place FROM rated r
  )
  SELECT array_agg(ROW(n.config, n.query, n.frequency, ln(1 + 1 / n.frequency))::search_term ORDER BY n.config, n.place)
  FROM numbered n WHERE n.place <= 5
$$;

-- One full-text condition that should bring about `room` rows of `base`; see 0003.
CREATE OR REPLACE FUNCTION search_condition(terms search_term[], base float8, room float8) RETURNS tsquery
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
  WITH t AS MATERIALIZED (
    SELECT u.query::text AS query, u.frequency, 1 << (u.place - 1)::int AS bit
    FROM unnest(terms) WITH ORDINALITY u (config, query, frequency, weight, place)
  ), clauses AS (
    -- Words of one question occur together oftener than by chance: four times, for each further word.
    SELECT a.bit AS members, a.query AS condition, a.frequency * base AS brings FROM t a
    UNION ALL
    SELECT a.bit | b.bit, a.query || ' & ' || b.query, 4 * a.frequency * b.frequency * base
    FROM t a JOIN t b ON a.bit < b.bit
    UNION ALL
    SELECT a.bit | b.bit | c.bit, a.query || ' & ' || b.query || ' & ' || c.query,
           16 * a.frequency * b.frequency * c.frequency * base
    FROM t a JOIN t b ON a.bit < b.bit JOIN t c ON b.bit < c.bit
  ), counted AS MATERIALIZED (
    SELECT c.*, sum(c.brings) OVER w AS total, row_number() OVER w AS place FROM clauses c
    WINDOW w AS (ORDER BY c.brings, c.members ROWS UNBOUNDED PRECEDING)
  ), chosen AS MATERIALIZED (
    SELECT c.members, c.condition FROM counted c WHERE c.total <= room OR c.place = 1
  )
  SELECT string_agg(c.condition, ' | ')::tsquery FROM chosen c
  -- Without what a shorter clause finds already.
  WHERE NOT EXISTS (SELECT FROM chosen o WHERE o.members <> c.members AND o.members & c.members = o.members)
$$;

-- How many chunks a search may choose from, counted no further than about `cap`: see 0015.
CREATE OR REPLACE FUNCTION search_scope(tenant text, within bigint[], filter jsonpath, cap int) RETURNS int
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = auto
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

-- About which share of all chunks a filter passes, from a few pages of documents.
CREATE FUNCTION search_share(tenant text, within bigint[], filter jsonpath) RETURNS float8
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  pages int;
BEGIN
  SELECT greatest(c.relpages, 1) INTO pages FROM pg_class c WHERE c.oid = 'public.documents'::regclass;
  RETURN (
    SELECT coalesce(sum(d.chunks) FILTER (
        WHERE d.tenant_id = tenant AND d.collection_id = ANY (within) AND d.metadata @@ filter
      )::float8 / greatest(sum(d.chunks), 1), 0)
    FROM documents d TABLESAMPLE SYSTEM (least(100, 600.0 / pages)) REPEATABLE (0)
  );
END
$$;
REVOKE ALL ON FUNCTION search_share(text, bigint[], jsonpath) FROM PUBLIC;

-- The chunks nearest to a vector, best first; see 0003. `share`: of all chunks, so many may be chosen; the fewer, the
-- longer the walk, because it brings the others too, and the hundredth neighbour is found less surely than the tenth.
-- Measured recall@10 stands in docs/decisions/0007-answers.md.
CREATE FUNCTION search_near(
  tenant text, within bigint[], space int, question_vector halfvec, filter jsonpath, exactly boolean, share float8,
  pool int
)
RETURNS TABLE (chunk_id uuid, similarity float8)
LANGUAGE plpgsql ROWS 40
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  vectors text := 'vectors_' || space;
  width int;
  walk text;
  ours uuid[];
  ids uuid[];
  distances float8[];
BEGIN
  IF exactly AND filter IS NULL THEN
    RETURN QUERY EXECUTE format(
      'SELECT v.chunk_id, -((v.embedding <#> $3) + 0) FROM %I v '
      'WHERE v.tenant_id = $1 AND v.collection_id = ANY ($2) ORDER BY (v.embedding <#> $3) + 0 LIMIT $4', vectors)
      USING tenant, within, question_vector, pool;
    RETURN;
  END IF;
  IF exactly THEN
    SELECT array_agg(c.chunk_id) INTO ours
    FROM (SELECT d.collection_id, d.document_id FROM documents d
          WHERE d.tenant_id = tenant AND d.collection_id = ANY (within) AND d.metadata @@ filter OFFSET 0) d
    JOIN chunks c ON c.tenant_id = tenant AND c.collection_id = d.collection_id AND c.document_id = d.document_id;
    RETURN QUERY EXECUTE format(
      'SELECT v.chunk_id, -((v.embedding <#> $3) + 0) FROM %I v '
      'WHERE v.tenant_id = $1 AND v.chunk_id = ANY ($2) ORDER BY (v.embedding <#> $3) + 0 LIMIT $4', vectors)
      USING tenant, ours, question_vector, pool;
    RETURN;
  END IF;
  -- The filter is a scalar subquery, so that it is asked about each row that the index brings, in the index's order.
  walk := format(
    'SELECT array_agg(n.chunk_id), array_agg(n.distance) FROM ('
    '  SELECT v.chunk_id, v.embedding <#> $3 AS distance FROM %I v '
    '  WHERE v.tenant_id = $1 AND v.collection_id = ANY ($2) '
    || CASE WHEN filter IS NULL THEN '' ELSE
    '  AND (SELECT d.metadata @@ $5 FROM chunks c '
    '       JOIN documents d ON d.tenant_id = c.tenant_id AND d.collection_id = c.collection_id '
    '         AND d.document_id = c.document_id '
    '       WHERE c.tenant_id = v.tenant_id AND c.chunk_id = v.chunk_id) ' END ||
    '  ORDER BY v.embedding <#> $3 LIMIT $4) n', vectors);
  SELECT CASE WHEN 2 * s.built >= c.reltuples THEN 200 ELSE 256 END INTO width
  FROM embedding_spaces s, pg_class c WHERE s.space_id = space AND c.oid = ('public.' || vectors)::regclass;
  -- Long enough that it seldom has to go on: keeping what going on needs costs a sixth of the walk.
  PERFORM set_config('hnsw.iterative_scan', 'off', true),
          set_config('hnsw.ef_search', least(1000, greatest(width / sqrt(share), 6 * pool))::int::text, true);
  EXECUTE walk INTO ids, distances USING tenant, within, question_vector, pool, filter;
  IF coalesce(cardinality(ids), 0) < pool THEN
    PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true),
            set_config('hnsw.max_scan_tuples', '200000', true);
    EXECUTE walk INTO ids, distances USING tenant, within, question_vector, pool, filter;
  END IF;
  -- Relaxed order: sorted again.
  RETURN QUERY SELECT n.id, -n.distance FROM unnest(ids, distances) n (id, distance) ORDER BY n.distance;
END
$$;
REVOKE ALL ON FUNCTION search_near(text, bigint[], int, halfvec, jsonpath, boolean, float8, int) FROM PUBLIC;

-- The chunks that share the rarest words with a question, best first; see 0003 and 0015. `large`: the scope is a good part
-- of the table, or a filter passes many.
DROP FUNCTION search_words(text, bigint[], search_term[], jsonpath, boolean, float8, float8, int);
CREATE FUNCTION search_words(
  tenant text, within bigint[], configs regconfig[], terms search_term[], filter jsonpath, large boolean, base float8,
  room float8, pool int
)
RETURNS TABLE (chunk_id uuid, sha256 bytea, worth float8)
LANGUAGE plpgsql ROWS 40
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  language regconfig;
  ours bigint[] := within;
  rare search_term[] := terms;
  condition tsquery;
  any_word tsquery;
  -- Taken out of the array once: done for each row, it costs more than matching.
  query1 tsquery;
  query2 tsquery;
  query3 tsquery;
  query4 tsquery;
  query5 tsquery;
  weight1 float8;
  weight2 float8;
  weight3 float8;
  weight4 float8;
  weight5 float8;
BEGIN
  FOREACH language IN ARRAY configs LOOP
    IF cardinality(configs) > 1 THEN
      SELECT array_agg(c.collection_id) INTO ours FROM collections c
      WHERE c.tenant_id = tenant AND c.collection_id = ANY (within) AND c.text_config = language;
      SELECT array_agg(t ORDER BY t.frequency) INTO rare FROM unnest(terms) t WHERE t.config = language;
    END IF;
    condition := search_condition(rare, base, room);
    CONTINUE WHEN condition IS NULL;
    SELECT string_agg(t.query::text, ' | ')::tsquery INTO any_word FROM unnest(rare) t;
    query1 := (rare[1]).query;
    query2 := (rare[2]).query;
    query3 := (rare[3]).query;
    query4 := (rare[4]).query;
    query5 := (rare[5]).query;
    weight1 := (rare[1]).weight;
    weight2 := (rare[2]).weight;
    weight3 := (rare[3]).weight;
    weight4 := (rare[4]).weight;
    weight5 := (rare[5]).weight;
    IF large THEN
      -- Planned once, and bound to begin with the words: what they bring of others is little.
      RETURN QUERY
        WITH found AS MATERIALIZED (
          SELECT w.chunk_id, w.sha256, w.collection_id, w.document_id, w.words FROM (
            SELECT c.tenant_id, c.collection_id, c.chunk_id, c.sha256, c.document_id, c.words FROM chunks c
            WHERE c.words @@ condition OFFSET 0
          ) w WHERE w.tenant_id = tenant AND w.collection_id = ANY (ours) LIMIT 5000
        ), rated AS MATERIALIZED (
          SELECT f.*,
            coalesce(weight1 * (f.words @@ query1)::int, 0)
            + coalesce(weight2 * (f.words @@ query2)::int, 0)
            + coalesce(weight3 * (f.words @@ query3)::int, 0)
            + coalesce(weight4 * (f.words @@ query4)::int, 0)
            + coalesce(weight5 * (f.words @@ query5)::int, 0) AS got
          FROM found f ORDER BY got DESC, f.chunk_id
        ), best AS MATERIALIZED (
          -- A filter is asked in the order of worth and no longer than it takes to fill the pool.
          SELECT r.chunk_id, r.sha256, r.words, r.got FROM rated r
          WHERE filter IS NULL OR (
            SELECT d.metadata @@ filter FROM documents d
            WHERE d.tenant_id = tenant AND d.collection_id = r.collection_id AND d.document_id = r.document_id)
          LIMIT pool
        )
        SELECT b.chunk_id, b.sha256, b.got * (1 + ts_rank_cd(b.words, any_word, 33)) FROM best b ORDER BY 3 DESC, 1;
      CONTINUE;
    END IF;
    RETURN QUERY EXECUTE
      'WITH found AS MATERIALIZED ('
      || CASE WHEN filter IS NOT NULL THEN
      '  SELECT c.chunk_id, c.sha256, c.words FROM documents d '
      '  JOIN chunks c ON c.tenant_id = $1 AND c.collection_id = d.collection_id AND c.document_id = d.document_id '
      '  WHERE d.tenant_id = $1 AND d.collection_id = ANY ($2) AND d.metadata @@ $4 AND c.words @@ $3 LIMIT 5000'
      ELSE
      '  SELECT c.chunk_id, c.sha256, c.words FROM chunks c '
      '  WHERE c.tenant_id = $1 AND c.collection_id = ANY ($2) AND c.words @@ $3 LIMIT 5000' END ||
      '), rated AS MATERIALIZED ('
      '  SELECT f.*, '
      '    coalesce($7 * (f.words @@ $8)::int, 0) '
      '    + coalesce($9 * (f.words @@ $10)::int, 0) '
      '    + coalesce($11 * (f.words @@ $12)::int, 0) '
      '    + coalesce($13 * (f.words @@ $14)::int, 0) '
      '    + coalesce($15 * (f.words @@ $16)::int, 0) '
      '    AS got FROM found f ORDER BY got DESC, f.chunk_id), '
      'best AS MATERIALIZED (SELECT r.chunk_id, r.sha256, r.words, r.got FROM rated r LIMIT $5) '
      'SELECT b.chunk_id, b.sha256, b.got * (1 + ts_rank_cd(b.words, $6, 33)) FROM best b ORDER BY 3 DESC, 1'
      USING tenant, ours, condition, filter, pool, any_word,
        weight1, query1, weight2, query2, weight3, query3, weight4, query4, weight5, query5;
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION search_words(text, bigint[], regconfig[], search_term[], jsonpath, boolean, float8, float8, int)
  FROM PUBLIC;

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
-- Planning these statements anew takes longer than running them.
SET plan_cache_mode = force_generic_plan
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
  asked uuid[];
  answers float8[];
BEGIN
  SELECT array_agg(c.collection_id), array_agg(DISTINCT c.text_config), coalesce(sum(s.share), 0)
  INTO within, configs, share
  FROM collections c LEFT JOIN collection_shares s ON s.collection_id = c.collection_id
  WHERE c.tenant_id = tenant AND c.name = ANY (wanted) AND c.space_id = space;
  SELECT greatest(c.reltuples, 1) INTO everything FROM pg_class c WHERE c.oid = 'public.chunks'::regclass;
  -- Beyond that share of the table it does not matter how many there are: the index finds enough of them at once.
  cap := least(20000, greatest(2000, everything / CASE WHEN filter IS NULL THEN 20 ELSE 50 END));
  IF filter IS NOT NULL THEN
    share := search_share(tenant, within, filter);
  END IF;
  -- What is known to be many is not counted.
  scope := CASE WHEN share * everything >= 2 * cap THEN cap ELSE search_scope(tenant, within, filter, cap) END;
  IF within IS NULL OR scope = 0 THEN
    RETURN;
  END IF;
  everything := greatest(everything, scope);
  share := CASE WHEN scope < cap THEN scope / everything ELSE least(1, greatest(share, scope / everything)) END;
  terms := search_terms(configs, question);

  WITH near AS (
    SELECT n.chunk_id, n.similarity, row_number() OVER (ORDER BY n.similarity DESC, n.chunk_id) AS place
    FROM search_near(tenant, within, space, question_vector, filter,
      -- A row that the index visits costs about eight times one that a scan reads; through a document, three times.
      scope < cap AND scope * (CASE WHEN filter IS NULL THEN 1 ELSE 3 END) <= 8 * greatest(200, pool / share),
      share, pool) n
    WHERE mode <> 'text'
  ), worded AS (
    SELECT w.chunk_id, w.sha256, row_number() OVER (ORDER BY w.worth DESC, w.chunk_id) AS place
    FROM search_words(tenant, within, configs, terms, filter,
      CASE WHEN filter IS NULL THEN scope >= cap ELSE scope >= 2000 END,
      CASE WHEN scope < 2000 OR (filter IS NULL AND scope < cap) THEN scope ELSE everything END,
      60 * CASE WHEN filter IS NULL OR scope < 2000 THEN 1 ELSE least(3, 1 / share) END, pool) w
    WHERE mode <> 'vector'
  ), fused AS (
    SELECT coalesce(n.chunk_id, w.chunk_id) AS chunk_id, n.similarity,
           coalesce(w.sha256, (SELECT c.sha256 FROM chunks c WHERE c.tenant_id = tenant AND c.chunk_id = n.chunk_id))
             AS sha256,
           coalesce(1.0 / (60 + n.place), 0) + coalesce(1.0 / (60 + w.place), 0) AS score
    FROM near n FULL JOIN worded w ON w.chunk_id = n.chunk_id
  ), distinct_texts AS (
    -- The same text in two documents is one passage: the better placed of them.
    SELECT DISTINCT ON (f.sha256) f.chunk_id, f.score, f.similarity FROM fused f
    ORDER BY f.sha256, f.score DESC, f.chunk_id
  ), best AS (
    SELECT * FROM distinct_texts d ORDER BY d.score DESC, d.chunk_id LIMIT top_k
  )
  SELECT array_agg(b.chunk_id), array_agg(b.score), array_agg(b.similarity) INTO ids, scores, similarities FROM best b;

  IF question_vector IS NOT NULL AND array_position(similarities, NULL) IS NOT NULL THEN
    -- Passages that were found by their words alone: how near are they?
    EXECUTE format(
      'SELECT array_agg(v.chunk_id), array_agg(-(v.embedding <#> $3)) FROM %I v '
      'WHERE v.tenant_id = $1 AND v.chunk_id = ANY ($2)', 'vectors_' || space)
      INTO asked, answers USING tenant, ids, question_vector;
    FOR at IN 1 .. cardinality(ids) LOOP
      similarities[at] := coalesce(similarities[at], answers[array_position(asked, ids[at])]);
    END LOOP;
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

-- Searches by index and exactly, and keeps which part of the ten nearest the index found; null where there is no index.
-- As the owner, like `search_passages`; the tenant comes from the transaction.
CREATE OR REPLACE FUNCTION search_recall(wanted text[], space int, question_vector halfvec) RETURNS real
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
  tenant text := app_tenant();
  within bigint[];
  share float8;
  truth uuid[];
  found real;
BEGIN
  SELECT array_agg(c.collection_id), greatest(coalesce(sum(s.share), 0), 0.05) INTO within, share
  FROM collections c LEFT JOIN collection_shares s ON s.collection_id = c.collection_id
  WHERE c.tenant_id = tenant AND c.name = ANY (wanted) AND c.space_id = space;
  IF within IS NULL OR to_regclass('public.vectors_' || space || '_hnsw') IS NULL THEN
    RETURN NULL;
  END IF;
  SELECT array_agg(n.chunk_id) INTO truth FROM search_near(tenant, within, space, question_vector, NULL, true, 1, 10) n;
  IF truth IS NULL THEN
    RETURN NULL;
  END IF;
  SELECT count(*)::real / cardinality(truth) INTO found FROM (
    SELECT n.chunk_id FROM search_near(tenant, within, space, question_vector, NULL, false, share, 30) n
    ORDER BY n.similarity DESC LIMIT 10
  ) near WHERE near.chunk_id = ANY (truth);
  INSERT INTO recall_samples (space_id, recall) VALUES (space, found);
  RETURN found;
END
$$;

DROP FUNCTION search_near(text, bigint[], int, halfvec, jsonpath, boolean, int);
