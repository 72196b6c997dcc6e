-- name: finished
-- Which of these questions have ended, by their event or by being withdrawn; each pair is a tenant and its event.
SELECT e.event_id
FROM unnest($1::text[], $2::uuid[]) AS w (tenant_id, event_id)
JOIN events e ON e.tenant_id = w.tenant_id AND e.event_id = w.event_id
LEFT JOIN answers a ON a.tenant_id = w.tenant_id AND a.query_id = w.event_id
WHERE e.finished_at IS NOT NULL OR a.finished_at IS NOT NULL;

-- name: callback_prefixes
-- Under which addresses a tenant's questions may be called back.
SELECT url FROM webhook_endpoints WHERE tenant_id = $1 AND callback_prefix AND status <> 'disabled';
