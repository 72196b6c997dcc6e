-- Training: datasets and their examples, runs with what happened in them, evaluations, models and their aliases.

-- Tells this deployment's jobs apart from those of others that share the provider's account.
CREATE TABLE deployment (
  one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
  deployment_id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO deployment DEFAULT VALUES;
GRANT SELECT ON deployment TO penstock_worker;

-- trigger_at says that a training.batch_ready of our own is under way, and from when on it may act: it is set and
-- cleared under the row's lock, so that a threshold fires once however many workers count at once. countdown is how
-- many examples have to come at least before counting again could matter.
CREATE TABLE datasets (
  tenant_id text NOT NULL REFERENCES tenants,
  dataset text NOT NULL,
  alias text NOT NULL DEFAULT 'chat',
  base_model text NOT NULL,
  threshold int NOT NULL DEFAULT 100 CHECK (threshold > 0),
  minimum int NOT NULL DEFAULT 10 CHECK (minimum > 0),
  holdout_minimum int NOT NULL DEFAULT 25 CHECK (holdout_minimum > 0),
  approval text NOT NULL DEFAULT 'manual' CHECK (approval IN ('manual', 'automatic')),
  max_age_hours real CHECK (max_age_hours > 0),
  cooldown_seconds real NOT NULL DEFAULT 0 CHECK (cooldown_seconds >= 0),
  max_failures int NOT NULL DEFAULT 3 CHECK (max_failures > 0),
  margin real NOT NULL DEFAULT 0.01 CHECK (margin > 0),
  epochs int CHECK (epochs BETWEEN 1 AND 50),
  failures int NOT NULL DEFAULT 0,
  not_before timestamptz,
  trigger_at timestamptz,
  age_check_at timestamptz,
  countdown int NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, dataset)
);
SELECT secure_table('datasets');

-- A run is named after the training.batch_ready event that made it: the same event cannot make two.
-- called_at is committed before the call that creates the paid job: from then on the job may exist, and it is looked
-- for before anything is created again. empty_lists counts the looks that found nothing.
CREATE TABLE training_runs (
  tenant_id text NOT NULL,
  run_id uuid NOT NULL,
  dataset text NOT NULL,
  alias text NOT NULL,
  base_model text NOT NULL,
  reason text NOT NULL,
  margin real NOT NULL,
  epochs int,
  status text NOT NULL DEFAULT 'collecting' CHECK (status IN (
    'collecting', 'preparing', 'uploading', 'submitted', 'validating', 'queued', 'running', 'evaluating',
    'promoted', 'rejected', 'failed', 'cancelled', 'unavailable')),
  examples int NOT NULL DEFAULT 0,
  train_examples int,
  validation_examples int,
  holdout_examples int,
  train_tokens bigint,
  train_sha256 bytea,
  validation_sha256 bytea,
  train_file text,
  validation_file text,
  called_at timestamptz,
  empty_lists int NOT NULL DEFAULT 0,
  job_id text,
  job_status text,
  trained_tokens bigint,
  model text,
  estimated_finish timestamptz,
  heard_at timestamptz,
  cancel_asked_at timestamptz,
  evaluation jsonb,
  error jsonb,
  started_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz,
  cleaned_at timestamptz,
  PRIMARY KEY (tenant_id, run_id),
  FOREIGN KEY (tenant_id, dataset) REFERENCES datasets
);
CREATE UNIQUE INDEX training_runs_one_at_a_time ON training_runs (tenant_id, dataset) WHERE ended_at IS NULL;
CREATE INDEX training_runs_by_job ON training_runs (tenant_id, job_id) WHERE job_id IS NOT NULL;
SELECT secure_table('training_runs');

-- split follows from a hash of the normalised prompt and never changes; run_id is the run that an example triggered.
CREATE TABLE examples (
  tenant_id text NOT NULL,
  example_id uuid NOT NULL,
  dataset text NOT NULL,
  status text NOT NULL CHECK (status IN ('pending', 'free', 'reserved', 'used', 'quarantined', 'withdrawn')),
  split text NOT NULL CHECK (split IN ('train', 'validation', 'holdout')),
  messages jsonb NOT NULL,
  content_sha256 bytea NOT NULL,
  prompt_sha256 bytea NOT NULL,
  weight real NOT NULL DEFAULT 1,
  tokens int NOT NULL,
  source text,
  query_id text,
  reason text,
  run_id uuid,
  event_id uuid,
  embedding halfvec,
  recorded_at timestamptz NOT NULL DEFAULT now(),
  changed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, example_id),
  UNIQUE (tenant_id, dataset, content_sha256),
  FOREIGN KEY (tenant_id, dataset) REFERENCES datasets,
  FOREIGN KEY (tenant_id, run_id) REFERENCES training_runs
);
CREATE INDEX examples_by_status ON examples (tenant_id, dataset, status, split);
CREATE INDEX examples_by_prompt ON examples (tenant_id, dataset, prompt_sha256);
CREATE INDEX examples_by_run ON examples (tenant_id, run_id) WHERE run_id IS NOT NULL;
SELECT secure_table('examples');

