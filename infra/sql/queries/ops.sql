-- name: dead
-- Dead events per queue.
SELECT queue, events FROM system_dead()

-- name: counts
-- Unfinished and dead events per queue, type and status.
SELECT queue, type, status, events, oldest FROM system_counts()

-- name: waiting
-- Unfinished events, counted up to a bound.
SELECT system_waiting($1)

-- name: recall
-- How much of the exact result searches through vector indexes found in the last day, per embedding space.
SELECT space_id, recall, samples FROM system_recall()
