-- name: load
-- What documents look like now, with their collections; a collection that does not exist brings no row.
SELECT w.place, c.collection_id, c.space_id, s.model, s.dimensions, c.settings,
       d.revision, d.sequence, d.settled_sequence, d.served_sequence, d.explicit_sequence, d.status,
       d.content_sha256, d.recipe_sha256, d.title, d.metadata, d.uri, d.chunks, d.tokens, d.event_id
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w (tenant_id, collection, document_id, place)
JOIN collections c ON c.tenant_id = w.tenant_id AND c.name = w.collection
JOIN embedding_spaces s ON s.space_id = c.space_id
LEFT JOIN documents d
  ON d.tenant_id = w.tenant_id AND d.collection_id = c.collection_id AND d.document_id = w.document_id

-- name: load_chunks
-- A document's chunks without their text.
SELECT chunk_id, position, heading, page, sha256
FROM chunks
WHERE tenant_id = $1 AND collection_id = $2 AND document_id = $3

-- name: find_cached
-- Vectors that were paid for before.
SELECT e.tenant_id, e.space_id, e.sha256, e.embedding
FROM unnest($1::text[], $2::int[], $3::bytea[]) AS w (tenant_id, space_id, sha256)
JOIN embedding_cache e ON e.tenant_id = w.tenant_id AND e.space_id = w.space_id AND e.sha256 = w.sha256

-- name: cache
-- Keeps vectors that were just paid for.
INSERT INTO embedding_cache (tenant_id, space_id, sha256, embedding)
SELECT tenant_id, space_id, sha256, embedding
FROM unnest($1::text[], $2::int[], $3::bytea[], $4::bytea[]) AS w (tenant_id, space_id, sha256, embedding)
ORDER BY tenant_id, space_id, sha256
ON CONFLICT (tenant_id, space_id, sha256) DO NOTHING

-- name: create_document
-- The first version of a document; no row when somebody else was first, or the collection's space has changed.
INSERT INTO documents (
  tenant_id, collection_id, document_id, status, sequence, settled_sequence, served_sequence, explicit_sequence,
  content_sha256, recipe_sha256, title, metadata, media_type, uri, chunks, tokens, event_id, indexed_at
)
SELECT c.tenant_id, c.collection_id, $3, $4::text, $5::bigint, $5::bigint, CASE WHEN $4::text = 'indexed' THEN $5::bigint END, $6,
       $7, $8, $9, $10, $11, $12, $13, $14, $15, CASE WHEN $4::text = 'indexed' THEN now() END
FROM collections c
WHERE c.tenant_id = $1 AND c.collection_id = $2 AND c.space_id = $16
ON CONFLICT (tenant_id, collection_id, document_id) DO NOTHING
RETURNING revision

-- name: settle_document
-- A version that decides the content; no row when the document or the collection's space has changed since it was read.
-- A newer version that failed keeps its status: it is still the newest.
UPDATE documents d
SET status = CASE WHEN $5::bigint >= d.sequence THEN $4::text ELSE d.status END,
    error = CASE WHEN $5::bigint >= d.sequence THEN NULL ELSE d.error END,
    event_id = CASE WHEN $5::bigint >= d.sequence THEN $15::uuid ELSE d.event_id END,
    sequence = greatest(d.sequence, $5::bigint),
    settled_sequence = $5::bigint,
    served_sequence = CASE WHEN $4::text = 'indexed' THEN $5::bigint END,
    explicit_sequence = $6,
    content_sha256 = $7, recipe_sha256 = $8, title = $9, metadata = $10, media_type = $11, uri = $12,
    chunks = $13, tokens = $14,
    indexed_at = CASE WHEN $4::text = 'indexed' THEN now() END,
    updated_at = now(),
    revision = d.revision + 1
FROM collections c
WHERE d.tenant_id = $1 AND d.collection_id = $2 AND d.document_id = $3 AND d.revision = $17
  AND c.tenant_id = d.tenant_id AND c.collection_id = d.collection_id AND c.space_id = $16
RETURNING d.revision

-- name: fail_document
-- A version that cannot be indexed, if it is the newest that was decided; what is served stays as it is.
INSERT INTO documents AS d (
  tenant_id, collection_id, document_id, status, sequence, explicit_sequence, error, event_id, media_type
)
SELECT c.tenant_id, c.collection_id, $3, 'failed', $4, $5, $6, $7, $8
FROM collections c
WHERE c.tenant_id = $1 AND c.name = $2
ON CONFLICT (tenant_id, collection_id, document_id) DO UPDATE
SET status = 'failed', sequence = excluded.sequence, error = excluded.error, event_id = excluded.event_id,
    updated_at = now(), revision = d.revision + 1
WHERE d.sequence <= excluded.sequence AND d.settled_sequence < excluded.sequence
  AND d.explicit_sequence = excluded.explicit_sequence

-- name: remove_chunks
-- Chunks that a new version no longer has; their vectors go with them.
DELETE FROM chunks WHERE tenant_id = $1 AND chunk_id = ANY ($2::uuid[])

-- name: move_chunks
-- Chunks whose text stays but whose place, heading or page changes.
UPDATE chunks k
SET position = g.position, heading = g.heading, page = g.page,
    words = CASE WHEN k.heading IS DISTINCT FROM g.heading
                 THEN to_tsvector(c.text_config, concat_ws(E'\n', g.heading, k.text)) ELSE k.words END
FROM unnest($3::uuid[], $4::int[], $5::text[], $6::int[]) AS g (chunk_id, position, heading, page)
CROSS JOIN (SELECT text_config FROM collections WHERE tenant_id = $1 AND collection_id = $2) c
WHERE k.tenant_id = $1 AND k.chunk_id = g.chunk_id

-- name: add_chunks
-- New chunks with their words.
INSERT INTO chunks (
  tenant_id, collection_id, document_id, chunk_id, position, text, heading, page, tokens, sha256, words
)
SELECT $1, $2, $3, g.chunk_id, g.position, g.text, g.heading, g.page, g.tokens, g.sha256,
       to_tsvector(c.text_config, concat_ws(E'\n', g.heading, g.text))
FROM unnest($4::uuid[], $5::int[], $6::text[], $7::text[], $8::int[], $9::int[], $10::bytea[])
  AS g (chunk_id, position, text, heading, page, tokens, sha256)
CROSS JOIN (SELECT text_config FROM collections WHERE tenant_id = $1 AND collection_id = $2) c
ORDER BY g.chunk_id

-- name: add_vectors
-- The vectors of new chunks, into the table of their space.
SELECT vectors_add($1, $2, $3, $4::uuid[], $5::halfvec[])

-- name: purge_chunks
-- All of a deleted document: its chunks, with them their vectors, and what the cache kept of them.
WITH gone AS (
  DELETE FROM chunks WHERE tenant_id = $1 AND collection_id = $2 AND document_id = $3 RETURNING sha256
)
DELETE FROM embedding_cache e USING gone WHERE e.tenant_id = $1 AND e.sha256 = gone.sha256
