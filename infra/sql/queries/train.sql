-- name: ensure_dataset
-- Makes a dataset with the default settings, unless it is there.
INSERT INTO datasets (tenant_id, dataset, base_model) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING

-- name: lock_dataset
-- A dataset's settings, with the lock under which its examples are counted and its runs begin and end.
SELECT * FROM datasets WHERE tenant_id = $1 AND dataset = $2 FOR NO KEY UPDATE

-- name: count_down
-- Locks a dataset for examples that are about to be added, and says whether they may be the ones that matter.
UPDATE datasets SET countdown = countdown - $3 WHERE tenant_id = $1 AND dataset = $2 RETURNING *

-- name: set_countdown
-- How many examples have to come at least before counting again could matter.
UPDATE datasets SET countdown = $3 WHERE tenant_id = $1 AND dataset = $2

-- name: counts
-- What decides about a new run; each count stops where it is enough.
SELECT
  (SELECT count(*) FROM (
    SELECT FROM examples WHERE tenant_id = $1 AND dataset = $2 AND status = 'free' LIMIT $3) AS f) AS free,
  (SELECT count(*) FROM (
    SELECT FROM examples
    WHERE tenant_id = $1 AND dataset = $2 AND status IN ('free', 'reserved', 'used') AND split = 'train'
    LIMIT $4) AS t) AS train,
  (SELECT count(*) FROM (
    SELECT FROM examples
    WHERE tenant_id = $1 AND dataset = $2 AND status IN ('free', 'reserved', 'used') AND split = 'holdout'
    LIMIT $5) AS h) AS holdout,
  EXISTS (SELECT FROM training_runs WHERE tenant_id = $1 AND dataset = $2 AND ended_at IS NULL) AS running

-- name: suppliers
-- How many free examples each supplier gave.
SELECT supplier, count(*) AS examples FROM examples
WHERE tenant_id = $1 AND dataset = $2 AND status = 'free' GROUP BY supplier

-- name: oldest_free
-- Since when the oldest example waits.
SELECT min(recorded_at) FROM examples WHERE tenant_id = $1 AND dataset = $2 AND status = 'free'

-- name: set_marks
-- Says that a trigger of our own is under way, or is not.
UPDATE datasets SET trigger_at = $3, age_check_at = $4 WHERE tenant_id = $1 AND dataset = $2

-- name: add_example
-- Enters an example unless the dataset has one that teaches the same.
WITH added AS (
INSERT INTO examples (
  tenant_id, example_id, dataset, status, split, messages, content_sha256, prompt_sha256, weight, tokens, source,
  query_id, reason, event_id, supplier, lineage)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
ON CONFLICT (tenant_id, dataset, content_sha256) DO NOTHING
RETURNING tenant_id, dataset, example_id
), embedded AS (
INSERT INTO example_vectors (tenant_id, dataset, example_id, model, near)
SELECT tenant_id, dataset, example_id, $17, $18 FROM added WHERE $18::halfvec IS NOT NULL
)
SELECT example_id FROM added

-- name: wishes
-- What a dataset asks of its examples.
SELECT screening, near_duplicate FROM datasets WHERE tenant_id = $1 AND dataset = $2

-- name: search_far
-- For this transaction: an index walk goes on past other datasets' rows until it has found enough.
SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true)

