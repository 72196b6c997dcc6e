-- Webhooks: what an endpoint can take, why it is spared at the moment, and replays that happen once.

-- Messages per second that its owner allows; and, while it is throttled, the time until which it is left alone.
ALTER TABLE webhook_endpoints ADD COLUMN rate_limit float8 CHECK (rate_limit > 0), ADD COLUMN throttled_until timestamptz;
GRANT UPDATE (throttled_until) ON webhook_endpoints TO penstock_worker;

-- One row per replay. A nonce of the caller's makes a request that is repeated happen once.
CREATE TABLE webhook_replays (
  tenant_id text NOT NULL,
  endpoint_id uuid NOT NULL,
  nonce text NOT NULL,
  replay_id uuid NOT NULL,
  selection jsonb NOT NULL,
  messages int NOT NULL DEFAULT 0,
  -- Where the next page begins, so that a replay that was interrupted goes on under the same nonce.
  next_after uuid,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, endpoint_id, nonce),
  FOREIGN KEY (tenant_id, endpoint_id) REFERENCES webhook_endpoints ON DELETE CASCADE
);
SELECT secure_table('webhook_replays');
GRANT SELECT, INSERT, UPDATE ON webhook_replays TO penstock_gateway;

-- full or thin as its owner said, or as large as it is.
ALTER TABLE webhook_endpoints DROP CONSTRAINT webhook_endpoints_payload_check,
  ADD CONSTRAINT webhook_endpoints_payload_check CHECK (payload IN ('auto', 'full', 'thin')),
  ALTER COLUMN payload SET DEFAULT 'auto';
