-- Searches for words cost a quarter less: their condition names each word once or twice, not in each clause again, and
-- what it brings is rated without being kept three times. Figures: docs/decisions/0007-answers.md.

-- A full-text condition whose clauses should bring no more than about `room` rows of `base` each: any of the rare words,
-- or two or three less rare ones together; the rarest three where even those bring more. PostgreSQL intersects the words
-- inside the index, so rows that share only common words with the question are never read. `terms`: rarest first, five
-- at most.
CREATE OR REPLACE FUNCTION search_condition(terms search_term[], base float8, room float8) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  n int := coalesce(cardinality(terms), 0);
  term search_term;
  words text[];
  shares float8[];
  chosen text := '';
  seconds text;
  thirds text;
BEGIN
  FOREACH term IN ARRAY coalesce(terms, '{}') LOOP
    words := words || term.query::text;
    shares := shares || term.frequency;
  END LOOP;
  -- Words of one question occur together oftener than by chance: four times, for each further word. A word that is a
  -- clause by itself, and two that are, stand in no longer one.
  FOR a IN 1 .. n LOOP
    IF shares[a] * base <= room THEN
      chosen := chosen || ' | ' || words[a];
      CONTINUE;
    END IF;
    seconds := '';
    FOR b IN a + 1 .. n LOOP
      IF 4 * shares[a] * shares[b] * base <= room THEN
        seconds := seconds || ' | ' || words[b];
        CONTINUE;
      END IF;
      thirds := '';
      FOR c IN b + 1 .. n LOOP
        IF 16 * shares[a] * shares[b] * shares[c] * base <= room THEN
          thirds := thirds || ' | ' || words[c];
        END IF;
      END LOOP;
      IF thirds <> '' THEN
        seconds := seconds || ' | ' || words[b] || ' & (' || substr(thirds, 4) || ')';
      END IF;
    END LOOP;
    IF seconds <> '' THEN
      chosen := chosen || ' | ' || words[a] || ' & (' || substr(seconds, 4) || ')';
    END IF;
  END LOOP;
  RETURN CASE WHEN chosen = '' THEN array_to_string(words[1:3], ' & ') ELSE substr(chosen, 4) END;
END
$$;

-- The chunks that share the rarest words with a question; see 0003 and 0015. `large`: the scope is a good part of the table,
-- or a filter passes many.
CREATE OR REPLACE FUNCTION search_words(
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
    query1 := (rare[1]).query;
    query2 := (rare[2]).query;
    query3 := (rare[3]).query;
    query4 := (rare[4]).query;
    query5 := (rare[5]).query;
    any_word := concat_ws(' | ', query1, query2, query3, query4, query5);
    weight1 := (rare[1]).weight;
    weight2 := (rare[2]).weight;
    weight3 := (rare[3]).weight;
    weight4 := (rare[4]).weight;
    weight5 := (rare[5]).weight;
    -- Planned once, and bound to begin with the words: what they bring of others is little.
    IF large AND filter IS NULL THEN
      RETURN QUERY
        SELECT b.chunk_id, b.sha256, b.got * (1 + ts_rank_cd(b.words, any_word, 33)) FROM (
          SELECT f.chunk_id, f.sha256, f.words,
            coalesce(weight1 * (f.words @@ query1)::int, 0)
            + coalesce(weight2 * (f.words @@ query2)::int, 0)
            + coalesce(weight3 * (f.words @@ query3)::int, 0)
            + coalesce(weight4 * (f.words @@ query4)::int, 0)
            + coalesce(weight5 * (f.words @@ query5)::int, 0) AS got
          FROM (
            SELECT w.chunk_id, w.sha256, w.collection_id, w.document_id, w.words FROM (
              SELECT c.tenant_id, c.collection_id, c.chunk_id, c.sha256, c.document_id, c.words FROM chunks c
              WHERE c.words @@ condition OFFSET 0
            ) w WHERE w.tenant_id = tenant AND w.collection_id = ANY (ours) LIMIT 5000
          ) f
          ORDER BY got DESC, f.chunk_id LIMIT pool
        ) b;
      CONTINUE;
    END IF;
    IF large THEN
      -- The filter is asked in the order of worth and no longer than it takes to fill the pool.
      RETURN QUERY
        SELECT b.chunk_id, b.sha256, b.got * (1 + ts_rank_cd(b.words, any_word, 33)) FROM (
          SELECT r.chunk_id, r.sha256, r.words, r.got FROM (
            SELECT f.*,
              coalesce(weight1 * (f.words @@ query1)::int, 0)
              + coalesce(weight2 * (f.words @@ query2)::int, 0)
              + coalesce(weight3 * (f.words @@ query3)::int, 0)
              + coalesce(weight4 * (f.words @@ query4)::int, 0)
              + coalesce(weight5 * (f.words @@ query5)::int, 0) AS got
            FROM (
              SELECT w.chunk_id, w.sha256, w.collection_id, w.document_id, w.words FROM (
                SELECT c.tenant_id, c.collection_id, c.chunk_id, c.sha256, c.document_id, c.words FROM chunks c
                WHERE c.words @@ condition OFFSET 0
              ) w WHERE w.tenant_id = tenant AND w.collection_id = ANY (ours) LIMIT 5000
            ) f
            ORDER BY got DESC, f.chunk_id OFFSET 0
          ) r WHERE (
            SELECT d.metadata @@ filter FROM documents d
            WHERE d.tenant_id = tenant AND d.collection_id = r.collection_id AND d.document_id = r.document_id)
          LIMIT pool
        ) b;
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
      20 * CASE WHEN filter IS NULL OR scope < 2000 THEN 1 ELSE least(3, 1 / share) END, pool) w
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
