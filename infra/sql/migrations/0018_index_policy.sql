-- A space's vector index is built when the space outgrows exact search, and put off during a backfill.
ALTER TABLE embedding_spaces
  ADD COLUMN index_policy text NOT NULL DEFAULT 'auto' CHECK (index_policy IN ('auto', 'deferred'));

-- Vectors of a space, counted no further than a cap.
CREATE FUNCTION space_rows(space int, cap int) RETURNS int
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  found int;
BEGIN
  EXECUTE format('SELECT count(*) FROM (SELECT FROM public.%I LIMIT $1) few', 'vectors_' || space) INTO found USING cap;
  RETURN found;
END
$$;
REVOKE ALL ON FUNCTION space_rows(int, int) FROM PUBLIC;

-- Finds or makes an embedding space with its table vectors_<space_id>, without a vector index; safe to call at the same time from many places.
CREATE OR REPLACE FUNCTION space_ensure(space_provider text, space_model text, space_dimensions int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  found int;
  target text;
BEGIN
  SELECT space_id INTO found FROM embedding_spaces
  WHERE provider = space_provider AND model = space_model AND dimensions = space_dimensions;
  IF found IS NOT NULL THEN
    RETURN found;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('penstock.space_ensure', 0));
  INSERT INTO embedding_spaces (provider, model, dimensions)
  VALUES (space_provider, space_model, space_dimensions)
  ON CONFLICT (provider, model, dimensions) DO NOTHING
  RETURNING space_id INTO found;
  IF found IS NULL THEN
    SELECT space_id INTO found FROM embedding_spaces
    WHERE provider = space_provider AND model = space_model AND dimensions = space_dimensions;
    RETURN found;
  END IF;
  target := 'vectors_' || found;
  EXECUTE format(
    'CREATE TABLE public.%I ('
    '  tenant_id text NOT NULL,'
    '  collection_id bigint NOT NULL,'
    '  chunk_id uuid NOT NULL,'
    '  embedding halfvec(%s) NOT NULL,'
    '  PRIMARY KEY (tenant_id, chunk_id),'
    '  FOREIGN KEY (tenant_id, chunk_id) REFERENCES chunks ON DELETE CASCADE)',
    target, space_dimensions);
  EXECUTE format('CREATE INDEX %I ON %I (tenant_id, collection_id)', target || '_collection', target);
  PERFORM secure_table(target::regclass);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO penstock_worker', target);
  EXECUTE format('GRANT SELECT ON %I TO penstock_gateway', target);
  RETURN found;
END
$$;

-- Another embedding model for a collection: how much there is to do, what is missing, and vectors for it.

-- Chunks of a collection, their tokens, and how many of both have no vector in a space yet.
CREATE FUNCTION reembed_size(owning_tenant text, collection bigint, space int)
RETURNS TABLE (chunks bigint, tokens bigint, missing bigint, missing_tokens bigint)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT count(*), coalesce(sum(c.tokens), 0)::bigint, count(*) FILTER (WHERE v.chunk_id IS NULL), '
    '       coalesce(sum(c.tokens) FILTER (WHERE v.chunk_id IS NULL), 0)::bigint '
    'FROM chunks c LEFT JOIN %I v ON v.tenant_id = c.tenant_id AND v.chunk_id = c.chunk_id '
    'WHERE c.tenant_id = $1 AND c.collection_id = $2', 'vectors_' || space)
    USING owning_tenant, collection;
END
$$;
REVOKE ALL ON FUNCTION reembed_size(text, bigint, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reembed_size(text, bigint, int) TO penstock_worker;

-- The next chunks of a collection that have no vector in a space, in the order of their ids.
CREATE FUNCTION reembed_missing(owning_tenant text, collection bigint, space int, behind uuid, most int)
RETURNS TABLE (chunk_id uuid, text text, tokens int)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT c.chunk_id, c.text, c.tokens FROM chunks c '
    'WHERE c.tenant_id = $1 AND c.collection_id = $2 AND c.chunk_id > $3 AND NOT EXISTS ('
    '  SELECT FROM %I v WHERE v.tenant_id = $1 AND v.chunk_id = c.chunk_id) '
    'ORDER BY c.chunk_id LIMIT $4', 'vectors_' || space)
    USING owning_tenant, collection, behind, most;