-- name: neighbours
-- The known examples with the nearest prompts, nearest first, and one with the same prompt.
WITH near AS MATERIALIZED (
  SELECT v.example_id, -(v.near <#> $4) AS similarity FROM example_vectors v
  WHERE v.tenant_id = $1 AND v.dataset = $2 AND v.model = $3
  ORDER BY v.near <#> $4 LIMIT 10
), same AS MATERIALIZED (
  SELECT example_id, 1.0::float8 AS similarity FROM examples
  WHERE tenant_id = $1 AND dataset = $2 AND prompt_sha256 = $5 LIMIT 10
)
SELECT e.example_id, e.split, max(n.similarity) AS similarity, e.messages,
       e.status IN ('pending', 'free', 'reserved', 'used') AS counts
FROM (SELECT * FROM near UNION ALL SELECT * FROM same) n
JOIN examples e ON e.tenant_id = $1 AND e.example_id = n.example_id
GROUP BY e.tenant_id, e.example_id ORDER BY 3 DESC, e.example_id

-- name: add_run
-- Makes a run, named after the event that asked for it.
INSERT INTO training_runs (tenant_id, run_id, dataset, alias, base_model, reason, margin, epochs, collections)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
RETURNING *

-- name: reserve
-- Reserves free examples for a run: those named, or all; of each supplier the oldest, no more than so many.
UPDATE examples SET status = 'reserved', run_id = $3, changed_at = now()
WHERE tenant_id = $1 AND example_id IN (
  SELECT example_id FROM (
    SELECT example_id, row_number() OVER (PARTITION BY supplier ORDER BY example_id) AS place FROM examples
    WHERE tenant_id = $1 AND dataset = $2 AND status = 'free'
      AND ($4::uuid[] IS NULL OR example_id = ANY ($4::uuid[]))) AS f
  WHERE $5::int IS NULL OR place <= $5)

-- name: set_reserved
-- How many examples triggered a run.
UPDATE training_runs SET examples = $3 WHERE tenant_id = $1 AND run_id = $2

-- name: run
-- A run as it is now.
SELECT * FROM training_runs WHERE tenant_id = $1 AND run_id = $2

-- name: move
-- Takes a run from one state to the next; no row when it is not there any more.
UPDATE training_runs SET status = $4, updated_at = now()
WHERE tenant_id = $1 AND run_id = $2 AND status = $3
RETURNING run_id

-- name: note
-- One line of a run's history.
INSERT INTO training_events (tenant_id, run_id, what, details) VALUES ($1, $2, $3, $4)

-- name: fix_examples
-- Fixes what a run is made of: all valid examples of the dataset, each in its split; free ones unless a share bounds them.
INSERT INTO run_examples (tenant_id, run_id, example_id, split)
SELECT tenant_id, $3, example_id, split FROM examples
WHERE tenant_id = $1 AND dataset = $2
  AND (status = 'used' OR (status = 'free' AND $4) OR (status = 'reserved' AND run_id = $3))
ON CONFLICT DO NOTHING

-- name: drop_withdrawn
-- Takes out of a run what was withdrawn or kept apart since it began.
DELETE FROM run_examples r USING examples e
WHERE r.tenant_id = $1 AND r.run_id = $2 AND e.tenant_id = r.tenant_id AND e.example_id = r.example_id
  AND e.status IN ('withdrawn', 'quarantined')

-- name: withdrawn
-- How many examples of a run were withdrawn or kept apart since it was prepared.
SELECT count(*) FROM run_examples r JOIN examples e USING (tenant_id, example_id)
WHERE r.tenant_id = $1 AND r.run_id = $2 AND e.status IN ('withdrawn', 'quarantined')

-- name: train_tokens
-- Tokens of the examples that a run trains on, in one epoch.
SELECT coalesce(sum(e.tokens), 0)::bigint FROM run_examples r JOIN examples e USING (tenant_id, example_id)
WHERE r.tenant_id = $1 AND r.run_id = $2 AND r.split = 'train'

-- name: dataset_spent
-- What other runs of a dataset that began this UTC month cost, or were promised.
SELECT coalesce(sum(cost_micros), 0)::bigint FROM training_runs
WHERE tenant_id = $1 AND dataset = $2 AND run_id <> $3
  AND started_at >= date_trunc('month', now() AT TIME ZONE 'utc') AT TIME ZONE 'utc'

-- name: set_cost
-- What a run costs, or was promised.
UPDATE training_runs SET cost_micros = $3 WHERE tenant_id = $1 AND run_id = $2

-- name: run_messages
-- The examples of one split of a run, in the order in which its file holds them.
SELECT e.example_id, e.messages, e.tokens
FROM run_examples r JOIN examples e USING (tenant_id, example_id)
WHERE r.tenant_id = $1 AND r.run_id = $2 AND r.split = $3
ORDER BY e.example_id

-- name: holdout
-- The held-out examples of a run, in an order that has nothing to do with their age.
SELECT e.example_id, e.messages
FROM run_examples r JOIN examples e USING (tenant_id, example_id)
WHERE r.tenant_id = $1 AND r.run_id = $2 AND r.split = 'holdout'
ORDER BY e.prompt_sha256, e.example_id
LIMIT $3

-- name: run_counts
-- How many examples a run has in each split.
SELECT split, count(*) AS examples FROM run_examples WHERE tenant_id = $1 AND run_id = $2 GROUP BY split

-- name: set_files
-- What the files of a run hold.
UPDATE training_runs
SET status = 'uploading', updated_at = now(), train_examples = $3, validation_examples = $4, holdout_examples = $5,
    train_tokens = $6, train_sha256 = $7, validation_sha256 = $8
WHERE tenant_id = $1 AND run_id = $2 AND status = 'preparing'

-- name: set_uploaded
-- The files are at the provider; from here on a job may be created.
UPDATE training_runs
SET status = 'submitted', updated_at = now(), train_file = $3, validation_file = $4, heard_at = now()
WHERE tenant_id = $1 AND run_id = $2 AND status = 'uploading'

-- name: may_call
-- Takes the right to create the job, once: committed before the call, so that whoever comes after knows of it.
UPDATE training_runs SET called_at = clock_timestamp(), empty_lists = 0, updated_at = now()
WHERE tenant_id = $1 AND run_id = $2 AND status = 'submitted' AND cancel_asked_at IS NULL
  AND called_at IS NOT DISTINCT FROM $3
RETURNING called_at

-- name: not_called
-- The provider refused: the call certainly created nothing.
UPDATE training_runs SET called_at = NULL, empty_lists = 0, updated_at = now()
WHERE tenant_id = $1 AND run_id = $2 AND status = 'submitted' AND called_at = $3

-- name: looked
-- One more look that found no job.
UPDATE training_runs SET empty_lists = $3, updated_at = now()
WHERE tenant_id = $1 AND run_id = $2 AND status = 'submitted'

-- name: set_job
-- The run has its job.
UPDATE training_runs SET status = $3, job_id = $4, job_status = $5, heard_at = now(), updated_at = now()
WHERE tenant_id = $1 AND run_id = $2 AND status = 'submitted'

-- name: known_events
-- Which of the provider's events are entered.
SELECT provider_id FROM training_events WHERE tenant_id = $1 AND run_id = $2 AND provider_id IS NOT NULL

-- name: add_provider_event
-- Enters an event of the provider once.
INSERT INTO training_events (tenant_id, run_id, at, what, provider_id, step, train_loss, valid_loss, details)
VALUES ($1, $2, $3, 'provider', $4, $5, $6, $7, $8)
ON CONFLICT (tenant_id, run_id, provider_id) DO NOTHING

-- name: set_watched
-- What polling found; hearing something new resets the stall clock.
UPDATE training_runs
SET status = $3, job_status = $4, estimated_finish = $5, updated_at = now(),
    heard_at = CASE WHEN $6 THEN now() ELSE heard_at END
WHERE tenant_id = $1 AND run_id = $2 AND status = $7

-- name: set_trained
-- The provider delivered a model.
UPDATE training_runs
SET status = 'evaluating', job_status = $3, model = $4, trained_tokens = $5, heard_at = now(), updated_at = now(),
    contenders = $7
WHERE tenant_id = $1 AND run_id = $2 AND status = $6
RETURNING run_id

-- name: add_model
-- Keeps a tuned model.
INSERT INTO models (tenant_id, model, base_model, dataset, run_id, shutdown_date) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant_id, model) DO NOTHING

