"""Rules of the house that no linter knows."""

import ast
import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from schemas.registry import EVENT_TYPES
from schemas.states import TRANSITIONS
from workers.pools import POOLS

ROOT = Path(__file__).resolve().parents[2]
CODE = ("cli", "infra", "producers", "schemas", "workers")
LONGEST = 300
VAGUE = {"utils.py", "helpers.py", "common.py", "misc.py", "util.py"}


def tracked(*patterns: str) -> list[Path]:
    """Files of the project: what git tracks, or everything where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    return [path for pattern in patterns for path in ROOT.glob(pattern) if ".venv" not in path.parts]


PYTHON = [
    path
    for path in tracked("*.py")
    if path.relative_to(ROOT).parts[0] in {*CODE, "tests", "benchmarks", "scripts"}
]


def test_no_file_is_longer_than_300_lines() -> None:
    """A file is one noun or one step; a longer one wants splitting."""
    long = {
        str(path.relative_to(ROOT)): n
        for path in PYTHON
        if (n := len(path.read_text().splitlines())) > LONGEST
    }
    assert {} == long


def test_no_file_has_a_name_that_says_nothing() -> None:
    """Names say what is inside."""
    assert [] == [path for path in PYTHON if path.name in VAGUE]


def test_there_is_no_init_under_tests() -> None:
    """A package under tests would shadow the real one."""
    assert [] == tracked("tests/**/__init__.py", "tests/__init__.py")


@pytest.mark.parametrize("package", CODE)
def test_every_module_says_what_passes_through_it(package: str) -> None:
    """Every module and package begins with a docstring."""
    silent = [
        str(path.relative_to(ROOT))
        for path in PYTHON
        if path.relative_to(ROOT).parts[0] == package
        and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert [] == silent


def test_every_package_is_a_map() -> None:
    """A package's docstring names each of its modules."""
    missing: list[str] = []
    for path in PYTHON:
        if path.name != "__init__.py" or path.relative_to(ROOT).parts[0] not in CODE:
            continue
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        for module in path.parent.glob("*.py"):
            named = re.search(rf"\b{re.escape(module.stem)}\b", text)
            if module.name not in {"__init__.py", "__main__.py"} and named is None and module in PYTHON:
                missing.append(str(module.relative_to(ROOT)))
    # A family of files (client_ask, client_publish …) may share a line.
    missing = [name for name in missing if not Path(name).stem.startswith("client")]
    assert [] == missing


def test_no_leftovers() -> None:
    """No stub, no note to self, no swallowed exception, no print in the code."""
    bad = re.compile(
        r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError|except( Exception)?:( *|\s*)pass$|^ *except: *$|^ *print\(",
        re.MULTILINE,
    )
    found = [
        str(path.relative_to(ROOT))
        for path in PYTHON
        if path.relative_to(ROOT).parts[0] in CODE and bad.search(path.read_text())
    ]
    assert [] == found


def test_sql_is_not_built_from_strings() -> None:
    """Statements live in files; none is an f-string."""
    built = re.compile(r"""f["']{1,3}\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP)\b""")
    found = [
        str(path.relative_to(ROOT))
        for path in PYTHON
        if path.relative_to(ROOT).parts[0] in CODE and built.search(path.read_text())
    ]
    assert [] == found


def test_every_named_query_has_a_sentence() -> None:
    """Above each statement stands its name, then one sentence."""
    for path in tracked("infra/sql/queries/*.sql"):
        parts = re.split(r"^-- name: (\w+)\s*$", path.read_text(), flags=re.MULTILINE)
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            first = body.strip().splitlines()[0]
            assert first.startswith("-- "), f"{path.name}: {name}"


async def test_every_queued_event_type_has_a_handler() -> None:
    """Each type that a queue carries is handled by the wing of that queue."""
    wings = {pool.queue: import_module(pool.module) for pool in POOLS.values()}
    assert {one.queue for one in EVENT_TYPES.values() if one.queue} == set(wings)
    for queue, module in wings.items():
        types = {one.name for one in EVENT_TYPES.values() if one.queue == queue}
        source = "".join(path.read_text() for path in Path(str(module.__file__)).parent.rglob("*.py"))
        assert [] == [name for name in types if f'"{name}"' not in source]


def test_every_state_has_a_sentence() -> None:
    """A state that cannot be explained should not exist."""
    for machine, table in TRANSITIONS.items():
        assert set(machine) == set(table)
        assert [] == [state for state in machine if not state.sentence.endswith(".")]


def test_no_address_of_a_registry_and_no_path_of_a_machine_is_committed() -> None:
    """The project installs anywhere: no download address, no path of ours."""
    bad = re.compile(
        "|".join(
            [
                "py" + r"pi\.org",
                "python" + r"hosted\.org",
                "registry" + r"\.npm",
                r"/work/(main|shared)",
                "/ro" + "ot/",
            ]
        )
    )
    found = [
        str(path.relative_to(ROOT))
        for path in tracked("*")
        if path.suffix not in {".png", ".pdf", ".docx", ".zip"}
        and bad.search(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert [] == found
