-- The training loop, second part: what a dataset asks of its examples and its money, near duplicates, pausing, the
-- provider's webhooks, models that are watched while they serve.

ALTER TABLE datasets
  ADD COLUMN screening text NOT NULL DEFAULT 'quarantine' CHECK (screening IN ('quarantine', 'redact')),
  ADD COLUMN near_duplicate real DEFAULT 0.97 CHECK (near_duplicate > 0 AND near_duplicate <= 1),
  ADD COLUMN key_share real NOT NULL DEFAULT 1 CHECK (key_share > 0 AND key_share <= 1),
  ADD COLUMN budget_month float8 CHECK (budget_month >= 0),
  ADD COLUMN collections text[] NOT NULL DEFAULT '{}';

-- cost_micros is what a run was promised when it began; a dataset's budget adds it up by the month.
-- contenders are checkpoints that are compared beside the tuned model.
ALTER TABLE training_runs
  ADD COLUMN cost_micros bigint NOT NULL DEFAULT 0,
  ADD COLUMN pause_asked_at timestamptz,
  ADD COLUMN resume_asked_at timestamptz,
  ADD COLUMN collections text[] NOT NULL DEFAULT '{}',
  ADD COLUMN contenders jsonb NOT NULL DEFAULT '[]';
CREATE INDEX training_runs_by_provider_job ON training_runs (job_id) WHERE job_id IS NOT NULL AND ended_at IS NULL;

-- supplier is the API key that an example came by, or its source; lineage is what it goes back to: question, documents.
ALTER TABLE examples
  ADD COLUMN supplier text,
  ADD COLUMN lineage jsonb;

-- The prompts of a dataset's examples as vectors of one width, whatever the model's: see workers/train/nearness.py.
CREATE TABLE example_vectors (
  tenant_id text NOT NULL,
  dataset text NOT NULL,
  example_id uuid NOT NULL,
  model text NOT NULL,
  near halfvec(256),
  PRIMARY KEY (tenant_id, example_id),
  FOREIGN KEY (tenant_id, example_id) REFERENCES examples ON DELETE CASCADE
);
CREATE INDEX example_vectors_by_dataset ON example_vectors (tenant_id, dataset);
CREATE INDEX example_vectors_near ON example_vectors USING hnsw (near halfvec_ip_ops);
SELECT secure_table('example_vectors');

-- What was retrieved for a held-out question, once, so that every model answers with the same context.
CREATE TABLE evaluation_contexts (
  tenant_id text NOT NULL,
  run_id uuid NOT NULL,
  example_id uuid NOT NULL,
  passages jsonb NOT NULL,
  PRIMARY KEY (tenant_id, run_id, example_id),
  FOREIGN KEY (tenant_id, run_id) REFERENCES training_runs,
  FOREIGN KEY (tenant_id, example_id) REFERENCES examples ON DELETE CASCADE
);
SELECT secure_table('evaluation_contexts');

-- The smallest number of days before its end of which a model's owner was warned.
ALTER TABLE models ADD COLUMN warned_days int;

-- Webhooks of the model provider that were taken, so that a repetition is known; kept for longer than it repeats them.
CREATE TABLE provider_hooks (
  webhook_id text PRIMARY KEY,
  received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX provider_hooks_by_age ON provider_hooks (received_at);

-- A webhook of the provider about one job: the waiting step of its run becomes due. It comes without a tenant, so this
-- runs as the owner and gives out nothing but the event's id. No row: known already, or no such run is waiting.
CREATE FUNCTION training_wake(hook text, provider_job text) RETURNS TABLE (event_id uuid, queue text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
  DELETE FROM provider_hooks h WHERE h.received_at < now() - interval '7 days';
  INSERT INTO provider_hooks (webhook_id) VALUES (hook) ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  RETURN QUERY
    UPDATE events e SET due_at = NULL
    FROM training_runs r
    WHERE r.job_id = provider_job AND r.ended_at IS NULL
      AND e.tenant_id = r.tenant_id AND e.event_id >= r.run_id AND e.type = 'training.advance'
      AND e.subject = r.run_id::text AND e.finished_at IS NULL AND e.status <> 'running'
    RETURNING e.event_id, e.queue;
END
$$;
REVOKE ALL ON FUNCTION training_wake(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION training_wake(text, text) TO penstock_gateway;

GRANT SELECT, INSERT ON example_vectors, evaluation_contexts TO penstock_worker;
GRANT UPDATE (pause_asked_at, resume_asked_at) ON training_runs TO penstock_gateway;