-- name: alias
-- What an alias means now.
SELECT model, previous FROM model_aliases WHERE tenant_id = $1 AND alias = $2

-- name: alias_turn
-- One change of an alias at a time, also of one that has no row yet.
SELECT pg_advisory_xact_lock(hashtextextended('penstock.alias.' || $1::text || '.' || $2::text, 0))

-- name: hold_run
-- A run that is about to end, held against whoever wants to cancel it.
SELECT cancel_asked_at, ended_at FROM training_runs WHERE tenant_id = $1 AND run_id = $2 FOR UPDATE

-- name: resumed
-- The trainer was told to go on.
UPDATE training_runs SET resume_asked_at = NULL WHERE tenant_id = $1 AND run_id = $2

-- name: not_paused
-- The trainer cannot hold a job: nobody asks it again.
UPDATE training_runs SET pause_asked_at = NULL WHERE tenant_id = $1 AND run_id = $2

-- name: graded
-- What has been answered and graded already.
SELECT model, example_id, answer, error, grades, tokens_in, tokens_out, latency_ms
FROM evaluations WHERE tenant_id = $1 AND run_id = $2

-- name: add_grades
-- Keeps answers with their grades.
INSERT INTO evaluations (
  tenant_id, run_id, model, example_id, answer, error, grades, tokens_in, tokens_out, latency_ms)
