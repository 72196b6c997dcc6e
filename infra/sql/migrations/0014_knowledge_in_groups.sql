-- Knowledge, written in groups: vectors of many documents in one statement.

-- Writes vectors into the table of an embedding space: rows of several collections and tenants, each under its own name.
CREATE FUNCTION vectors_add(
  space int, owning_tenants text[], collections bigint[], chunk_ids uuid[], embeddings halfvec[]
)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  EXECUTE format(
    'INSERT INTO public.%I (tenant_id, collection_id, chunk_id, embedding) '
    'SELECT * FROM unnest($1, $2, $3, $4) AS g (tenant_id, collection_id, chunk_id, embedding) ORDER BY 1, 3',
    'vectors_' || space)
  USING owning_tenants, collections, chunk_ids, embeddings;
END
$$;
REVOKE ALL ON FUNCTION vectors_add(int, text[], bigint[], uuid[], halfvec[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION vectors_add(int, text[], bigint[], uuid[], halfvec[]) TO penstock_worker;

-- Half-precision numbers do not compress; trying costs more than a row.
ALTER TABLE embedding_cache ALTER COLUMN embedding SET STORAGE EXTERNAL;
