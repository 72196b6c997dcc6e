"""Running servers are asked here what they are, for `penstock doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import asyncpg
from redis.asyncio import Redis

from infra.local.servers import Servers


@dataclass(frozen=True, slots=True)
class Versions:
    """What the servers say about themselves."""

    postgres: str
    pgvector: str | None
    fsync: bool
    valkey: str
    aof_enabled: bool
    aof_healthy: bool
    """The last write to the append-only file and its last rewrite succeeded."""
    maxmemory_policy: str


async def server_versions(servers: Servers) -> Versions:
    """Ask both servers, as the login that processes use.

    Raises:
        OSError, asyncpg.PostgresError, redis.RedisError: a server does not answer.
    """
    connection = await asyncpg.connect(servers.database_url)
    try:
        postgres = await connection.fetchval("SELECT current_setting('server_version')")
        pgvector = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        fsync = await connection.fetchval("SELECT current_setting('fsync')")
    finally:
        await connection.close()
    async with Redis.from_url(servers.redis_url) as client:
        about = cast("dict[str, Any]", await client.info())
    return Versions(
        postgres=str(postgres),
        pgvector=None if pgvector is None else str(pgvector),
        fsync=fsync == "on",
        valkey=str(about.get("valkey_version", about["redis_version"])),
        aof_enabled=bool(about["aof_enabled"]),
        aof_healthy=about["aof_last_write_status"] == "ok" and about["aof_last_bgrewrite_status"] == "ok",
        maxmemory_policy=str(about["maxmemory_policy"]),
    )
