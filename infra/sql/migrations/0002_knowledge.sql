-- Knowledge: collections, documents, chunks, and one vector table per embedding space.

-- An embedding space is (provider, model, dimensions); it belongs to no tenant.
CREATE TABLE embedding_spaces (
  space_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  provider text NOT NULL,
  model text NOT NULL,
  dimensions int NOT NULL CHECK (dimensions BETWEEN 1 AND 4000),
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (provider, model, dimensions)
);
GRANT SELECT ON embedding_spaces TO penstock_gateway, penstock_worker;

CREATE TABLE collections (
  tenant_id text NOT NULL REFERENCES tenants,
  collection_id bigint GENERATED ALWAYS AS IDENTITY,
  name text NOT NULL,
  space_id int NOT NULL REFERENCES embedding_spaces,
  settings jsonb NOT NULL DEFAULT '{}',
  text_config regconfig NOT NULL DEFAULT 'english',
  generation bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, collection_id),
  UNIQUE (tenant_id, name)
);
SELECT secure_table('collections');

-- One row per document: the newest version that was decided, and a tombstone after a delete.
--
-- sequence is the newest version decided, a failed one too. settled_sequence is the newest version that decided the
-- content: it was indexed or deleted; -1 before the first. served_sequence is the version whose chunks are searchable;
-- it is null after a delete. revision counts the writes to the row: a worker writes only what it computed from the
-- revision that it finds. recipe_sha256 covers all besides the content that decides the chunks.
CREATE TABLE documents (
  tenant_id text NOT NULL,
  collection_id bigint NOT NULL,
  document_id text NOT NULL,
  status text NOT NULL CHECK (status IN ('pending', 'indexed', 'superseded', 'purged', 'failed')),
  sequence bigint NOT NULL,
  settled_sequence bigint NOT NULL DEFAULT -1,
  served_sequence bigint,
  revision int NOT NULL DEFAULT 0,
  explicit_sequence boolean NOT NULL,
  content_sha256 bytea,
  recipe_sha256 bytea,
  title text,
  metadata jsonb NOT NULL DEFAULT '{}',
  media_type text,
  uri text,
  chunks int NOT NULL DEFAULT 0,
  tokens int NOT NULL DEFAULT 0,
  error jsonb,
  event_id uuid,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  indexed_at timestamptz,
  PRIMARY KEY (tenant_id, collection_id, document_id),
  FOREIGN KEY (tenant_id, collection_id) REFERENCES collections ON DELETE CASCADE
);
CREATE INDEX documents_metadata ON documents USING gin (metadata jsonb_path_ops);
SELECT secure_table('documents');

CREATE TABLE chunks (
  tenant_id text NOT NULL,
  collection_id bigint NOT NULL,
  chunk_id uuid NOT NULL,
  document_id text NOT NULL,
  position int NOT NULL,
  text text NOT NULL,
  heading text,
  page int,
  tokens int NOT NULL,
  sha256 bytea NOT NULL,
  words tsvector NOT NULL,
  PRIMARY KEY (tenant_id, chunk_id),
  FOREIGN KEY (tenant_id, collection_id, document_id) REFERENCES documents ON DELETE CASCADE
);
CREATE INDEX chunks_by_document ON chunks (tenant_id, collection_id, document_id, position);
CREATE INDEX chunks_words ON chunks USING gin (words);
SELECT secure_table('chunks');

-- Vectors that were paid for once, as pgvector's wire bytes, keyed by what was embedded.
CREATE TABLE embedding_cache (
  tenant_id text NOT NULL REFERENCES tenants,
  space_id int NOT NULL REFERENCES embedding_spaces,
  sha256 bytea NOT NULL,
  embedding bytea NOT NULL,
  made_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, space_id, sha256)
);
SELECT secure_table('embedding_cache');

GRANT SELECT, INSERT, UPDATE, DELETE ON collections, documents, chunks, embedding_cache TO penstock_worker;
GRANT SELECT, INSERT, UPDATE ON collections TO penstock_gateway;
GRANT SELECT ON documents, chunks TO penstock_gateway;

