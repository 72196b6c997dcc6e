-- A collection that is dropped loses its name at once; `penstock maintain` takes out what was in it. The row stays for as
-- long as events are kept and says up to which event the drop counts. See docs/decisions/0023.
ALTER TABLE collections
  ADD COLUMN dropped_at timestamptz,
  ADD COLUMN dropped_name text,
  ADD COLUMN dropped_no bigint,
  ADD CHECK ((dropped_at IS NULL) = (dropped_name IS NULL) AND (dropped_at IS NULL) = (dropped_no IS NULL));
CREATE INDEX collections_dropped ON collections (tenant_id, dropped_name) WHERE dropped_at IS NOT NULL;
-- A new collection must not repeat the generations of a dropped one of its name: kept answers are found by them.
ALTER TABLE collections ALTER COLUMN generation SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- Finds or makes a tenant's collection, see 0002; dropped ones take no place.
CREATE OR REPLACE FUNCTION collection_ensure(
  owning_tenant text, wanted text, space_provider text, space_model text, space_dimensions int
) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  found bigint;
  allowed int;
BEGIN
  SELECT collection_id INTO found FROM collections WHERE tenant_id = owning_tenant AND name = wanted;
  IF found IS NOT NULL THEN
    RETURN found;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('penstock.collection_ensure.' || owning_tenant, 0));
  SELECT coalesce((limits ->> 'collections')::int, 1000) INTO allowed FROM tenants WHERE tenant_id = owning_tenant;
  IF (SELECT count(*) FROM collections
      WHERE tenant_id = owning_tenant AND name <> wanted AND dropped_at IS NULL) >= allowed THEN
    RETURN NULL;
  END IF;
  INSERT INTO collections (tenant_id, name, space_id)
  VALUES (owning_tenant, wanted, space_ensure(space_provider, space_model, space_dimensions))
  ON CONFLICT (tenant_id, name) DO NOTHING;
  SELECT collection_id INTO found FROM collections WHERE tenant_id = owning_tenant AND name = wanted;
  RETURN found;
END
$$;
