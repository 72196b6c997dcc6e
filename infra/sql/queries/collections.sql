-- name: ensure
-- Finds or makes a collection; null beyond the tenant's limit.
SELECT collection_ensure($1, $2, $3, $4, $5)
