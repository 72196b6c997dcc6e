from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from scripts.write_client import PACKAGE, write

FOLDER = PACKAGE.parent
PROBE = """
import schemas, workers, penstock_client
from penstock_client import AsyncClient, Client, event, verify_webhook
assert (schemas.OWNER, workers.OWNER) == ("app", "app")
assert penstock_client.__file__.startswith({venv!r}), penstock_client.__file__
print(Client.__mro__[-2].__name__)
"""


def test_the_synchronous_half_is_what_the_asynchronous_one_says(tmp_path: Path) -> None:
    """`scripts/write_client.py` writes it; nobody edits it."""
    write(tmp_path / "sync")
    for path in sorted((tmp_path / "sync").iterdir()):
        assert path.read_text() == (PACKAGE / "sync" / path.name).read_text(), path.name


def test_it_lives_beside_an_application_with_its_own_schemas_and_workers(tmp_path: Path) -> None:
    """The wheel holds one package, typed; installed, it and the application's own packages are all there."""
    source = shutil.copytree(FOLDER, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"penstock_client"} == {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert "penstock_client/py.typed" in names

    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    [site] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # What the wheel needs is taken from here; a line of a .pth does not bring our own editable install along.
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (site / "shared.pth").write_text("\n".join(shared), encoding="utf-8")
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)

    for name in ("schemas", "workers"):
        (tmp_path / "app" / name).mkdir(parents=True)
        (tmp_path / "app" / name / "__init__.py").write_text("OWNER = 'app'\n", encoding="utf-8")
    code = PROBE.format(venv=str(tmp_path / "venv"))
    done = subprocess.run(
        [str(python), "-c", code], cwd=tmp_path / "app", capture_output=True, text=True, check=False, env={}
    )
    assert (0, "Transport") == (done.returncode, done.stdout.strip()), done.stderr


def test_the_readme_s_python_is_python() -> None:
    """Every block compiles, and names nothing that the package does not have."""
    import penstock_client  # noqa: PLC0415 - the package under test

    blocks = re.findall(r"```python\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        compile(block, "README", "exec")
        for line in re.findall(r"from penstock_client import (.+)", block):
            assert set(line.split(", ")) <= set(penstock_client.__all__)