SELECT $1, $2, model, example_id, answer, error, grades, tokens_in, tokens_out, latency_ms
FROM unnest($3::text[], $4::uuid[], $5::text[], $6::jsonb[], $7::jsonb[], $8::int[], $9::int[], $10::real[])
  AS g (model, example_id, answer, error, grades, tokens_in, tokens_out, latency_ms)
ON CONFLICT DO NOTHING

-- name: complete_grades
-- Adds the grades that need all answers at once.
UPDATE evaluations e SET grades = e.grades || g.grades
FROM unnest($3::text[], $4::uuid[], $5::jsonb[]) AS g (model, example_id, grades)
WHERE e.tenant_id = $1 AND e.run_id = $2 AND e.model = g.model AND e.example_id = g.example_id

-- name: set_evaluation
-- The table that decided.
UPDATE training_runs SET evaluation = $3, updated_at = now() WHERE tenant_id = $1 AND run_id = $2

-- name: end_run
-- A run ends; no row when it had ended before.
UPDATE training_runs
SET status = $3, error = $4, ended_at = now(), updated_at = now(),
    cost_micros = CASE WHEN $3 IN ('promoted', 'rejected') THEN cost_micros ELSE 0 END
WHERE tenant_id = $1 AND run_id = $2 AND ended_at IS NULL AND status = ANY ($5::text[])
RETURNING dataset

-- name: give_back
-- A run that ended without a model frees what it reserved.
UPDATE examples SET status = 'free', run_id = NULL, changed_at = now()
WHERE tenant_id = $1 AND run_id = $2 AND status = 'reserved'

-- name: use
-- A run that ended with a model has used what it reserved.
UPDATE examples SET status = 'used', changed_at = now()
WHERE tenant_id = $1 AND run_id = $2 AND status = 'reserved'

-- name: set_outcome
-- What a run's end means for the next one.
UPDATE datasets SET failures = $3, not_before = $4 WHERE tenant_id = $1 AND dataset = $2

-- name: cleaned
-- Nothing of the run is left at the provider but its model.
UPDATE training_runs SET cleaned_at = now() WHERE tenant_id = $1 AND run_id = $2 AND ended_at IS NOT NULL

-- name: set_alias
-- Points an alias at a model.
INSERT INTO model_aliases AS a (tenant_id, alias, model, previous, run_id) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, alias) DO UPDATE
SET model = excluded.model, previous = excluded.previous, run_id = excluded.run_id, changed_at = now()

