#!/bin/sh
# Runs the training loop against a trainer that we did not write: the npm package @copilotkit/aimock (MIT, no dependencies).
set -eu
cd "$(dirname "$0")/.."
if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
  echo "test-aimock: skipped, because there is no Node here"
  exit 0
fi
mkdir -p .peers/aimock
npm install --prefix .peers/aimock --no-audit --no-fund --ignore-scripts --no-save --loglevel=error "@copilotkit/aimock@1.43.0"
# Every fault once, and every crash point without one; `make chaos` has the points around the paid call with each fault.
exec .venv/bin/pytest -q tests/workers/train/test_aimock.py -k "becomes_of_the_call or crashes and None"
