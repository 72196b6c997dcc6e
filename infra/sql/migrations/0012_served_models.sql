-- What all tenants' aliases mean, for the train pool, which watches models while they serve: names and dates only.
CREATE FUNCTION served_models() RETURNS TABLE (
  tenant_id text, alias text, model text, base_model text, changed_at timestamptz, warned_days int
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT a.tenant_id, a.alias, a.model, m.base_model, a.changed_at, m.warned_days
  FROM model_aliases a JOIN models m ON m.tenant_id = a.tenant_id AND m.model = a.model
  ORDER BY a.tenant_id, a.alias
$$;
REVOKE ALL ON FUNCTION served_models() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION served_models() TO penstock_worker;
