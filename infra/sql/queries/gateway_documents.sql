-- name: show
-- One document as it is served.
SELECT d.document_id AS id, c.name AS collection, d.status, d.sequence, d.served_sequence, d.chunks, d.tokens, d.title,
       d.metadata, d.media_type, d.uri, d.error, d.indexed_at, d.created_at, d.updated_at, d.event_id,
       encode(d.content_sha256, 'hex') AS content_sha256
FROM documents d JOIN collections c ON c.tenant_id = d.tenant_id AND c.collection_id = d.collection_id
WHERE d.tenant_id = $1 AND c.name = $2 AND d.document_id = $3;

-- name: page
-- The documents of a collection by id, after a place; tombstones only when they are asked for by their status.
SELECT d.document_id AS id, c.name AS collection, d.status, d.sequence, d.served_sequence, d.chunks, d.tokens, d.title,
       d.metadata, d.media_type, d.uri, d.error, d.indexed_at, d.created_at, d.updated_at, d.event_id,
       encode(d.content_sha256, 'hex') AS content_sha256
FROM documents d JOIN collections c ON c.tenant_id = d.tenant_id AND c.collection_id = d.collection_id
WHERE d.tenant_id = $1 AND c.name = $2 AND ($3::text IS NULL OR d.document_id > $3)
  AND CASE WHEN $4::text IS NULL THEN d.status <> 'purged' ELSE d.status = $4 END
ORDER BY d.document_id LIMIT $5;

-- name: collection
-- One collection with what it holds.
SELECT c.collection_id, c.name, s.provider, s.model, s.dimensions, c.text_config::text AS language, c.settings,
       c.generation, c.created_at
FROM collections c JOIN embedding_spaces s USING (space_id)
WHERE c.tenant_id = $1 AND c.name = $2;

-- name: collections
-- A tenant's collections by name, after a place.
SELECT c.collection_id, c.name, s.provider, s.model, s.dimensions, c.text_config::text AS language, c.settings,
       c.generation, c.created_at
FROM collections c JOIN embedding_spaces s USING (space_id)
WHERE c.tenant_id = $1 AND ($2::text IS NULL OR c.name > $2) AND c.dropped_at IS NULL
ORDER BY c.name LIMIT $3;

-- name: known
-- Which of these collections a tenant has.
SELECT name FROM collections WHERE tenant_id = $1 AND name = ANY ($2::text[]);

-- name: counts
-- How many documents of each status some collections hold.
SELECT collection_id, status, count(*) AS documents, sum(chunks) AS chunks
FROM documents
WHERE tenant_id = $1 AND collection_id = ANY ($2::bigint[])
GROUP BY collection_id, status;

-- name: language_known
-- Whether PostgreSQL has a text-search configuration of that name.
SELECT EXISTS (SELECT FROM pg_catalog.pg_ts_config WHERE cfgname = $1);

-- name: has_documents
-- Whether a collection holds any chunk, whose words are kept in its language.
SELECT EXISTS (SELECT FROM documents WHERE tenant_id = $1 AND collection_id = $2 AND chunks > 0);

-- name: set_collection
-- A collection's settings, merged with what is given; null takes a setting away.
UPDATE collections
SET settings = jsonb_strip_nulls(settings || $3), text_config = coalesce($4::text::regconfig, text_config)
WHERE tenant_id = $1 AND collection_id = $2;
