-- name: erase
-- Takes out a document, a question or a person of the transaction's tenant, with all that was made of it.
SELECT erase($1, $2, $3)

-- name: purged
-- Documents that this transaction has taken out: the functions stamp them with its time.
SELECT c.name AS collection, d.document_id, d.sequence
FROM documents d JOIN collections c USING (tenant_id, collection_id)
WHERE d.tenant_id = $1 AND (c.name, d.document_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))
  AND d.status = 'purged' AND d.updated_at = now()

-- name: tenant_step
-- Takes out some of all that the transaction's tenant has.
SELECT erase_tenant_step($1)

-- name: tenant_counts
-- What the transaction's tenant has, for a look beforehand.
SELECT jsonb_build_object(
  'events', (SELECT count(*) FROM events WHERE tenant_id = $1),
  'documents', (SELECT count(*) FROM documents WHERE tenant_id = $1),
  'chunks', (SELECT count(*) FROM chunks WHERE tenant_id = $1),
  'answers', (SELECT count(*) FROM answers WHERE tenant_id = $1),
  'examples', (SELECT count(*) FROM examples WHERE tenant_id = $1),
  'deliveries', (SELECT count(*) FROM deliveries WHERE tenant_id = $1))

-- name: audit
-- Says who erased what; never what it held.
INSERT INTO audit_log (tenant_id, actor, action, target, details) VALUES ($1, $2, 'erase', $3, $4)
