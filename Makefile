# Everything needs Python 3.11 or later, make and a package index; nothing else. Each target sets itself up.
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Test processes side by side; each has servers of its own.
JOBS ?= 2
# Where an image forbids bytecode, each of the hundreds of processes of a test run would compile all our modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup check check-mypy check-pyright test test-arq test-aimock demo fuzz chaos peers format clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## Make .venv with everything that the other targets need.

$(STAMP): requirements.lock pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh "$(PYTHON)"

demo: $(STAMP) ## Run the whole loop on servers of its own; under two minutes.
	@$(BIN)/penstock demo

check: $(STAMP) ## Format, lint, types, import layers, house rules.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory --jobs 2 check-mypy check-pyright

# Half a minute each, of one core: side by side.
check-mypy: $(STAMP)
	$(BIN)/mypy

check-pyright: $(STAMP)
	$(BIN)/basedpyright

test: $(STAMP) ## All tests, on embedded servers.
	$(BIN)/pytest -q -m "not chaos" -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-arq: $(STAMP) ## arq's own test suite against our worker.
	sh tests/arq_suite/run.sh

fuzz: $(STAMP) ## Hold the HTTP API against its OpenAPI document, for about ten minutes.
	PENSTOCK_FUZZ=long $(BIN)/pytest -q -s tests/producers/test_gateway_fuzz.py --timeout 1800

chaos: $(STAMP) ## The long kills, cuts and floods.
	$(BIN)/pytest -q -m chaos --timeout 1800

test-aimock: $(STAMP) ## The training loop against another's trainer; needs Node.
	@sh scripts/aimock.sh

peers: ## Make the venvs of the peers that the benchmarks compare with.
	@sh scripts/peers.sh "$(PYTHON)"
	@if command -v npm >/dev/null; then npm install --silent --no-fund --no-audit --prefix .peers/npm standardwebhooks@1.1.1 @asyncapi/specs@6.11.1; \
	else echo "npm is missing: its standardwebhooks will not judge our signatures, nor AsyncAPI's schema our document."; fi

bench-%: $(STAMP) peers
	$(BIN)/python benchmarks/$*.py --quick --json

format: $(STAMP) ## Format the code and mend what can be mended.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove .venv and local data.
	rm -rf .venv .venv-arq .peers .penstock
