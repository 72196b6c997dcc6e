-- name: datasets
-- Datasets with their settings; one, or all.
SELECT * FROM datasets WHERE tenant_id = $1 AND ($2::text IS NULL OR dataset = $2) ORDER BY dataset

-- name: example_counts
-- How many examples are in which state and split.
SELECT dataset, status, split, count(*) AS examples
FROM examples WHERE tenant_id = $1 AND ($2::text IS NULL OR dataset = $2)
GROUP BY dataset, status, split

-- name: add_dataset
-- Makes a dataset with the default settings, unless it is there.
INSERT INTO datasets (tenant_id, dataset, base_model) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING

-- name: set_dataset
-- Changes what is given and keeps the rest; whoever changes a dataset wants its failures forgotten.
UPDATE datasets SET
  alias = coalesce($3::jsonb ->> 'alias', alias),
  base_model = coalesce($3 ->> 'base_model', base_model),
  threshold = coalesce(($3 ->> 'threshold')::int, threshold),
  minimum = coalesce(($3 ->> 'minimum')::int, minimum),
  holdout_minimum = coalesce(($3 ->> 'holdout_minimum')::int, holdout_minimum),
  approval = coalesce($3 ->> 'approval', approval),
  max_age_hours = CASE WHEN $3 ? 'max_age_hours' THEN ($3 ->> 'max_age_hours')::float8 ELSE max_age_hours END,
  cooldown_seconds = coalesce(($3 ->> 'cooldown_seconds')::float8, cooldown_seconds),
  max_failures = coalesce(($3 ->> 'max_failures')::int, max_failures),
  margin = coalesce(($3 ->> 'margin')::float8, margin),
  epochs = CASE WHEN $3 ? 'epochs' THEN ($3 ->> 'epochs')::int ELSE epochs END,
  screening = coalesce($3 ->> 'screening', screening),
  near_duplicate = CASE WHEN $3 ? 'near_duplicate' THEN ($3 ->> 'near_duplicate')::float8 ELSE near_duplicate END,
  key_share = coalesce(($3 ->> 'key_share')::float8, key_share),
  budget_month = CASE WHEN $3 ? 'budget_month' THEN ($3 ->> 'budget_month')::float8 ELSE budget_month END,
  collections = CASE WHEN jsonb_typeof($3 -> 'collections') = 'array'
                     THEN ARRAY(SELECT jsonb_array_elements_text($3 -> 'collections')) ELSE collections END,
  failures = 0, not_before = NULL, updated_at = now()
WHERE tenant_id = $1 AND dataset = $2

-- name: examples
-- Examples of a dataset in one state, by keyset, oldest first.
SELECT example_id, status, split, messages, weight, tokens, source, query_id, reason, run_id, recorded_at
FROM examples
WHERE tenant_id = $1 AND dataset = $2 AND ($3::text IS NULL OR status = $3) AND example_id > $4
ORDER BY example_id LIMIT $5

-- name: review
-- Moves examples to another state, where the machine allows it.
UPDATE examples SET status = $4, changed_at = now()
WHERE tenant_id = $1 AND dataset = $2 AND example_id = ANY ($3::uuid[]) AND status = ANY ($5::text[])
RETURNING example_id

-- name: runs
-- Runs, newest first, by keyset.
SELECT * FROM training_runs
WHERE tenant_id = $1 AND ($2::text IS NULL OR dataset = $2) AND ($3::uuid IS NULL OR run_id < $3)
ORDER BY run_id DESC LIMIT $4

-- name: run
-- One run.
SELECT * FROM training_runs WHERE tenant_id = $1 AND run_id = $2

-- name: history
-- What happened in a run, in order.
SELECT at, what, step, train_loss, valid_loss, details
FROM training_events WHERE tenant_id = $1 AND run_id = $2 ORDER BY event_no

-- name: ask_cancel
-- Asks a run to stop; its next step does it.
UPDATE training_runs SET cancel_asked_at = coalesce(cancel_asked_at, now())
WHERE tenant_id = $1 AND run_id = $2 AND ended_at IS NULL
RETURNING run_id

-- name: ask_pause
-- Asks a run to wait; its next step does it.
UPDATE training_runs SET pause_asked_at = coalesce(pause_asked_at, now()), resume_asked_at = NULL
WHERE tenant_id = $1 AND run_id = $2 AND ended_at IS NULL
RETURNING run_id

-- name: ask_resume
-- Lets a run go on; its next step tells the trainer.
UPDATE training_runs
SET resume_asked_at = CASE WHEN pause_asked_at IS NULL THEN resume_asked_at ELSE now() END, pause_asked_at = NULL
WHERE tenant_id = $1 AND run_id = $2 AND ended_at IS NULL
RETURNING run_id

-- name: run_messages
-- The examples of one split of a run, in the order in which its file holds them.
SELECT e.messages FROM run_examples r JOIN examples e USING (tenant_id, example_id)
WHERE r.tenant_id = $1 AND r.run_id = $2 AND r.split = $3
ORDER BY e.example_id

-- name: run_lineage
-- What the examples of one split of a run go back to, in the order of its file.
SELECT e.example_id, r.split, encode(e.content_sha256, 'hex') AS content_sha256, e.source, e.event_id, e.query_id,
       e.recorded_at, e.lineage
FROM run_examples r JOIN examples e USING (tenant_id, example_id)
WHERE r.tenant_id = $1 AND r.run_id = $2 AND r.split = $3
ORDER BY e.example_id

-- name: free_messages
-- The free examples of one split of a dataset.
SELECT messages FROM examples
WHERE tenant_id = $1 AND dataset = $2 AND split = $3 AND status = 'free' ORDER BY example_id

-- name: free_lineage
-- What the free examples of one split of a dataset go back to, in the order of their file.
SELECT example_id, split, encode(content_sha256, 'hex') AS content_sha256, source, event_id, query_id, recorded_at, lineage
FROM examples
WHERE tenant_id = $1 AND dataset = $2 AND split = $3 AND status = 'free' ORDER BY example_id

-- name: models
-- Tuned models with the aliases that point to them.
SELECT m.model, m.base_model, m.dataset, m.run_id, m.shutdown_date, m.created_at, m.tainted_at,
  r.status AS run_status,
  (SELECT coalesce(array_agg(a.alias ORDER BY a.alias), '{}') FROM model_aliases a
   WHERE a.tenant_id = m.tenant_id AND a.model = m.model) AS aliases
FROM models m LEFT JOIN training_runs r ON r.tenant_id = m.tenant_id AND r.run_id = m.run_id
WHERE m.tenant_id = $1 ORDER BY m.created_at DESC, m.model

-- name: aliases
-- What aliases mean now.
SELECT alias, model, previous, run_id, changed_at FROM model_aliases WHERE tenant_id = $1 ORDER BY alias

-- name: alias_history
-- What an alias has meant, newest first.
SELECT model, previous, run_id, reason, actor, at FROM model_alias_history
WHERE tenant_id = $1 AND alias = $2 ORDER BY change_no DESC LIMIT $3

-- name: lock_alias
-- An alias, locked until the transaction ends.
SELECT alias, model, previous, run_id FROM model_aliases WHERE tenant_id = $1 AND alias = $2 FOR UPDATE

-- name: last_change
-- The newest change that put a model there, with what it replaced.
SELECT previous FROM model_alias_history
WHERE tenant_id = $1 AND alias = $2 AND model = $3 ORDER BY change_no DESC LIMIT 1

-- name: audit
-- Who did what.
INSERT INTO audit_log (tenant_id, actor, action, target, details) VALUES ($1, $2, $3, $4, $5)
