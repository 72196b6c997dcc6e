"""Every column of every table and every key of Redis pass through here, in search of a word that should be gone."""

from __future__ import annotations

from typing import Any

import redis.asyncio

from infra.database import Database

TABLES = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind = 'r' ORDER BY c.relname
"""


async def tables_with(owner: Database, word: str) -> dict[str, int]:
    """Table → rows in which the word stands, as text or as bytes."""
    found: dict[str, int] = {}
    async with owner.connection() as connection:
        for row in await connection.fetch(TABLES):
            name = row["relname"]
            # A row as JSON shows bytes in hexadecimal, vectors and words as text.
            count = await connection.fetchval(
                f'SELECT count(*) FROM "{name}" t WHERE strpos(to_jsonb(t)::text, $1) + strpos(to_jsonb(t)::text, $2) > 0',  # noqa: S608 - a name from the catalogue
                word,
                word.encode().hex(),
            )
            if count:
                found[name] = count
    return found


async def keys_with(client: redis.asyncio.Redis, word: str) -> list[bytes]:
    """Redis keys in whose name or value the word stands."""
    readers: dict[bytes, Any] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    found: list[bytes] = []
    async for key in client.scan_iter(count=1000):
        value = await readers[await client.type(key)](key)
        if word in repr(key) or word in repr(value):
            found.append(key)
    return found
