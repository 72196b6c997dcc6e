-- Work waits in lanes per tenant: who fills Redis again must know whose event it is. Code that does not ask for the
-- new column is served as before.

DROP FUNCTION system_unfinished(uuid, int);
DROP FUNCTION system_written(xid8, xid8, uuid, int);

-- Unfinished events by keyset, for filling an emptied Redis: ids, tenants, queues and times, never a payload.
CREATE FUNCTION system_unfinished(after uuid, at_most int)
RETURNS TABLE (event_id uuid, tenant_id text, type text, queue text, due_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT e.event_id, e.tenant_id, e.type, e.queue, e.due_at FROM events e
  WHERE e.finished_at IS NULL AND e.queue IS NOT NULL AND e.event_id > after
  ORDER BY e.event_id LIMIT at_most
$$;
REVOKE ALL ON FUNCTION system_unfinished(uuid, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION system_unfinished(uuid, int) TO penstock_system, penstock_worker;

-- Unfinished events written between two snapshots, by keyset: each event is looked at once.
CREATE FUNCTION system_written(low xid8, high xid8, after uuid, at_most int)
RETURNS TABLE (event_id uuid, tenant_id text, type text, queue text, due_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT e.event_id, e.tenant_id, e.type, e.queue, e.due_at FROM events e
  WHERE e.written_in >= low AND e.written_in < high
    AND e.finished_at IS NULL AND e.queue IS NOT NULL AND e.event_id > after
  ORDER BY e.event_id LIMIT at_most
$$;
REVOKE ALL ON FUNCTION system_written(xid8, xid8, uuid, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION system_written(xid8, xid8, uuid, int) TO penstock_system;
