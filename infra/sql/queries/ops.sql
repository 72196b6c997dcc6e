-- name: dead
-- Dead events per queue.
SELECT queue, events FROM system_dead()

-- name: counts
-- Unfinished and dead events per queue, type and status.
SELECT queue, type, status, events, oldest FROM system_counts()

-- name: waiting
-- Unfinished events, counted up to a bound.
SELECT system_waiting($1)
