-- Filters that pass few, and tables that are large or were never analysed, cost a search no more than they must.

-- About which share of all chunks a filter passes, from six pages of documents, evenly apart. By their numbers: TABLESAMPLE
-- goes through the number of every page, and where the table was never analysed, 0027 took all of it for a sample.
CREATE OR REPLACE FUNCTION search_share(tenant text, within bigint[], filter jsonpath) RETURNS float8
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  pages bigint := pg_relation_size('public.documents') / current_setting('block_size')::int;
  page bigint;
  passing bigint;
  chunks bigint;
  all_passing bigint := 0;
  all_chunks bigint := 0;
BEGIN
  FOR n IN 0 .. least(pages, 6) - 1 LOOP
    page := (2 * n + 1) * pages / (2 * least(pages, 6));
    SELECT coalesce(sum(d.chunks) FILTER (
             WHERE d.tenant_id = tenant AND d.collection_id = ANY (within) AND d.metadata @@ filter), 0),
           coalesce(sum(d.chunks), 0)
    INTO passing, chunks
    FROM documents d
    WHERE d.ctid >= ('(' || page || ',0)')::tid AND d.ctid < ('(' || page + 1 || ',0)')::tid;
    all_passing := all_passing + passing;
    all_chunks := all_chunks + chunks;
  END LOOP;
  RETURN all_passing::float8 / greatest(all_chunks, 1);
END
$$;

-- The chunks nearest to a vector, best first; see 0003. `share`: of all chunks, so many may be chosen; the fewer, the
-- longer the walk, because it brings the others too, and the hundredth neighbour is found less surely than the tenth.
-- Measured recall@10 stands in docs/decisions/0007-answers.md.
CREATE OR REPLACE FUNCTION search_near(
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
  ef int;
  once boolean;
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
  ef := least(1000, greatest(width / sqrt(share), 6 * pool));
  -- Mostly long enough, so that it need not go on: keeping what going on needs costs a sixth of a walk.
  once := ef * share >= 1.5 * pool;
  PERFORM set_config('hnsw.ef_search', ef::text, true),
          set_config('hnsw.iterative_scan', CASE WHEN once THEN 'off' ELSE 'relaxed_order' END, true),
          set_config('hnsw.max_scan_tuples', '200000', true);
  EXECUTE walk INTO ids, distances USING tenant, within, question_vector, pool, filter;
  IF once AND coalesce(cardinality(ids), 0) < pool THEN
    PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true);
    EXECUTE walk INTO ids, distances USING tenant, within, question_vector, pool, filter;
  END IF;
  -- Relaxed order: sorted again.
  RETURN QUERY SELECT n.id, -n.distance FROM unnest(ids, distances) n (id, distance) ORDER BY n.distance;
END
$$;
