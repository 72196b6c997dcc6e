import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.binaries import valkey_server
from infra.local.processes import free_port
from tests.cli.commands import Penstock
from tests.cli.waiting import eventually
from tests.conftest import Stack


def findings(report: Any) -> dict[str, Any]:
    """The checks by name."""
    return {check["name"]: check for check in report["checks"]}


def listens(port: int) -> bool:
    """Whether somebody answers; raises OSError while nobody does."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[str]:
    """A Valkey without an append-only file that evicts what it holds."""
    port = free_port(26_800)
    (tmp_path / "valkey").mkdir()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(
        [str(valkey_server()), *arguments, "--maxmemory-policy", "allkeys-lru"],
        cwd=tmp_path / "valkey",
        stdout=subprocess.DEVNULL,
    )
    with process:
        eventually(lambda: listens(port))
        yield f"redis://127.0.0.1:{port}/0"
        process.terminate()


def test_a_sound_set_up_passes(penstock: Penstock) -> None:
    """On the embedded servers everything is well: versions, pgvector, roles, schema, persistence, models, keys."""
    report = penstock.json("doctor")
    assert report["ok"], report
    names = set(findings(report))
    assert {
        "PostgreSQL",
        "pgvector",
        "row-level security",
        "serving roles",
        "schema",
        "Redis persistence",
    } <= names
    assert all(check["found"] and not check["fix"] for check in report["checks"])


def test_a_redis_that_forgets_is_found(penstock: Penstock, forgetful: str) -> None:
    """No append-only file and an evicting memory policy: exit 1, each with what to change."""
    found = findings(penstock.json("doctor", expect=1, REDIS_URL=forgetful))
    assert "appendonly yes" in found["Redis persistence"]["fix"]
    assert "noeviction" in found["Redis memory policy"]["fix"]
    assert found["row-level security"]["ok"]


def test_serving_as_the_owner_is_found(penstock: Penstock, stack: Stack) -> None:
    """The owner is exempt from row-level security: exit 1, and a login that owns nothing is asked for."""
    found = findings(penstock.json("doctor", expect=1, DATABASE_URL=stack.servers.database_owner_url))
    assert not found["row-level security"]["ok"]
    assert "owns nothing" in found["row-level security"]["fix"]


def test_serving_as_a_superuser_is_found(penstock: Penstock, stack: Stack) -> None:
    """So is a superuser."""
    found = findings(penstock.json("doctor", expect=1, DATABASE_URL=stack.servers.superuser_url))
    assert (False, True) == (
        found["row-level security"]["ok"],
        "exempt" in found["row-level security"]["found"],
    )


def test_one_broken_server_does_not_hide_the_others(penstock: Penstock) -> None:
    """With nothing reachable each server has its own line, and no address or password is shown."""
    away = {"DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/x", "REDIS_URL": "redis://:hush@127.0.0.1:1/0"}
    report = penstock.json("doctor", expect=1, OPENAI_BASE_URL="http://127.0.0.1:1/v1", **away)
    found = findings(report)
    assert not any(found[name]["ok"] for name in ("PostgreSQL", "Redis"))
    assert not any(check["ok"] for name, check in found.items() if name.startswith("model"))
    assert found["secrets at rest"]["ok"]
    assert "hush" not in str(report)


def test_an_unusable_secret_key_is_found(penstock: Penstock) -> None:
    """A key of the wrong length would fail at the first webhook; doctor says it now, without showing it."""
    report = penstock.json("doctor", expect=1, PENSTOCK_SECRET_KEYS="c2hvcnQ=")
    assert not findings(report)["secrets at rest"]["ok"]
    assert "c2hvcnQ=" not in str(report)


def test_people_are_told_what_to_change(penstock: Penstock, forgetful: str) -> None:
    """Without --json a line per check, and the fix below each bad one."""
    said = penstock.run("doctor", expect=1, REDIS_URL=forgetful).stdout
    assert "BAD  Redis persistence" in said
    assert "fix: set appendonly yes" in said
