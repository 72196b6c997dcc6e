-- name: standing
-- What a connection acts as now.
SELECT current_setting('role') AS role, current_setting('search_path') AS search_path,
       coalesce(current_setting('app.tenants', true), '') AS tenants

-- name: act
-- Acts as a role, with a search path, until the transaction ends.
SELECT set_config('role', $1, true), set_config('search_path', $2, true)
