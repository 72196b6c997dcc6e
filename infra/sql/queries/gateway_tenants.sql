-- name: create
-- Adds a tenant unless it is there.
INSERT INTO tenants (tenant_id, title, limits) VALUES ($1, $2, $3)
ON CONFLICT (tenant_id) DO NOTHING
RETURNING tenant_id, title, limits, created_at, suspended_at;

-- name: list
-- All tenants, in order.
SELECT tenant_id, title, limits, created_at, suspended_at FROM tenants ORDER BY tenant_id;

-- name: show
-- One tenant.
SELECT tenant_id, title, limits, created_at, suspended_at FROM tenants WHERE tenant_id = $1;

-- name: suspend
-- Shuts a tenant out, or lets it in again.
UPDATE tenants SET suspended_at = CASE WHEN $2 THEN coalesce(suspended_at, now()) END
WHERE tenant_id = $1
RETURNING tenant_id, title, limits, created_at, suspended_at;

-- name: audit
-- Says who did what to whom.
INSERT INTO audit_log (tenant_id, actor, action, target, details) VALUES ($1, $2, $3, $4, $5);

-- name: set_limits
-- Changes some of a tenant's limits and takes others away.
UPDATE tenants SET limits = (limits || $2) - $3::text[]
WHERE tenant_id = $1
RETURNING tenant_id, title, limits, created_at, suspended_at;
