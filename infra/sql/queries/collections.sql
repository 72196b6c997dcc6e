-- name: ensure
-- Finds or makes a collection; null beyond the tenant's limit.
SELECT collection_ensure($1, $2, $3, $4, $5)

-- name: hold
-- Waits for all who write to a collection, and keeps new ones waiting until the transaction ends; its id.
SELECT c.collection_id
FROM (SELECT collection_id FROM collections WHERE tenant_id = $1 AND name = $2 OFFSET 0) c,
     pg_advisory_xact_lock(hashtextextended('penstock.collection.' || $1::text || '.' || c.collection_id, 0))

-- name: drop
-- Takes a collection its name, which no other can have: nobody finds it from now on.
UPDATE collections
SET name = '~' || collection_id, dropped_name = name, dropped_no = nextval('accept_numbers'), dropped_at = now()
WHERE tenant_id = $1 AND collection_id = $2 AND dropped_at IS NULL
RETURNING dropped_no

-- name: audit
-- Says who dropped what.
INSERT INTO audit_log (tenant_id, actor, action, target, details) VALUES ($1, $2, 'drop', $3, $4)

-- name: clear_chunks
-- Some chunks of dropped collections, with them their vectors, and what the cache kept of them.
WITH gone AS (
  DELETE FROM chunks k USING (
    SELECT k.tenant_id, k.chunk_id FROM collections c JOIN chunks k USING (tenant_id, collection_id)
    WHERE c.dropped_at IS NOT NULL LIMIT $1
  ) few
  WHERE k.tenant_id = few.tenant_id AND k.chunk_id = few.chunk_id
  RETURNING k.tenant_id, k.sha256
), forgotten AS (
  DELETE FROM embedding_cache e USING gone g, embedding_spaces s
  WHERE e.tenant_id = g.tenant_id AND e.space_id = s.space_id AND e.sha256 = g.sha256
)
SELECT count(*) FROM gone

-- name: clear_documents
-- Some documents of dropped collections; their chunks are gone already.
WITH gone AS (
  DELETE FROM documents d USING (
    SELECT d.tenant_id, d.collection_id, d.document_id FROM collections c JOIN documents d USING (tenant_id, collection_id)
    WHERE c.dropped_at IS NOT NULL LIMIT $1
  ) few
  WHERE d.tenant_id = few.tenant_id AND d.collection_id = few.collection_id AND d.document_id = few.document_id
  RETURNING 1
)
SELECT count(*) FROM gone
