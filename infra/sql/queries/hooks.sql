-- name: wake
-- Makes the next look at a provider's job due now, once for each webhook.
SELECT event_id, queue FROM training_wake($1, $2)