-- Which examples a run was made of and what each was for, fixed when its files are prepared: they can be written again,
-- byte for byte.
CREATE TABLE run_examples (
  tenant_id text NOT NULL,
  run_id uuid NOT NULL,
  example_id uuid NOT NULL,
  split text NOT NULL CHECK (split IN ('train', 'validation', 'holdout')),
  PRIMARY KEY (tenant_id, run_id, example_id),
  FOREIGN KEY (tenant_id, run_id) REFERENCES training_runs,
  FOREIGN KEY (tenant_id, example_id) REFERENCES examples ON DELETE CASCADE
);
SELECT secure_table('run_examples');

-- What happened in a run, append-only; what the provider said carries the provider's id and is entered once.
CREATE TABLE training_events (
  tenant_id text NOT NULL,
  run_id uuid NOT NULL,
  event_no bigint GENERATED ALWAYS AS IDENTITY,
  at timestamptz NOT NULL DEFAULT now(),
  what text NOT NULL,
  provider_id text,
  step int,
  train_loss real,
  valid_loss real,
  details jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (tenant_id, run_id, event_no),
  UNIQUE (tenant_id, run_id, provider_id),
  FOREIGN KEY (tenant_id, run_id) REFERENCES training_runs
);
SELECT secure_table('training_events');

-- Every answer of every model that was compared, kept with its grades.
CREATE TABLE evaluations (
  tenant_id text NOT NULL,
  run_id uuid NOT NULL,
  model text NOT NULL,
  example_id uuid NOT NULL,
  answer text,
  error jsonb,
  grades jsonb NOT NULL DEFAULT '{}',
  tokens_in int NOT NULL DEFAULT 0,
  tokens_out int NOT NULL DEFAULT 0,
  latency_ms real,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, run_id, model, example_id),
  FOREIGN KEY (tenant_id, run_id) REFERENCES training_runs,
  FOREIGN KEY (tenant_id, example_id) REFERENCES examples ON DELETE CASCADE
);
SELECT secure_table('evaluations');

CREATE TABLE models (
  tenant_id text NOT NULL REFERENCES tenants,
  model text NOT NULL,
  base_model text NOT NULL,
  dataset text,
  run_id uuid,
  shutdown_date date,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, model),
  FOREIGN KEY (tenant_id, run_id) REFERENCES training_runs
);
SELECT secure_table('models');

-- What an alias means now; an alias without a row means the default model of the settings.
CREATE TABLE model_aliases (
  tenant_id text NOT NULL REFERENCES tenants,
  alias text NOT NULL,
  model text NOT NULL,
  previous text,
  run_id uuid,
  changed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, alias),
  FOREIGN KEY (tenant_id, run_id) REFERENCES training_runs
);
SELECT secure_table('model_aliases');

CREATE TABLE model_alias_history (
  tenant_id text NOT NULL REFERENCES tenants,
  change_no bigint GENERATED ALWAYS AS IDENTITY,
  alias text NOT NULL,
  model text NOT NULL,
  previous text,
  run_id uuid,
  reason text NOT NULL,
  actor text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, alias, change_no)
);
SELECT secure_table('model_alias_history');

GRANT SELECT, INSERT, UPDATE ON datasets, training_runs, examples, models, model_aliases TO penstock_worker;
GRANT SELECT, INSERT ON run_examples, training_events, evaluations, model_alias_history TO penstock_worker;
GRANT UPDATE (grades) ON evaluations TO penstock_worker;
GRANT SELECT, INSERT, UPDATE ON datasets, model_aliases TO penstock_gateway;
GRANT SELECT ON training_runs, examples, run_examples, training_events, evaluations, models TO penstock_gateway;
GRANT UPDATE (cancel_asked_at) ON training_runs TO penstock_gateway;
GRANT UPDATE (status, reason, changed_at) ON examples TO penstock_gateway;
GRANT SELECT, INSERT ON model_alias_history TO penstock_gateway;
