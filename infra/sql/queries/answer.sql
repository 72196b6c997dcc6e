-- name: alias
-- What an alias means now, with the model to fall back to. Says itself for whom it acts, as those below do.
SELECT model, base_model, dataset FROM alias_for($1, $2)

-- name: template
-- The newest version of a template.
SELECT version, body FROM template_for($1, $2)

-- name: add_template
-- Keeps a version; nothing comes back when somebody else kept that number first.
INSERT INTO templates (tenant_id, name, version, body) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant_id, name, version) DO NOTHING RETURNING version

-- name: read
-- An answer, or what its event says as long as there is none.
SELECT a.status, a.question, a.standalone, a.collections, a.answer, a.structured, a.citations, a.passages, a.report,
       a.alias, a.model, a.usage, a.timings_ms, a.error, a.created_at, a.finished_at
FROM answers a WHERE a.tenant_id = $1 AND a.query_id = $2
UNION ALL
SELECT CASE WHEN e.dead_at IS NULL THEN 'pending' ELSE 'failed' END, e.data->>'question', NULL,
       ARRAY(SELECT jsonb_array_elements_text(e.data->'collections')), NULL, NULL, '[]', '[]', '{}',
       e.data->>'model', NULL, '{}', '{}', e.error - 'trace', e.accepted_at, e.dead_at
FROM events e
WHERE e.tenant_id = $1 AND e.event_id = $2 AND e.type = 'query.received'
  AND NOT EXISTS (SELECT FROM answers a WHERE a.tenant_id = $1 AND a.query_id = $2)

-- name: stands
-- How an answer stands.
SELECT status, error FROM answers WHERE tenant_id = $1 AND query_id = $2

-- name: begin
-- Shows that a model is writing; nobody waits until that is on disk.
SELECT answers_begin($1, $2, $3::text[]), set_config('synchronous_commit', 'off', true)

-- name: finish
-- Writes a finished answer, once: a row whose state does not allow it stays as it is.
INSERT INTO answers AS a (
  tenant_id, query_id, status, question, standalone, collections, answer, structured, citations, passages, report,
  alias, model, usage, timings_ms, error, subjectref, created_at, finished_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, now())
ON CONFLICT (tenant_id, query_id) DO UPDATE SET
  status = excluded.status, standalone = excluded.standalone, answer = excluded.answer,
  structured = excluded.structured, citations = excluded.citations, passages = excluded.passages,
  report = excluded.report, alias = excluded.alias, model = excluded.model, usage = excluded.usage,
  timings_ms = excluded.timings_ms, error = excluded.error, finished_at = excluded.finished_at
WHERE a.status = ANY ($19::text[]) AND coalesce(a.error ->> 'code', '') <> 'cancelled'
RETURNING status

-- name: cancel
-- Withdraws a question that is not finished, whether a worker has taken it up or not.
INSERT INTO answers AS a (tenant_id, query_id, status, question, collections, error, subjectref, created_at, finished_at)
SELECT e.tenant_id, e.event_id, 'failed', e.data->>'question',
       ARRAY(SELECT jsonb_array_elements_text(e.data->'collections')), $3, e.attributes->>'subjectref',
       e.accepted_at, now()
FROM events e WHERE e.tenant_id = $1 AND e.event_id = $2 AND e.type = 'query.received' AND e.finished_at IS NULL
ON CONFLICT (tenant_id, query_id) DO UPDATE SET status = 'failed', error = excluded.error, finished_at = now()
WHERE a.status = ANY ($4::text[])
RETURNING status

-- name: examples
-- The newest examples that an alias's models are trained on, without those that are held out.
SELECT e.messages FROM examples e JOIN datasets d ON d.tenant_id = e.tenant_id AND d.dataset = e.dataset
WHERE e.tenant_id = $1 AND d.alias = $2 AND e.split = 'train' AND e.status IN ('free', 'reserved', 'used')
ORDER BY e.recorded_at DESC LIMIT $3

-- name: prepare
-- What a search must know of collections, the question's key in the cache, which their generations complete, and what
-- the same question was answered with, if that was less than a day ago. Says itself for whom it acts.
SELECT * FROM prepare_for($1, $2::text[], $3::bytea)

-- name: cache
-- Keeps an answer for whoever asks the same again; what it says stands in its own row.
INSERT INTO answer_cache (tenant_id, key_sha256, query_id, result) VALUES ($1, $2, $3, '{}')
ON CONFLICT (tenant_id, key_sha256) DO UPDATE SET query_id = excluded.query_id, result = excluded.result, made_at = now()

-- name: end
-- Writes answers and all that ends their events; says itself for whom it acts.
SELECT event_id, ended FROM answers_end($1, $2, $3::text[])
