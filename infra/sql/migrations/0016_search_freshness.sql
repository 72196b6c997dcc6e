-- Searches stay fast while documents arrive: what is not merged into a GIN index yet is read by every search from end to
-- end. At PostgreSQL's 4 MB that cost 20 to 30 ms per search, measured after a load; now it is merged 32 times as often.
ALTER INDEX chunks_words SET (gin_pending_list_limit = 128);
ALTER INDEX documents_metadata SET (gin_pending_list_limit = 128);

-- The chunks nearest to a vector, best first; see 0003. A filter takes away most of what a walk
-- brings, so the walk is longer. Measured recall@10 stands in docs/decisions/0007-answers.md.
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
    PERFORM set_config('hnsw.ef_search', least(1000, greatest(CASE WHEN filter IS NULL THEN 256 ELSE 800 END, 6 * pool))::text, true),
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
