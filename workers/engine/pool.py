"""arq's client passes through here and sends over the one line that a process shares (`infra.redis_client`)."""

from __future__ import annotations

from arq.connections import ArqRedis

from infra.redis_client import Client


class LinedRedis(Client, ArqRedis):  # type: ignore[misc] # two of redis-py's own bases differ in a hint
    """arq's methods, our way to send."""


def over_one_line(pool: ArqRedis) -> ArqRedis:
    """The same client on the same connections; what need not wait in Redis shares one of them."""
    return LinedRedis(
        pool_or_conn=pool.connection_pool,
        job_serializer=pool.job_serializer,
        job_deserializer=pool.job_deserializer,
        default_queue_name=pool.default_queue_name,
        expires_extra_ms=pool.expires_extra_ms,
    )