-- Finds or makes an embedding space with its table vectors_<space_id>; safe to call at the same time from many places.
CREATE FUNCTION space_ensure(space_provider text, space_model text, space_dimensions int) RETURNS int
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
  EXECUTE format('CREATE INDEX %I ON %I USING hnsw (embedding halfvec_ip_ops)', target || '_hnsw', target);
  PERFORM secure_table(target::regclass);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO penstock_worker', target);
  EXECUTE format('GRANT SELECT ON %I TO penstock_gateway', target);
  RETURN found;
END
$$;
REVOKE ALL ON FUNCTION space_ensure(text, text, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION space_ensure(text, text, int) TO penstock_gateway, penstock_worker;

-- Finds or makes a tenant's collection and its embedding space; null when the tenant may have no more of them.
CREATE FUNCTION collection_ensure(
  owning_tenant text, wanted text, space_provider text, space_model text, space_dimensions int
) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  found bigint;
  allowed int;
BEGIN
  SELECT collection_id INTO found FROM collections WHERE tenant_id = owning_tenant AND name = wanted;
  IF found IS NOT NULL THEN
    RETURN found;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('penstock.collection_ensure.' || owning_tenant, 0));
  SELECT coalesce((limits ->> 'collections')::int, 1000) INTO allowed FROM tenants WHERE tenant_id = owning_tenant;
  IF (SELECT count(*) FROM collections WHERE tenant_id = owning_tenant AND name <> wanted) >= allowed THEN
    RETURN NULL;
  END IF;
  INSERT INTO collections (tenant_id, name, space_id)
  VALUES (owning_tenant, wanted, space_ensure(space_provider, space_model, space_dimensions))
  ON CONFLICT (tenant_id, name) DO NOTHING;
  SELECT collection_id INTO found FROM collections WHERE tenant_id = owning_tenant AND name = wanted;
  RETURN found;
END
$$;
REVOKE ALL ON FUNCTION collection_ensure(text, text, text, text, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION collection_ensure(text, text, text, text, int) TO penstock_gateway, penstock_worker;

-- Counts up a collection's generation, once per transaction and just before it commits: a lock on the collection that
-- was held while vectors are inserted would let only one worker write at a time.
CREATE FUNCTION collection_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  mark text := ' ' || NEW.collection_id || ' ';
  marks text := coalesce(current_setting('app.generations', true), '');
BEGIN
  IF position(mark IN marks) = 0 THEN
    PERFORM set_config('app.generations', marks || mark, true);
    UPDATE collections SET generation = generation + 1
    WHERE tenant_id = NEW.tenant_id AND collection_id = NEW.collection_id;
  END IF;
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION collection_changed() FROM PUBLIC;
CREATE CONSTRAINT TRIGGER document_appears AFTER INSERT ON documents
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.served_sequence IS NOT NULL)
  EXECUTE FUNCTION collection_changed();
CREATE CONSTRAINT TRIGGER document_changes AFTER UPDATE ON documents
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN ((OLD.content_sha256, OLD.recipe_sha256, OLD.metadata, OLD.title)
        IS DISTINCT FROM (NEW.content_sha256, NEW.recipe_sha256, NEW.metadata, NEW.title))
  EXECUTE FUNCTION collection_changed();

-- Writes vectors of a collection into the table of an embedding space.
CREATE FUNCTION vectors_add(space int, owning_tenant text, collection bigint, chunk_ids uuid[], embeddings halfvec[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  EXECUTE format(
    'INSERT INTO public.%I (tenant_id, collection_id, chunk_id, embedding) '
    'SELECT $1, $2, g.chunk_id, g.embedding FROM unnest($3, $4) AS g (chunk_id, embedding) ORDER BY g.chunk_id',
    'vectors_' || space)
  USING owning_tenant, collection, chunk_ids, embeddings;
END
$$;
REVOKE ALL ON FUNCTION vectors_add(int, text, bigint, uuid[], halfvec[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION vectors_add(int, text, bigint, uuid[], halfvec[]) TO penstock_worker;
