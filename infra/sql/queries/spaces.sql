-- name: spaces
-- Every embedding space with its vectors, counted no further than a cap for one dimension, and its vector index.
SELECT s.space_id, s.model, s.dimensions, s.index_policy,
       space_rows(s.space_id, greatest($1::int, $2::int / s.dimensions)) AS rows,
       i.indexrelid IS NOT NULL AS present, coalesce(i.indisvalid, false) AS valid,
       NOT coalesce('ef_construction=128' = ANY (k.reloptions), false) AS settled
FROM embedding_spaces s
LEFT JOIN pg_index i ON i.indexrelid = to_regclass('public.vectors_' || s.space_id || '_hnsw')
LEFT JOIN pg_class k ON k.oid = i.indexrelid
ORDER BY s.space_id

-- name: build_index
-- The statement that builds a space's index while vectors are written and searched: with twice the usual care, so that
-- a search walks a fifth less. `spaces` knows it by that number.
SELECT format('CREATE INDEX CONCURRENTLY %I ON public.%I USING hnsw (embedding halfvec_ip_ops) WITH (ef_construction = 128)',
              'vectors_' || $1::int || '_hnsw', 'vectors_' || $1::int)

-- name: settle_index
-- The statement that lets an index place what is written from now on at pgvector's usual price.
SELECT format('ALTER INDEX public.%I SET (ef_construction = 64)', 'vectors_' || $1::int || '_hnsw')

-- name: index_built
-- How many vectors an index was built over, as its build has counted them.
UPDATE embedding_spaces SET built = (SELECT c.reltuples FROM pg_class c WHERE c.oid = to_regclass('public.vectors_' || $1::int))
WHERE space_id = $1::int

-- name: drop_index
-- The statement that removes a space's index without holding up anybody.
SELECT format('DROP INDEX CONCURRENTLY IF EXISTS public.%I', 'vectors_' || $1::int || '_hnsw')

-- name: set_policy
-- What is wanted of a space's index from now on.
UPDATE embedding_spaces SET index_policy = $2 WHERE space_id = $1 RETURNING space_id

-- name: leftovers
-- Vectors in a space whose collection is searched in another one; counted, or so many of them deleted.
SELECT space_leftovers($1, $2, $3)

-- name: exists
-- Whether there is such a space.
SELECT EXISTS (SELECT FROM embedding_spaces WHERE space_id = $1)
