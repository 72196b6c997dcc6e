-- name: enter_key
-- Remembers a request's key; no row comes back when it is known already.
INSERT INTO event_keys (tenant_id, source, id, event_id, data_sha256) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
RETURNING event_id

-- name: begin
-- Says that somebody is at work on a new request, for so many seconds at most.
INSERT INTO request_replies (tenant_id, event_id, claimed_until) VALUES ($1, $2, now() + $3::float8 * interval '1 second')

-- name: kept
-- What is known of a request under a key, locked.
SELECT k.event_id, k.data_sha256, r.status, r.headers, r.body, r.sealed, r.claimed_until > now() AS busy
FROM event_keys k JOIN request_replies r USING (tenant_id, event_id)
WHERE k.tenant_id = $1 AND k.source = $2 AND k.id = $3
FOR UPDATE OF r

-- name: take_over
-- Takes a request over from somebody who never ended it.
UPDATE request_replies SET claimed_until = now() + $3::float8 * interval '1 second'
WHERE tenant_id = $1 AND event_id = $2

-- name: keep
-- Keeps what was answered.
UPDATE request_replies SET status = $3, headers = $4, body = $5, sealed = $6 WHERE tenant_id = $1 AND event_id = $2

-- name: release
-- Lets the next one try at once: what was answered is not worth keeping.
UPDATE request_replies SET claimed_until = now() WHERE tenant_id = $1 AND event_id = $2 AND status IS NULL
