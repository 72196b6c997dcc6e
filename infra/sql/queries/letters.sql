-- name: refuse
-- Keeps stream entries that cannot be events as dead letters, each once.
WITH input AS (
  SELECT * FROM unnest($2::uuid[], $4::text[], $6::text[], $7::text[], $8::text[], $9::bytea[])
    AS i (event_id, id, data, attributes, error, sha)
), keys AS (
  INSERT INTO event_keys (tenant_id, source, id, event_id, data_sha256)
  SELECT $1, $3, id, event_id, sha FROM input ORDER BY id
  ON CONFLICT DO NOTHING
  RETURNING event_id
)
INSERT INTO events (tenant_id, event_id, source, id, type, data, attributes, status, finished_at, dead_at, error)
SELECT $1, event_id, $3, id, $5, data::jsonb, attributes::jsonb, 'dead', clock_timestamp(), clock_timestamp(),
       error::jsonb
FROM input JOIN keys USING (event_id)
RETURNING event_id

-- name: refused
-- Refused entries among these events that are still dead, with what they hold.
SELECT event_id, tenant_id, data FROM events
WHERE event_id = ANY ($1::uuid[]) AND type = $2 AND status = 'dead' AND dead_at IS NOT NULL
ORDER BY event_id

-- name: came_back
-- Takes refused entries that went back to their stream off the list: they come as new entries.
UPDATE events e
SET dead_at = NULL, story = e.story || jsonb_build_object('at', now(), 'what', 'replayed', 'by', $2::text)
WHERE e.event_id = ANY ($1::uuid[]) AND e.dead_at IS NOT NULL
RETURNING e.event_id, e.tenant_id