END
$$;
REVOKE ALL ON FUNCTION reembed_missing(text, bigint, int, uuid, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reembed_missing(text, bigint, int, uuid, int) TO penstock_worker;

-- Vectors of stored chunks; a chunk that was deleted meanwhile, or has its vector already, is left out.
CREATE FUNCTION reembed_add(space int, owning_tenant text, collection bigint, chunk_ids uuid[], embeddings halfvec[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  EXECUTE format(
    'INSERT INTO %I (tenant_id, collection_id, chunk_id, embedding) '
    'SELECT c.tenant_id, c.collection_id, c.chunk_id, g.embedding '
    'FROM (SELECT k.tenant_id, k.collection_id, k.chunk_id FROM chunks k '
    '      WHERE k.tenant_id = $1 AND k.collection_id = $2 AND k.chunk_id = ANY ($3) '
    '      ORDER BY k.chunk_id FOR KEY SHARE) c '
    'JOIN unnest($3, $4) AS g (chunk_id, embedding) ON g.chunk_id = c.chunk_id '
    'ON CONFLICT DO NOTHING', 'vectors_' || space)
    USING owning_tenant, collection, chunk_ids, embeddings;
END
$$;
REVOKE ALL ON FUNCTION reembed_add(int, text, bigint, uuid[], halfvec[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reembed_add(int, text, bigint, uuid[], halfvec[]) TO penstock_worker;

-- How much of the exact result searches through a vector index found, on a sample of live queries.
CREATE TABLE recall_samples (
  space_id int NOT NULL REFERENCES embedding_spaces,
  taken_at timestamptz NOT NULL DEFAULT now(),
  recall real NOT NULL
);
CREATE INDEX recall_samples_by_age ON recall_samples (taken_at);

-- Searches by index and exactly, and keeps which part of the ten nearest the index found; null where there is no index.
-- As the owner, like `search_passages`; the tenant comes from the transaction.
CREATE FUNCTION search_recall(wanted text[], space int, question_vector halfvec) RETURNS real
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
  tenant text := app_tenant();
  within bigint[];
  truth uuid[];
  found real;
BEGIN
  SELECT array_agg(c.collection_id) INTO within FROM collections c
  WHERE c.tenant_id = tenant AND c.name = ANY (wanted) AND c.space_id = space;
  IF within IS NULL OR to_regclass('public.vectors_' || space || '_hnsw') IS NULL THEN
    RETURN NULL;
  END IF;
  SELECT array_agg(n.chunk_id) INTO truth FROM search_near(tenant, within, space, question_vector, NULL, true, 10) n;
  IF truth IS NULL THEN
    RETURN NULL;
  END IF;
  SELECT count(*)::real / cardinality(truth) INTO found FROM (
    SELECT n.chunk_id FROM search_near(tenant, within, space, question_vector, NULL, false, 40) n
    ORDER BY n.similarity DESC LIMIT 10
  ) near WHERE near.chunk_id = ANY (truth);
  INSERT INTO recall_samples (space_id, recall) VALUES (space, found);
  RETURN found;
END
$$;
REVOKE ALL ON FUNCTION search_recall(text[], int, halfvec) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION search_recall(text[], int, halfvec) TO penstock_gateway, penstock_worker;

-- The mean of the last day's samples per space, for metrics.
CREATE FUNCTION system_recall() RETURNS TABLE (space_id int, recall float8, samples bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT r.space_id, avg(r.recall), count(*) FROM recall_samples r
  WHERE r.taken_at > now() - interval '1 day' GROUP BY r.space_id ORDER BY r.space_id
$$;
REVOKE ALL ON FUNCTION system_recall() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION system_recall() TO penstock_system, penstock_gateway, penstock_worker;
