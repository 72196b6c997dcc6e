#!/bin/sh
# Runs `penstock` with the arguments it gets, as the process that receives the signals.
#   entrypoint.sh worker ingest
set -eu
exec "${PENSTOCK_VENV:-/opt/penstock}/bin/penstock" "$@"
