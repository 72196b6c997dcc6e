-- name: load
-- What documents look like now, with their collections; a collection that does not exist brings no row.
SELECT w.place, c.collection_id, c.space_id, s.model, s.dimensions, c.settings,
       d.revision, d.sequence, d.settled_sequence, d.served_sequence, d.explicit_sequence, d.status,
       d.content_sha256, d.recipe_sha256, d.title, d.metadata, d.uri, d.chunks, d.tokens, d.event_id,
       (SELECT max(g.dropped_no) FROM collections g
        WHERE g.tenant_id = w.tenant_id AND g.dropped_name = w.collection AND g.dropped_at IS NOT NULL) AS dropped_no
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w (tenant_id, collection, document_id, place)
JOIN collections c ON c.tenant_id = w.tenant_id AND c.name = w.collection
JOIN embedding_spaces s ON s.space_id = c.space_id
LEFT JOIN documents d
  ON d.tenant_id = w.tenant_id AND d.collection_id = c.collection_id AND d.document_id = w.document_id

-- name: dropped
-- When a collection of this name was last dropped, among all that was accepted.
SELECT max(dropped_no) FROM collections WHERE tenant_id = $1 AND dropped_name = $2 AND dropped_at IS NOT NULL

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

-- name: enter_collections
-- Writers of a collection go in side by side, but not while it is dropped or switched to another embedding space; in
-- order.
SELECT pg_advisory_xact_lock_shared(hashtextextended('penstock.collection.' || w.tenant_id || '.' || w.collection_id, 0))
FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::bigint[]) AS u (tenant_id, collection_id) ORDER BY 1, 2) w

-- name: create_documents
-- First versions of documents; no row where somebody else was first, or the collection was dropped or its space changed.
INSERT INTO documents (
  tenant_id, collection_id, document_id, status, sequence, settled_sequence, served_sequence, explicit_sequence,
  content_sha256, recipe_sha256, title, metadata, media_type, uri, chunks, tokens, event_id, indexed_at
)
SELECT c.tenant_id, c.collection_id, w.document_id, w.status, w.sequence, w.sequence,
       CASE WHEN w.status = 'indexed' THEN w.sequence END, w.explicit,
       w.content_sha256, w.recipe_sha256, w.title, w.metadata::jsonb, w.media_type, w.uri, w.chunks, w.tokens, w.event_id,
       CASE WHEN w.status = 'indexed' THEN now() END
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::int[], $5::text[], $6::bigint[], $7::boolean[], $8::bytea[],
            $9::bytea[], $10::text[], $11::text[], $12::text[], $13::text[], $14::int[], $15::int[], $16::uuid[])
  AS w (tenant_id, collection_id, document_id, space_id, status, sequence, explicit, content_sha256,
        recipe_sha256, title, metadata, media_type, uri, chunks, tokens, event_id)
JOIN collections c
  ON c.tenant_id = w.tenant_id AND c.collection_id = w.collection_id AND c.space_id = w.space_id
  AND c.dropped_at IS NULL
ORDER BY 1, 2, 3
ON CONFLICT (tenant_id, collection_id, document_id) DO NOTHING
RETURNING tenant_id, collection_id, document_id

-- name: settle_documents
-- Versions that decide the content; no row where the document or the collection's space has changed since it was read, or
-- the collection was dropped.
-- A newer version that failed keeps its status: it is still the newest.
UPDATE documents d
SET status = CASE WHEN w.sequence >= d.sequence THEN w.status ELSE d.status END,
    error = CASE WHEN w.sequence >= d.sequence THEN NULL ELSE d.error END,
    event_id = CASE WHEN w.sequence >= d.sequence THEN w.event_id ELSE d.event_id END,
    sequence = greatest(d.sequence, w.sequence),
    settled_sequence = w.sequence,
    served_sequence = CASE WHEN w.status = 'indexed' THEN w.sequence END,
    explicit_sequence = w.explicit,
    content_sha256 = w.content_sha256, recipe_sha256 = w.recipe_sha256, title = w.title,
    metadata = w.metadata::jsonb, media_type = w.media_type, uri = w.uri, chunks = w.chunks, tokens = w.tokens,
    indexed_at = CASE WHEN w.status = 'indexed' THEN now() END,
    updated_at = now(),
    revision = d.revision + 1
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::int[], $5::text[], $6::bigint[], $7::boolean[], $8::bytea[],
            $9::bytea[], $10::text[], $11::text[], $12::text[], $13::text[], $14::int[], $15::int[], $16::uuid[],
            $17::int[])
  AS w (tenant_id, collection_id, document_id, space_id, status, sequence, explicit, content_sha256,
        recipe_sha256, title, metadata, media_type, uri, chunks, tokens, event_id, revision)
