-- Webhooks: endpoints, messages to them, and every attempt.

CREATE TABLE webhook_endpoints (
  tenant_id text NOT NULL REFERENCES tenants,
  endpoint_id uuid NOT NULL,
  url text NOT NULL,
  types text[] NOT NULL DEFAULT '{*}',
  filter jsonb,
  payload text NOT NULL DEFAULT 'full' CHECK (payload IN ('full', 'thin')),
  headers jsonb NOT NULL DEFAULT '{}',
  timeout_seconds real NOT NULL DEFAULT 15,
  callback_prefix boolean NOT NULL DEFAULT false,
  description text NOT NULL DEFAULT '',
  -- Sealed secrets, newest first: [{"id", "box" (base64), "until" (null for the current one)}].
  secrets jsonb NOT NULL,
  status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'throttled', 'disabled')),
  status_reason text,
  failing_since timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, endpoint_id)
);
SELECT secure_table('webhook_endpoints');

-- One message to one endpoint. body holds the bytes that are signed and sent, the same at every attempt.
CREATE TABLE deliveries (
  tenant_id text NOT NULL,
  delivery_id uuid NOT NULL,
  endpoint_id uuid NOT NULL,
  message_id text NOT NULL,
  event_id uuid NOT NULL,
  type text NOT NULL,
  url text,
  body bytea NOT NULL,
  status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'retrying', 'delivered', 'dead')),
  attempts int NOT NULL DEFAULT 0,
  next_at timestamptz,
  error jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  delivered_at timestamptz,
  PRIMARY KEY (tenant_id, delivery_id),
  FOREIGN KEY (tenant_id, endpoint_id) REFERENCES webhook_endpoints ON DELETE CASCADE
);
CREATE INDEX deliveries_by_endpoint ON deliveries (tenant_id, endpoint_id, delivery_id);
CREATE INDEX deliveries_by_event ON deliveries (tenant_id, event_id);
SELECT secure_table('deliveries');

-- attempt_id is a UUIDv7, so that partitions follow time.
CREATE TABLE delivery_attempts (
  tenant_id text NOT NULL,
  attempt_id uuid NOT NULL,
  delivery_id uuid NOT NULL,
  attempt int NOT NULL,
  status_code int,
  elapsed_ms real,
  error text,
  response_head text,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, attempt_id)
) PARTITION BY RANGE (attempt_id);
CREATE INDEX delivery_attempts_by_delivery ON delivery_attempts (tenant_id, delivery_id);
SELECT secure_table('delivery_attempts');
CREATE TABLE delivery_attempts_default PARTITION OF delivery_attempts DEFAULT;
SELECT make_partitions('delivery_attempts');

GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_endpoints TO penstock_gateway;
GRANT SELECT, UPDATE (status, status_reason, failing_since, updated_at) ON webhook_endpoints TO penstock_worker;
GRANT SELECT, INSERT, UPDATE ON deliveries TO penstock_gateway, penstock_worker;
GRANT SELECT ON delivery_attempts TO penstock_gateway;
GRANT SELECT, INSERT ON delivery_attempts TO penstock_worker;
