#!/bin/sh
# `make test-arq` calls this; see run.py.
cd "$(dirname "$0")/../.." && exec .venv/bin/python tests/arq_suite/run.py "$@"
