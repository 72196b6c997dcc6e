-- A question's look at the cache and its search are one round trip each instead of the four of a transaction: these
-- functions say for whom they act, as the transaction's first statement does elsewhere. They run as their caller, so
-- they may no more than the caller may.

-- Says for whom a transaction acts that has not said so yet; one that acts for somebody else stays with it.
CREATE FUNCTION act_as(tenant text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
  IF coalesce(pg_catalog.current_setting('app.tenants', true), '') NOT IN ('', tenant) THEN
    RAISE insufficient_privilege USING MESSAGE = 'the transaction acts for another tenant';
  END IF;
  PERFORM pg_catalog.set_config('app.tenants', tenant, true);
END
$$;
REVOKE ALL ON FUNCTION act_as(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION act_as(text) TO penstock_gateway, penstock_worker;

CREATE FUNCTION prepare_for(tenant text, wanted text[], question_sha256 bytea)
RETURNS TABLE (
  name text, space_id int, generation bigint, settings jsonb, model text, dimensions int, sha256 bytea, query_id uuid,
  result jsonb
)
LANGUAGE plpgsql
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
    SELECT n.name, n.space_id, n.generation, n.settings, n.model, n.dimensions, k.sha256, a.query_id, a.result
    FROM named n CROSS JOIN key k
    LEFT JOIN public.answer_cache a
      ON a.tenant_id = tenant AND a.key_sha256 = k.sha256 AND a.made_at > now() - interval '1 day';
END
$$;
REVOKE ALL ON FUNCTION prepare_for(text, text[], bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prepare_for(text, text[], bytea) TO penstock_worker;

CREATE FUNCTION search_for(
  tenant text, wanted text[], space int, question_vector halfvec, question text, mode text, top_k int, filter jsonpath,
  around int
)
RETURNS TABLE (
  chunk_id uuid, document_id text, collection text, "position" int, text text, heading text, page int, tokens int,
  title text, metadata jsonb, score float8, similarity float8, coverage float8, beside jsonb
)
LANGUAGE plpgsql
AS $$
BEGIN
  PERFORM public.act_as(tenant);
  RETURN QUERY SELECT * FROM public.search_passages(
    wanted, space, question_vector, question, mode, top_k, filter, around);
END
$$;
REVOKE ALL ON FUNCTION search_for(text, text[], int, halfvec, text, text, int, jsonpath, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION search_for(text, text[], int, halfvec, text, text, int, jsonpath, int)
  TO penstock_gateway, penstock_worker;

-- How many chunks a search may choose from, counted no further than about `cap`: see 0015. What ANALYZE knows to be large
-- is not counted.
CREATE OR REPLACE FUNCTION search_scope(tenant text, within bigint[], filter jsonpath, cap int) RETURNS int
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
SET plan_cache_mode = auto
AS $$
DECLARE
  enough int;
  seen bigint;
  found bigint;
  estimate float8;
BEGIN
  IF filter IS NULL THEN
    SELECT sum(m.share) * (SELECT c.reltuples FROM pg_class c WHERE c.oid = 'public.chunks'::regclass) INTO estimate
    FROM pg_stats s, unnest(s.most_common_vals::text::bigint[], s.most_common_freqs) m (collection_id, share)
    WHERE s.schemaname = 'public' AND s.tablename = 'chunks' AND s.attname = 'collection_id'
      AND m.collection_id = ANY (within);
    IF estimate >= 2 * cap THEN
      RETURN cap;
    END IF;
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

-- The five rarest words of a question find what six found; see 0003.
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
  FROM numbered n WHERE n.place <= 5
$$;

-- The chunks that share the rarest words with a question, best first; see 0003 and 0015. `large`: the scope is a good part
-- of the table, or a filter passes many.
DROP FUNCTION search_words(text, bigint[], search_term[], jsonpath, boolean, float8, float8, int);
CREATE FUNCTION search_words(
  tenant text, within bigint[], terms search_term[], filter jsonpath, large boolean, base float8, room float8,
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
    IF large THEN
      -- Planned once, and bound to begin with the words: what they bring of others is little.
      RETURN QUERY
        WITH found AS MATERIALIZED (
          SELECT w.chunk_id, w.collection_id, w.document_id, w.words FROM (
            SELECT c.tenant_id, c.collection_id, c.chunk_id, c.document_id, c.words FROM chunks c
            WHERE c.words @@ condition OFFSET 0
          ) w WHERE w.tenant_id = tenant AND w.collection_id = ANY (language.ids) LIMIT 5000
        ), rated AS MATERIALIZED (
          SELECT f.*,
            coalesce((rare[1]).weight * (f.words @@ (rare[1]).query)::int, 0)
            + coalesce((rare[2]).weight * (f.words @@ (rare[2]).query)::int, 0)
            + coalesce((rare[3]).weight * (f.words @@ (rare[3]).query)::int, 0)
            + coalesce((rare[4]).weight * (f.words @@ (rare[4]).query)::int, 0)
            + coalesce((rare[5]).weight * (f.words @@ (rare[5]).query)::int, 0) AS got
          FROM found f ORDER BY got DESC, f.chunk_id
        ), best AS MATERIALIZED (
          -- A filter is asked in the order of worth and no longer than it takes to fill the pool.
          SELECT r.chunk_id, r.words, r.got FROM rated r
          WHERE filter IS NULL OR (
            SELECT d.metadata @@ filter FROM documents d
            WHERE d.tenant_id = tenant AND d.collection_id = r.collection_id AND d.document_id = r.document_id)
          LIMIT pool
        )
        SELECT b.chunk_id, b.got * (1 + ts_rank_cd(b.words, any_word, 33)) FROM best b ORDER BY 2 DESC, 1;
      CONTINUE;
    END IF;
    RETURN QUERY EXECUTE
      'WITH found AS MATERIALIZED ('
      || CASE WHEN filter IS NOT NULL THEN
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
      '    AS got FROM found f ORDER BY got DESC, f.chunk_id), '
      'best AS MATERIALIZED (SELECT r.chunk_id, r.words, r.got FROM rated r LIMIT $5) '
      'SELECT b.chunk_id, b.got * (1 + ts_rank_cd(b.words, $6, 33)) FROM best b ORDER BY 2 DESC, 1'
      USING tenant, language.ids, condition, filter, pool, any_word,
        (rare[1]).weight, (rare[1]).query,
        (rare[2]).weight, (rare[2]).query,
        (rare[3]).weight, (rare[3]).query,
        (rare[4]).weight, (rare[4]).query,
        (rare[5]).weight, (rare[5]).query;
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION search_words(text, bigint[], search_term[], jsonpath, boolean, float8, float8, int) FROM PUBLIC;

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
    FROM search_words(tenant, within, terms, filter, CASE WHEN filter IS NULL THEN scope >= cap ELSE scope >= 2000 END,
      CASE WHEN scope < 2000 OR (filter IS NULL AND scope < cap) THEN scope ELSE everything END,
      120 * CASE WHEN filter IS NULL OR scope < 2000 THEN 1 ELSE least(3, 1 / share) END, pool) w
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
