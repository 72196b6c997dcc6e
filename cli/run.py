"""Every command passes through here: settings, logging, one event loop, and an error in one line that names the fix.

Exit codes: 0 done, 1 failed, 2 wrong usage or a missing setting, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from schemas.errors import BadInput, Misconfigured, PenstockError

if TYPE_CHECKING:
    from infra.database import Database
    from infra.settings import Settings

T = TypeVar("T")
FAILED, USAGE, INTERRUPTED = 1, 2, 130
TIED = "PENSTOCK_TIED"
"""Set for children of `up` and `demo`: they end when their standard input does, which is when their owner ends."""
STACK_FILE = "stack.json"
"""In the home folder while `up` runs: the settings that let other commands join its stack."""
OWN_SETTINGS = ("DATABASE_URL", "REDIS_URL")


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command on uvloop.

    What a command prints is read by programs: unless it has started a log, only warnings are told, and beside it.
    """
    import structlog
    import uvloop

    from infra import log

    if not structlog.is_configured():
        log.configure(level="warning", form="console")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def stop_with_message(error: PenstockError) -> typer.Exit:
    """Print what failed and what to do; 2 for settings and for options that cannot be read, 1 for the rest."""
    where = f" [{error.field}]" if error.field and error.field not in error.message else ""
    typer.secho(f"error: {error.message}{where}", err=True, fg=typer.colors.RED)
    if error.fix:
        typer.echo(f"  fix: {error.fix}", err=True)
    # What a gateway refuses is a GatewayRefused: a BadInput that gets here is about the command's own arguments.
    return typer.Exit(USAGE if isinstance(error, Misconfigured | BadInput) else FAILED)


def serving_settings(**overrides: Any) -> Settings:
    """Settings of a command that serves or operates: what is configured, or else a running local stack.

    Raises:
        Misconfigured: neither; names the setting.
    """
    from infra.settings import Settings, load_settings

    settings = load_settings(**overrides)
    if settings.database_url is None and settings.redis_url is None:
        joined = _running_stack(settings.home)
        if joined:
            aliases = {name: name.removeprefix("PENSTOCK_").lower() for name in joined}
            known = {
                aliases[name]: value
                for name, value in joined.items()
                if aliases[name] in Settings.model_fields
            }
            unset = {name: value for name, value in known.items() if name not in settings.model_fields_set}
            return load_settings(**{**unset, **overrides})
    return settings


def _running_stack(home: Path) -> dict[str, str]:
    path = home / STACK_FILE
    if not path.is_file():
        return {}
    from infra.local.stack import find_running

    if find_running(home) is None:
        return {}
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def start_logging(settings: Settings, *, form: str | None = None) -> None:
    """Log as the settings say; to standard error."""
    from infra import log

    log.configure(level=settings.log_level, form=form or settings.log_format)


def tie_to_owner() -> None:
    """End by SIGTERM when the process that started us is gone, however it went."""
    if os.environ.get(TIED) != "1":
        return

    def wait() -> None:
        while os.read(0, 64):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="tied to owner", daemon=True).start()


@asynccontextmanager
async def owner_database() -> AsyncIterator[Database]:
    """The owner's connection, for operator commands.

    Raises:
        Misconfigured: neither PENSTOCK_DATABASE_OWNER_URL nor a running local stack.
    """
    from infra.database import Database

    settings = serving_settings()
    url = settings.need("PENSTOCK_DATABASE_OWNER_URL")
    async with Database.open(url, role=None, size=2, application="penstock operator") as database:
        yield database


def is_terminal() -> bool:
    """Whether a person looks at standard output."""
    return sys.stdout.isatty()
