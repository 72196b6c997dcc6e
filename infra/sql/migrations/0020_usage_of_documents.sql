-- What embedding each document has cost, from the same booking as the tenant's usage; it stays as long as the document's row,
-- which a delete leaves.
CREATE TABLE document_usage (
  tenant_id text NOT NULL,
  collection_id bigint NOT NULL,
  document_id text NOT NULL,
  embedded_tokens bigint NOT NULL,
  cost_micros float8 NOT NULL,
  PRIMARY KEY (tenant_id, collection_id, document_id),
  FOREIGN KEY (tenant_id, collection_id) REFERENCES collections ON DELETE CASCADE
);
SELECT secure_table('document_usage');
GRANT SELECT, INSERT, UPDATE, DELETE ON document_usage TO penstock_worker;

-- A document whose row goes is named nowhere any more.
CREATE FUNCTION document_usage_forget() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  DELETE FROM document_usage u USING gone g
  WHERE u.tenant_id = g.tenant_id AND u.collection_id = g.collection_id AND u.document_id = g.document_id;
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION document_usage_forget() FROM PUBLIC;
CREATE TRIGGER document_usage_forget AFTER DELETE ON documents
  REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION document_usage_forget();

-- The next chunks of a collection that have no vector in a space, in the order of their ids; with whose they are.
DROP FUNCTION reembed_missing(text, bigint, int, uuid, int);
CREATE FUNCTION reembed_missing(owning_tenant text, collection bigint, space int, behind uuid, most int)
RETURNS TABLE (chunk_id uuid, document_id text, text text, tokens int)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT c.chunk_id, c.document_id, c.text, c.tokens FROM chunks c '
    'WHERE c.tenant_id = $1 AND c.collection_id = $2 AND c.chunk_id > $3 AND NOT EXISTS ('
    '  SELECT FROM %I v WHERE v.tenant_id = $1 AND v.chunk_id = c.chunk_id) '
    'ORDER BY c.chunk_id LIMIT $4', 'vectors_' || space)
    USING owning_tenant, collection, behind, most;
END
$$;
REVOKE ALL ON FUNCTION reembed_missing(text, bigint, int, uuid, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reembed_missing(text, bigint, int, uuid, int) TO penstock_worker;

-- Vectors of collections that are searched in another space by now; so many at most are deleted, or only counted.
-- Collections are held as their writers hold them, so that none of them is switched back meanwhile.
CREATE FUNCTION space_leftovers(space int, most int, removing boolean) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  found bigint;
BEGIN
  IF NOT removing THEN
    EXECUTE format(
      'SELECT count(*) FROM public.%I v JOIN collections c USING (tenant_id, collection_id) WHERE c.space_id <> $1',
      'vectors_' || space) INTO found USING space;
    RETURN found;
  END IF;
  PERFORM pg_advisory_xact_lock_shared(
    hashtextextended('penstock.collection.' || c.tenant_id || '.' || c.collection_id, 0))
  FROM (SELECT tenant_id, collection_id FROM collections WHERE space_id <> space ORDER BY 1, 2) c;
  EXECUTE format(
    'DELETE FROM public.%1$I WHERE (tenant_id, chunk_id) IN ('
    '  SELECT v.tenant_id, v.chunk_id FROM public.%1$I v JOIN collections c USING (tenant_id, collection_id)'
    '  WHERE c.space_id <> $1 LIMIT $2)', 'vectors_' || space) USING space, most;
  GET DIAGNOSTICS found = ROW_COUNT;
  RETURN found;
END
$$;
REVOKE ALL ON FUNCTION space_leftovers(int, int, boolean) FROM PUBLIC;
