"""arq 0.28's own test suite runs against Penstock's worker: `make test-arq`.

The suite comes from arq's source distribution, checked against a pinned hash, and runs in a venv of its own
(`.venv-arq`, reused until its requirements change) on an embedded Valkey. `--stock` runs it against arq's own worker,
for comparison; further arguments go to pytest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VENV = ROOT / ".venv-arq"
PYTHON = VENV / "bin" / "python"
ARQ = "arq==0.28.0"
SDIST_SHA256 = "a458188aefc2d7ee17d136f80d8fa8df1d6eba4ceebdead87e9f172d027dc311"

sys.path.insert(0, str(ROOT))

from infra.local import processes  # noqa: E402 - the checkout goes first.
from infra.local.binaries import valkey_server  # noqa: E402


def prepare() -> Path:
    """Build the venv and unpack the suite unless both are there; returns the suite's folder."""
    wanted = hashlib.sha256((HERE / "requirements.txt").read_bytes() + SDIST_SHA256.encode()).hexdigest()
    stamp, suite = VENV / "penstock-stamp", VENV / "suite"
    if not (stamp.is_file() and stamp.read_text() == wanted):
        print("building .venv-arq (downloads about 15 MB)", flush=True)
        shutil.rmtree(VENV, ignore_errors=True)
        # Our pip serves this venv too, and bytecode is made of what is imported.
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(VENV)], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(PYTHON), "--disable-pip-version-check", "-q"]
        subprocess.run([*pip, "install", "--no-compile", "-r", str(HERE / "requirements.txt")], check=True)
        download = [*pip, "download", "--no-deps", "--no-binary", "arq", "-d", str(VENV / "sdist"), ARQ]
        subprocess.run(download, check=True)
        (archive,) = (VENV / "sdist").glob("arq-*.tar.gz")
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != SDIST_SHA256:
            raise SystemExit(f"arq's source distribution is not the one we know: sha256 {found}")
        with tarfile.open(archive) as tar:
            safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in Python 3.11.0 to 3.11.3
            tar.extractall(VENV / "sdist", **safely)
        (unpacked,) = (path for path in (VENV / "sdist").iterdir() if path.is_dir())
        suite.mkdir()
        shutil.copytree(unpacked / "tests", suite / "tests")
        # Its pytest settings (asyncio mode, warnings as errors, a timeout) belong to it.
        shutil.copy(unpacked / "pyproject.toml", suite)
        stamp.write_text(wanted)
    for name in ("conftest.py", "excluded.txt"):
        shutil.copy(HERE / name, suite / "tests")
    return suite


def main(arguments: list[str]) -> int:
    """Run the suite; returns pytest's exit code."""
    stock = "--stock" in arguments
    rest = [argument for argument in arguments if argument != "--stock"]
    suite = prepare()
    port = processes.free_port(0)
    with tempfile.TemporaryDirectory(prefix="penstock-arq-") as folder:
        options = ["--port", str(port), "--bind", processes.LOOPBACK, "--save", "", "--dir", "./"]
        server = subprocess.Popen([str(valkey_server()), *options], cwd=folder, stdout=subprocess.DEVNULL)
        try:
            environment = {
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": folder,
                "LC_ALL": "C.UTF-8",
                "ARQ_SUITE_PORT": str(port),
                "ARQ_SUITE_WORKER": "stock" if stock else "engine",
                "PENSTOCK_SOURCE": str(ROOT),
            }
            command = [str(PYTHON), "-m", "pytest", "-q", "--no-header", "tests", *rest]
            code = subprocess.run(command, cwd=suite, env=environment, check=False).returncode
            if code == 1:
                # Some of arq's tests measure to the millisecond and fail on its own worker too when the machine is
                # busy. What failed gets one more chance, on a machine that is quieter now.
                print("once more, what failed:", flush=True)
                command += ["--last-failed", "--last-failed-no-failures", "none"]
                code = subprocess.run(command, cwd=suite, env=environment, check=False).returncode
            return code
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
