-- name: horizon
-- The transaction number below which everything that was written is visible.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text

-- name: unfinished
-- Unfinished events by keyset.
SELECT event_id, tenant_id, type, queue, due_at FROM system_unfinished($1::uuid, $2::int)

-- name: written
-- Unfinished events written between two horizons, by keyset.
SELECT event_id, tenant_id, type, queue, due_at FROM system_written($1::text::xid8, $2::text::xid8, $3::uuid, $4::int)
