-- Every model that serves is announced before it ends, tuned or not; and numbers that people set are shown as they set them.

-- Of how many days before its end, and of which end, the owner of an alias was last told. An end that is put off is
-- announced anew. models.warned_days, which knew tuned models only, is not written any more.
CREATE TABLE model_warnings (
  tenant_id text NOT NULL REFERENCES tenants,
  alias text NOT NULL,
  model text NOT NULL,
  ends_on date NOT NULL,
  warned_days int NOT NULL,
  PRIMARY KEY (tenant_id, alias, model)
);
SELECT secure_table('model_warnings');
GRANT SELECT, INSERT, UPDATE ON model_warnings TO penstock_worker;

INSERT INTO model_warnings (tenant_id, alias, model, ends_on, warned_days)
SELECT a.tenant_id, a.alias, a.model, m.shutdown_date, m.warned_days
FROM model_aliases a JOIN models m ON m.tenant_id = a.tenant_id AND m.model = a.model
WHERE m.shutdown_date IS NOT NULL AND m.warned_days IS NOT NULL;

-- What all tenants' aliases mean, tuned or not, for the train pool, which announces their ends: names and dates only.
-- An alias that only a dataset names means the default model. base_model is null where the model was not tuned here.
CREATE FUNCTION serving_models(default_model text) RETURNS TABLE (
  tenant_id text, alias text, model text, base_model text, ends_on date, warned_days int
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
  SELECT s.tenant_id, s.alias, s.model, m.base_model, w.ends_on, w.warned_days
  FROM (
    SELECT a.tenant_id, a.alias, a.model FROM model_aliases a
    UNION
    SELECT d.tenant_id, d.alias, default_model FROM datasets d
    WHERE NOT EXISTS (SELECT FROM model_aliases a WHERE a.tenant_id = d.tenant_id AND a.alias = d.alias)
  ) AS s
  LEFT JOIN models m ON m.tenant_id = s.tenant_id AND m.model = s.model
  LEFT JOIN model_warnings w ON w.tenant_id = s.tenant_id AND w.alias = s.alias AND w.model = s.model
  ORDER BY s.tenant_id, s.alias
$$;
REVOKE ALL ON FUNCTION serving_models(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION serving_models(text) TO penstock_worker;

-- In four bytes a margin of 0.01 is 0.009999999776. Through numeric, the digits that were meant come back.
ALTER TABLE datasets
  ALTER COLUMN margin TYPE float8 USING margin::numeric::float8,
  ALTER COLUMN margin SET DEFAULT 0.01,
  ALTER COLUMN near_duplicate TYPE float8 USING near_duplicate::numeric::float8,
  ALTER COLUMN near_duplicate SET DEFAULT 0.97,
  ALTER COLUMN key_share TYPE float8 USING key_share::numeric::float8,
  ALTER COLUMN key_share SET DEFAULT 1,
  ALTER COLUMN max_age_hours TYPE float8 USING max_age_hours::numeric::float8,
  ALTER COLUMN cooldown_seconds TYPE float8 USING cooldown_seconds::numeric::float8,
  ALTER COLUMN cooldown_seconds SET DEFAULT 0;
ALTER TABLE training_runs ALTER COLUMN margin TYPE float8 USING margin::numeric::float8;
ALTER TABLE training_events
  ALTER COLUMN train_loss TYPE float8 USING train_loss::numeric::float8,
  ALTER COLUMN valid_loss TYPE float8 USING valid_loss::numeric::float8;
ALTER TABLE examples
  ALTER COLUMN weight TYPE float8 USING weight::numeric::float8,
  ALTER COLUMN weight SET DEFAULT 1;
