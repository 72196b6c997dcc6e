"""The caller's environment loses what could lead a child to another server, gains our servers, and goes to the child.

`demo` and the tests can then neither spend money nor touch a real database, whatever is exported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from infra.local.servers import Servers

# Compared in upper case: settings are read without regard to case. PG: libpq's and asyncpg's defaults (PGHOST,
# PGPASSWORD, PGSERVICE …), which fill whatever a URL leaves open. OTEL: exporters that connect on their own.
HOSTILE = ("DATABASE_URL", "REDIS_", "VALKEY_", "OPENAI_", "AZURE_OPENAI_", "PENSTOCK_", "PG", "OTEL_")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def hostile_names(environ: Mapping[str, str]) -> list[str]:
    """The variables that a child of the demo or of a test must not see."""
    return [name for name in environ if name.upper().startswith(HOSTILE)]


def child_environment(
    servers: Servers, *, base: Mapping[str, str] | None = None, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a child that meets these servers and no others.

    Args:
        servers: what it is to use.
        base: the environment to start from, ours unless given.
        extra: what else it needs, such as the local model server's address; wins over everything.
    """
    given = os.environ if base is None else base
    hostile = set(hostile_names(given))
    kept = {name: value for name, value in given.items() if name not in hostile}
    direct = _without_proxy(kept)
    return {
        **kept,
        "NO_PROXY": direct,
        "no_proxy": direct,
        "DATABASE_URL": servers.database_url,
        "PENSTOCK_DATABASE_OWNER_URL": servers.database_owner_url,
        "REDIS_URL": servers.redis_url,
        **(extra or {}),
    }


def _without_proxy(environ: Mapping[str, str]) -> str:
    """Whatever is exempt already, and loopback: a proxy would be asked for a server of ours."""
    exempt = [
        host.strip()
        for name in ("NO_PROXY", "no_proxy")
        for host in environ.get(name, "").split(",")
        if host.strip()
    ]
    return ",".join(dict.fromkeys([*exempt, *LOOPBACK]))
