"""A Lua file of `scripts/` becomes an awaitable function here: called by SHA, loaded again when Redis forgot it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Final, cast

from arq.connections import ArqRedis

FOLDER: Final = Path(__file__).parent / "scripts"


class Script:
    """One script on one connection pool; it answers with a list.

    Args:
        redis: where it runs.
        name: the file's name without its ending.
    """

    def __init__(self, redis: ArqRedis, name: str) -> None:
        self._run = redis.register_script((FOLDER / f"{name}.lua").read_text(encoding="utf-8"))
        self.sha: str = self._run.sha

    async def __call__(self, *, keys: Sequence[str], args: Sequence[str | int | bytes]) -> list[Any]:
        """Run it.

        Raises:
            redis.exceptions.RedisError: Redis is away, or the script failed.
        """
        return await cast("Awaitable[list[Any]]", self._run(keys=keys, args=args))