JOIN collections c
  ON c.tenant_id = w.tenant_id AND c.collection_id = w.collection_id AND c.space_id = w.space_id
  AND c.dropped_at IS NULL
WHERE d.tenant_id = w.tenant_id AND d.collection_id = w.collection_id AND d.document_id = w.document_id
  AND d.revision = w.revision
RETURNING d.tenant_id, d.collection_id, d.document_id

-- name: fail_document
-- A version that cannot be indexed, if it is the newest that was decided; what is served stays as it is.
INSERT INTO documents AS d (
  tenant_id, collection_id, document_id, status, sequence, explicit_sequence, error, event_id, media_type
)
SELECT c.tenant_id, c.collection_id, $3, 'failed', $4, $5, $6, $7, $8
FROM collections c
WHERE c.tenant_id = $1 AND c.name = $2 AND NOT EXISTS (
  SELECT FROM collections g
  WHERE g.tenant_id = $1 AND g.dropped_name = $2 AND g.dropped_at IS NOT NULL AND g.dropped_no > $9)
ON CONFLICT (tenant_id, collection_id, document_id) DO UPDATE
SET status = 'failed', sequence = excluded.sequence, error = excluded.error, event_id = excluded.event_id,
    updated_at = now(), revision = d.revision + 1
WHERE d.sequence <= excluded.sequence AND d.settled_sequence < excluded.sequence
  AND d.explicit_sequence = excluded.explicit_sequence

-- name: remove_chunks
-- Chunks that a new version no longer has; their vectors go with them.
DELETE FROM chunks k USING unnest($1::text[], $2::uuid[]) AS g (tenant_id, chunk_id)
WHERE k.tenant_id = g.tenant_id AND k.chunk_id = g.chunk_id

-- name: move_chunks
-- Chunks whose text stays but whose place, heading or page changes.
UPDATE chunks k
SET position = g.position, heading = g.heading, page = g.page,
    words = CASE WHEN k.heading IS DISTINCT FROM g.heading
                 THEN to_tsvector(c.text_config, concat_ws(E'\n', g.heading, k.text)) ELSE k.words END
FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::int[], $5::text[], $6::int[])
  AS g (tenant_id, collection_id, chunk_id, position, heading, page)
JOIN collections c ON c.tenant_id = g.tenant_id AND c.collection_id = g.collection_id
WHERE k.tenant_id = g.tenant_id AND k.chunk_id = g.chunk_id

-- name: add_chunks
-- New chunks with their words.
INSERT INTO chunks (
  tenant_id, collection_id, document_id, chunk_id, position, text, heading, page, tokens, sha256, words
)
SELECT g.tenant_id, g.collection_id, g.document_id, g.chunk_id, g.position, g.text, g.heading, g.page, g.tokens, g.sha256,
       to_tsvector(c.text_config, concat_ws(E'\n', g.heading, g.text))
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::uuid[], $5::int[], $6::text[], $7::text[], $8::int[], $9::int[],
            $10::bytea[])
  AS g (tenant_id, collection_id, document_id, chunk_id, position, text, heading, page, tokens, sha256)
JOIN collections c ON c.tenant_id = g.tenant_id AND c.collection_id = g.collection_id
ORDER BY g.tenant_id, g.chunk_id

-- name: add_vectors
-- The vectors of new chunks, into the table of their space.
SELECT vectors_add($1, $2::text[], $3::bigint[], $4::uuid[], $5::halfvec[])

-- name: purge_chunks
-- All of deleted documents: their chunks, with them their vectors, and what the cache kept of them.
WITH gone AS (
  DELETE FROM chunks k USING unnest($1::text[], $2::bigint[], $3::text[]) AS g (tenant_id, collection_id, document_id)
  WHERE k.tenant_id = g.tenant_id AND k.collection_id = g.collection_id AND k.document_id = g.document_id
  RETURNING k.tenant_id, k.sha256
)
DELETE FROM embedding_cache e USING gone WHERE e.tenant_id = gone.tenant_id AND e.sha256 = gone.sha256
