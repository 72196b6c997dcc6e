-- name: collection
-- A collection with the embedding space that it is searched in.
SELECT c.collection_id, c.space_id, s.model, s.dimensions
FROM collections c JOIN embedding_spaces s ON s.space_id = c.space_id
WHERE c.tenant_id = $1 AND c.name = $2

-- name: find_space
-- An embedding space that exists already.
SELECT space_id FROM embedding_spaces WHERE provider = $1 AND model = $2 AND dimensions = $3

-- name: ensure_space
-- Finds or makes an embedding space.
SELECT space_ensure($1, $2, $3)

-- name: whole
-- How many chunks and tokens a collection has.
SELECT count(*) AS chunks, coalesce(sum(tokens), 0)::bigint AS tokens
FROM chunks WHERE tenant_id = $1 AND collection_id = $2

-- name: size
-- How many chunks and tokens there are, and how many have no vector in a space.
SELECT * FROM reembed_size($1, $2, $3)

-- name: missing
-- The next chunks without a vector in a space.
SELECT * FROM reembed_missing($1, $2, $3, $4, $5)

-- name: add
-- Vectors of stored chunks.
SELECT reembed_add($1, $2, $3, $4::uuid[], $5::halfvec[])

-- name: hold_writers
-- Waits for all who write to a collection, and keeps new ones waiting until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('penstock.collection.' || $1::text || '.' || $2::bigint, 0))

-- name: switch
-- From now on the collection is written and searched in another space; kept answers are out of date.
UPDATE collections SET space_id = $3, generation = generation + 1 WHERE tenant_id = $1 AND collection_id = $2
