#!/bin/sh
# Makes .venv from the hashed lock and installs the project into it. Called by make with the interpreter to use.
# A .venv that matches the lock is reused; a changed lock is installed over it.
set -eu
python="${1:-python3}"

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Penstock needs Python 3.11 or later; '$python' is $("$python" -V 2>&1 || echo missing)." >&2
    echo "Name another one: make PYTHON=/path/to/python3.12 …" >&2
    exit 2
fi
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    rm -rf .venv
    "$python" -m venv .venv
fi
lock=$(.venv/bin/python -c 'import hashlib, sys; print(hashlib.sha256(open("requirements.lock", "rb").read()).hexdigest())')
if [ "$(cat .venv/.lock 2>/dev/null || true)" != "$lock" ]; then
    packages=$(grep -c '^[a-z0-9].*==' requirements.lock)
    echo "Installing $packages packages into .venv: about 190 MB to download on first use, less when pip has them cached."
    rm -f .venv/.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        --no-compile -r requirements.lock
    # pip would compile with one core, others' tests included. What does not compile is never imported.
    .venv/bin/python -m compileall -q -j 0 -x '/tests/' .venv/lib >/dev/null || true
    echo "$lock" > .venv/.lock
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
touch .venv/.installed
