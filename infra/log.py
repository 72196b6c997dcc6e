"""Log events pass through here: dotted names with fields, one line each, JSON for machines or colours for people.

No line carries document text, questions, secrets or row contents (promise P8): fields are ids, counts, states and
durations, and exceptions of ours hold messages that were written to be shown.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import orjson
import structlog

SILENCED = {
    # arq logs job arguments at INFO; two lines per job also halve a fast worker.
    "arq": logging.WARNING,
    "httpx": logging.WARNING,
    "httpx2": logging.WARNING,
    "httpcore2": logging.WARNING,
    "openai": logging.WARNING,
    "uvicorn.access": logging.WARNING,
    "uvicorn.error": logging.WARNING,
    "pypdf": logging.ERROR,
}


_bound: ContextVar[Mapping[str, Any]] = ContextVar("penstock_log", default={})  # noqa: B039 - never changed in place
JSON_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z


def bind(**fields: Any) -> None:
    """Add fields to all lines of this task.

    One variable for all of them: structlog's `bind_contextvars` has one per field and looks through the whole context
    for each line, which cost a worker 10 µs per job.
    """
    _bound.set({**_bound.get(), **fields})


def _merge(_: Any, __: str, event: Any) -> Any:
    bound = _bound.get()
    return {**bound, **event} if bound else event


def _stamp(_: Any, __: str, event: Any) -> Any:
    # orjson writes it as structlog's TimeStamper would, in a fifth of the time.
    event["timestamp"] = datetime.now(UTC)
    return event


def _json(_: Any, __: str, event: Any) -> str:
    return orjson.dumps(event, default=str, option=JSON_OPTIONS).decode()


def _short_traceback(_: Any, __: str, event: Any) -> Any:
    """Where an exception was raised, without its message: a foreign message may quote text or rows."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()[1]
    if isinstance(info, BaseException):
        frames = []
        trace = info.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            frames.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno} {code.co_name}")
            trace = trace.tb_next
        event["exception"] = type(info).__name__
        event["frames"] = frames[-8:]
    return event


def configure(*, level: str = "info", form: str = "json", stream: TextIO | None = None) -> None:
    """Set up logging for this process; called once by the composition root.

    Args:
        level: the least severe line shown: debug, info, warning or error.
        form: ``json`` or ``console``.
        stream: where lines go; standard error unless given.
    """
    target = sys.stderr if stream is None else stream
    number = getattr(logging, level.upper())
    in_json = form == "json"
    structlog.configure(
        processors=[
            _merge,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _stamp if in_json else structlog.processors.TimeStamper(fmt="iso", utc=True),
            _short_traceback,
            _json if in_json else structlog.dev.ConsoleRenderer(colors=target.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=target, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger().setLevel(max(number, logging.INFO))
    for name, least in SILENCED.items():
        logging.getLogger(name).setLevel(least)
