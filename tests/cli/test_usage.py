import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.main import app
from tests.cli.commands import Penstock


def every_command() -> list[tuple[str, ...]]:
    """The words of each command and group, the root included."""
    found: list[tuple[str, ...]] = []

    def walk(command: Any, words: tuple[str, ...]) -> None:
        found.append(words)
        for name, child in getattr(command, "commands", {}).items():
            walk(child, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


@pytest.mark.parametrize("words", every_command(), ids=lambda words: " ".join(words) or "penstock")
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    """--help ends with 0 and says what the command does."""
    result = CliRunner().invoke(app, [*words, "--help"])
    assert 0 == result.exit_code, result.output
    assert "Usage:" in result.output


def test_help_is_there_from_a_shell(nowhere: Penstock) -> None:
    """A process that starts from nothing answers in an empty directory, and leaves nothing behind."""
    said = subprocess.run(
        [sys.executable, "-m", "cli.main", "--help"], cwd=nowhere.folder, env=nowhere.environment, capture_output=True, text=True, check=True,
        timeout=100,
    ).stdout  # fmt: skip
    assert "demo" in said
    assert [] == list(nowhere.folder.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["worker"],
        ["worker", "paint"],
        ["worker", "ingest", "--concurrency", "0"],
        ["worker", "ingest", "--processes", "none"],
        ["events", "show", "not-an-id"],
        ["events", "list", "--limit", "0"],
        ["dead", "replay", "--per-second", "0"],
        ["status", "--loud"],
        ["keys", "create"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    """The command says what is wrong with the call; nothing is started."""
    result = CliRunner().invoke(app, arguments)
    assert 2 == result.exit_code, result.output
    assert "Usage:" in result.output + getattr(result, "stderr", "")


def test_a_value_that_breaks_a_rule_is_wrong_usage(nowhere: Penstock) -> None:
    """Exit code 2, as for an unknown option: the option is named with what to give instead."""
    call = ("keys", "create", "--tenant", "acme", "--scope", "publish", "--expires", "2001-01-01")
    done = nowhere.run(*call, expect=2)
    assert "[expires]" in done.stderr
    assert "fix:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (["worker", "ingest"], "DATABASE_URL"),
        (["worker", "all", "--burst"], "DATABASE_URL"),
        (["gateway"], "DATABASE_URL"),
        (["migrate"], "DATABASE_OWNER_URL"),
        (["maintain", "--once"], "DATABASE_OWNER_URL"),
        (["tenants", "list"], "DATABASE_OWNER_URL"),
        (["status"], "DATABASE_OWNER_URL"),
        (["dead", "list"], "DATABASE_OWNER_URL"),
        (["queues", "pause", "ingest"], "REDIS_URL"),
        (["queues", "rebuild"], "DATABASE_URL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_without_settings_nothing_is_started_and_the_setting_is_named(
    nowhere: Penstock, arguments: list[str], setting: str
) -> None:
    """Exit code 2, the name, what to do, and no toy in its place."""
    done = nowhere.run(*arguments, expect=2)
    assert f"{setting} is not set" in done.stderr
    assert "fix:" in done.stderr
    assert [] == list(nowhere.folder.iterdir())


def test_half_a_configuration_is_not_filled_up(nowhere: Penstock) -> None:
    """With a database and no Redis a worker names what is missing."""
    done = nowhere.run("worker", "ingest", expect=2, DATABASE_URL="postgresql://u:p@127.0.0.1:1/x")
    assert "is not set" in done.stderr
    assert "postgresql://" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("PENSTOCK_CONCURRENCY", "many"), ("PENSTOCK_GATEWAY_PORT", "70000"), ("PENSTOCK_LOG_LEVEL", "loud")],
)
def test_a_wrong_value_is_named_and_not_shown(nowhere: Penstock, name: str, value: str) -> None:
    """The variable is named; its value might be a secret that was put into the wrong one."""
    done = nowhere.run("worker", "ingest", expect=2, **{name: value})
    assert name in done.stderr
    assert value not in done.stderr


def test_an_unreadable_secret_file_is_named(nowhere: Penstock) -> None:
    """DATABASE_URL_FILE points nowhere: exit code 2 and its name."""
    done = nowhere.run("worker", "ingest", expect=2, DATABASE_URL_FILE=str(nowhere.folder / "absent"))
    assert "DATABASE_URL_FILE" in done.stderr


def test_an_unreachable_server_is_a_failure_in_one_line(nowhere: Penstock, tmp_path: Path) -> None:
    """Exit code 1, no password, no traceback."""
    secret = tmp_path / "owner"
    secret.write_text("postgresql://owner:hush@127.0.0.1:1/x\n", encoding="utf-8")
    done = nowhere.run("tenants", "list", expect=1, PENSTOCK_DATABASE_OWNER_URL_FILE=str(secret))
    assert "error: " in done.stderr
    assert "hush" not in done.stdout + done.stderr
