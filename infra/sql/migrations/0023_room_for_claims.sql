-- An event is written three times: accepted, running, ended. Room in its page lets the second version stay there, so that
-- no index learns of it.
CREATE OR REPLACE FUNCTION make_partitions(parent regclass, ahead int DEFAULT 3) RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
  first_day date := (now() AT TIME ZONE 'utc')::date;
  one_day date;
  child text;
  made int := 0;
BEGIN
  FOR offset_days IN 0..ahead LOOP
    one_day := first_day + offset_days;
    child := parent::text || to_char(one_day, '_YYYYMMDD');
    IF to_regclass('public.' || child) IS NULL THEN
      EXECUTE format(
        'CREATE TABLE public.%I PARTITION OF %s FOR VALUES FROM (%L) TO (%L) WITH (fillfactor = %s)',
        child, parent,
        uuid_floor(one_day::timestamp AT TIME ZONE 'utc'),
        uuid_floor((one_day + 1)::timestamp AT TIME ZONE 'utc'),
        CASE WHEN parent = 'public.events'::regclass THEN 60 ELSE 100 END);
      made := made + 1;
    END IF;
  END LOOP;
  RETURN made;
END
$$;

DO $$
DECLARE
  child regclass;
BEGIN
  FOR child IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'events'::regclass LOOP
    EXECUTE format('ALTER TABLE %s SET (fillfactor = 60)', child);
  END LOOP;
END
$$;