-- name: add_alias_change
-- One line of an alias's history.
INSERT INTO model_alias_history (tenant_id, alias, model, previous, run_id, reason, actor)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: deployment
-- The name of this deployment.
SELECT deployment_id FROM deployment

-- name: answer
-- The question and answer that feedback is about; a follow-up question as it was searched for, standing alone.
SELECT coalesce(standalone, question) AS question, answer, status, alias, model, passages, citations FROM answers WHERE tenant_id = $1 AND query_id = $2

-- name: feedback_dataset
-- Where feedback about answers of an alias belongs: the alias's first dataset.
SELECT dataset, approval FROM datasets WHERE tenant_id = $1 AND alias = $2 ORDER BY created_at, dataset LIMIT 1

-- name: served_models
-- The tuned models that serve, all tenants'.
SELECT * FROM served_models()

-- name: service
-- How a model has done under an alias lately: answers that another model had to give, and those that it was tried for.
SELECT count(*) FILTER (WHERE instead) AS failed, count(*) AS tried
FROM (
  SELECT report ->> 'instead_of' = $3 AS instead, model FROM answers
  WHERE tenant_id = $1 AND alias = $2 AND created_at > greatest($5::timestamptz, now() - interval '10 minutes')
    AND status IN ('answered', 'abstained') AND model IS NOT NULL AND NOT report ? 'same_as'
  ORDER BY created_at DESC LIMIT 2000) AS lately
-- What the base model answered without a try is neither: the tuned one was being avoided.
WHERE instead OR model IS DISTINCT FROM $4

-- name: serving_models
-- What all tenants' aliases mean, tuned or not, with what their owners were told of its end.
SELECT * FROM serving_models($1)

-- name: warn
-- Notes of how many days before its end an alias's owner is told now; no row when that was done.
INSERT INTO model_warnings AS w (tenant_id, alias, model, ends_on, warned_days) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, alias, model) DO UPDATE SET ends_on = excluded.ends_on, warned_days = excluded.warned_days
WHERE w.ends_on <> excluded.ends_on OR w.warned_days > excluded.warned_days
RETURNING model

-- name: set_shutdown
-- Notes when a tuned model ends, or that it does not.
UPDATE models SET shutdown_date = $3
WHERE tenant_id = $1 AND model = $2 AND shutdown_date IS DISTINCT FROM $3

-- name: contexts
-- What was retrieved for a run's held-out questions.
SELECT example_id, passages FROM evaluation_contexts WHERE tenant_id = $1 AND run_id = $2

-- name: add_context
-- Keeps what was retrieved for a question, the first time.
INSERT INTO evaluation_contexts (tenant_id, run_id, example_id, passages) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING

-- name: set_model
-- A checkpoint of the run is better than the model at its end.
UPDATE training_runs SET model = $3 WHERE tenant_id = $1 AND run_id = $2

-- name: ladder
-- What a dataset's ladder is made of: its base model, and the model that its alias means now.
SELECT d.base_model, d.collections, d.margin, a.model
FROM datasets d LEFT JOIN model_aliases a ON a.tenant_id = d.tenant_id AND a.alias = d.alias
WHERE d.tenant_id = $1 AND d.dataset = $2

-- name: held_out
-- Held-out examples of a dataset, in an order that has nothing to do with their age.
SELECT example_id, messages FROM examples
WHERE tenant_id = $1 AND dataset = $2 AND split = 'holdout' AND status IN ('free', 'reserved', 'used')
ORDER BY prompt_sha256, example_id LIMIT $3

-- name: nearest_train
-- The examples of the train split whose prompts are nearest, nearest first; never one that is held out.
SELECT e.messages
FROM example_vectors v JOIN examples e ON e.tenant_id = v.tenant_id AND e.example_id = v.example_id
WHERE v.tenant_id = $1 AND v.dataset = $2 AND v.model = $3
  AND e.split = 'train' AND e.status IN ('free', 'reserved', 'used')
ORDER BY v.near <#> $4 LIMIT $5
