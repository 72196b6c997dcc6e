-- name: collections
-- What a search must know of collections: their embedding space, thresholds and generation.
SELECT c.name, c.space_id, c.generation, c.settings, s.model, s.dimensions
FROM collections c JOIN embedding_spaces s ON s.space_id = c.space_id
WHERE c.tenant_id = $1 AND c.name = ANY ($2::text[])

-- name: search
-- Passages for a question within one embedding space. Says itself for whom it acts.
SELECT * FROM search_for($1, $2::text[], $3, $4::halfvec, $5, $6, $7, $8::text::jsonpath, $9)

-- name: recall
-- Compares a search through the vector index with an exact one, and keeps the result as a sample.
SELECT search_recall($1::text[], $2, $3::halfvec)
