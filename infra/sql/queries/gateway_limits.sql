-- name: documents
-- Documents that a tenant has, and those that wait to become some.
SELECT (SELECT count(*) FROM documents WHERE tenant_id = $1 AND status NOT IN ('pending', 'purged'))
     + (SELECT count(*) FROM events WHERE tenant_id = $1 AND finished_at IS NULL AND type = 'document.added')

-- name: bytes
-- Bytes of text in a tenant's passages, and of documents that wait.
SELECT (SELECT coalesce(sum(octet_length(text)), 0) FROM chunks WHERE tenant_id = $1)::bigint
     + (SELECT coalesce(sum(pg_column_size(data)), 0) FROM events
        WHERE tenant_id = $1 AND finished_at IS NULL AND type = 'document.added')::bigint

-- name: chunks
-- Passages that a tenant has.
SELECT coalesce(sum(chunks), 0)::bigint FROM documents WHERE tenant_id = $1

-- name: examples
-- Examples that a tenant has, and those that wait to become some.
SELECT (SELECT count(*) FROM examples WHERE tenant_id = $1 AND status <> 'withdrawn')
     + (SELECT count(*) FROM events
        WHERE tenant_id = $1 AND finished_at IS NULL AND type IN ('example.recorded', 'feedback.received'))

-- name: endpoints
-- Webhook endpoints that a tenant has; held until the end of the transaction, so that two cannot pass one free place.
SELECT count(*) FROM webhook_endpoints, pg_advisory_xact_lock(hashtextextended('endpoints:' || $1, 0))
WHERE tenant_id = $1

-- name: queries
-- Questions of a tenant that have no answer yet.
SELECT count(*) FROM events WHERE tenant_id = $1 AND finished_at IS NULL AND type = 'query.received'

-- name: known_documents
-- Which of these documents a tenant has: a new version of one takes no further place.
SELECT c.name AS collection, d.document_id
FROM unnest($2::text[], $3::text[]) AS w (collection, document_id)
JOIN collections c ON c.tenant_id = $1 AND c.name = w.collection
JOIN documents d ON d.tenant_id = $1 AND d.collection_id = c.collection_id AND d.document_id = w.document_id
WHERE d.status <> 'purged'
