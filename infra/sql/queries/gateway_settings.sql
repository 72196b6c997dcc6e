-- name: templates
-- The newest version of each template, by name, after a place.
SELECT DISTINCT ON (name) name, version, body, created_at
FROM templates
WHERE tenant_id = $1 AND ($2::text IS NULL OR name > $2)
ORDER BY name, version DESC LIMIT $3;
