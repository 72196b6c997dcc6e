"""A worker's beginning and end: it waits for Redis to begin; told to stop, it gives back uncharged what cannot finish."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import partial
from typing import Any, Final

import arq
import structlog
from arq.connections import RedisSettings, create_pool, log_redis_info
from arq.worker import logger

from workers.engine.alarm import Alarm
from workers.engine.link import RedisLink
from workers.engine.pool import over_one_line

CLOSING: Final = 5.0

log = structlog.get_logger()


class Lifetime(arq.Worker, ABC):
    """arq's ways to start and stop a worker, made safe. `job_completion_wait` is the grace in seconds; 0 means none."""

    job_counter: int
    jobs_complete: int
    jobs_retried: int
    jobs_failed: int

    def __init__(self, *args: Any, **options: Any) -> None:
        self._stopping = False
        self._closing = False
        self._grace: asyncio.Task[Any] | None = None
        self._alarm = Alarm()
        super().__init__(*args, **options)
        self._link = RedisLink(self.queue_name)

    @abstractmethod
    def _assemble(self) -> None:
        """Put the parts around the pool, once there is one."""

    async def _open(self) -> None:
        if self._pool is None:
            # A burst reports an unreachable Redis as arq does; a service waits for it.
            retries = self.redis_settings.conn_retries if self.burst and self.redis_settings else 0
            settings = replace(self.redis_settings or RedisSettings(), conn_retries=retries)
            connect = partial(
                create_pool,
                settings,
                job_deserializer=self.job_deserializer,
                job_serializer=self.job_serializer,
                default_queue_name=self.queue_name,
                expires_extra_ms=self.expires_extra_ms,
            )
            pool = await (connect() if self.burst else self._link.persist(connect))
            # A sentinel's connections follow the master by themselves, one by one.
            self._pool = pool if settings.sentinel else over_one_line(pool)
            self._assemble()
        logger.info("Starting worker for %d functions: %s", len(self.functions), ", ".join(self.functions))
        await log_redis_info(self.pool, logger.info)
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)

    @abstractmethod
    async def _hand_back(self) -> None:
        """Give back what still runs and send all settlements; called when all tasks have ended."""

    def handle_sig(self, signum: signal.Signals) -> None:
        """Stop at once: running jobs are cancelled and given back uncharged."""
        self._stopping = True
        self.allow_pick_jobs = False
        super().handle_sig(signum)

    def handle_sig_wait_for_completion(self, signum: signal.Signals) -> None:
        """Stop claiming and give running jobs their grace; a second signal stops at once."""
        if self._stopping:
            self.handle_sig(signum)
            return
        self._stopping = True
        super().handle_sig_wait_for_completion(signum)
        self._alarm.ring()

    async def _wait_for_tasks_to_complete(self, signum: signal.Signals) -> None:
        self._grace = asyncio.current_task()
        await super()._wait_for_tasks_to_complete(signum)

    async def close(self) -> None:
        """Give back what runs, send what is settled, close the connections.

        If Redis stays away, the leases of what could not be given back run out instead.
        """
        if not self._handle_signals:
            self.handle_sig(signal.SIGUSR1)
        if self._pool is None:
            return
        self._closing = True
        self._alarm.ring()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        if self._grace is not None:
            await self._grace
        try:
            async with asyncio.timeout(CLOSING):
                await self._hand_back()
        except TimeoutError:
            log.warning("engine.closed_without_redis", queue=self.queue_name)
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await self.pool.aclose(close_connection_pool=True)
        self._pool = None
