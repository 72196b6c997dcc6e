-- name: collections
-- What a search must know of collections: their embedding space, thresholds and generation.
SELECT c.name, c.space_id, c.generation, c.settings, s.model, s.dimensions
FROM collections c JOIN embedding_spaces s ON s.space_id = c.space_id
WHERE c.tenant_id = $1 AND c.name = ANY ($2::text[])

-- name: search
-- Passages for a question within one embedding space; the tenant is the transaction's.
SELECT * FROM search_passages($1::text[], $2, $3::halfvec, $4, $5, $6, $7::text::jsonpath, $8)

-- name: recall
-- Compares a search through the vector index with an exact one, and keeps the result as a sample.
SELECT search_recall($1::text[], $2, $3::halfvec)
