-- name: tenant_exists
-- Whether a tenant is known, so that a key for a mistyped one is refused.
SELECT EXISTS (SELECT FROM tenants WHERE tenant_id = $1);

-- name: create
-- Records a new key by the hash of its secret.
INSERT INTO api_keys (tenant_id, key_id, key_sha256, title, scopes, expires_at, rate_per_minute)
VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING created_at;

-- name: list
-- The keys of one tenant, or of all, newest first; never the hash.
SELECT tenant_id, key_id, title, scopes, created_at, expires_at, revoked_at, last_used_at, rate_per_minute
FROM api_keys
WHERE $1::text IS NULL OR tenant_id = $1
ORDER BY created_at DESC, key_id;

-- name: revoke
-- Ends a key; a second time changes nothing.
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now())
WHERE key_id = $1 AND ($2::text IS NULL OR tenant_id = $2)
RETURNING tenant_id, key_id, title, scopes, created_at, expires_at, revoked_at, last_used_at, rate_per_minute;

-- name: find
-- The key behind a secret, through the one function that may look without a tenant.
SELECT tenant_id, key_id, scopes, expires_at, suspended, rate_per_minute, limits FROM api_key_look_up($1);

-- name: used
-- Remembers that keys were used.
SELECT api_keys_used($1::text[]);
