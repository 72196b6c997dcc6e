-- name: schema
-- One table holds every object as JSON, in the order in which they came; `parent` is the job of an event.
CREATE TABLE IF NOT EXISTS objects (
    place  INTEGER PRIMARY KEY AUTOINCREMENT,
    kind   TEXT NOT NULL,
    id     TEXT NOT NULL UNIQUE,
    parent TEXT NOT NULL DEFAULT '',
    doc    TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS objects_by_parent ON objects (kind, parent, place);

-- name: insert
-- Keep a new object.
INSERT INTO objects (kind, id, parent, doc) VALUES (:kind, :id, :parent, :doc);

-- name: update
-- Replace what is kept of an object.
UPDATE objects SET doc = :doc WHERE kind = :kind AND id = :id;

-- name: get
-- One object.
SELECT doc FROM objects WHERE kind = :kind AND id = :id;

-- name: remove
-- Forget an object.
DELETE FROM objects WHERE kind = :kind AND id = :id;

-- name: all
-- All objects of a kind and parent, oldest first.
SELECT doc FROM objects WHERE kind = :kind AND parent = :parent ORDER BY place;
