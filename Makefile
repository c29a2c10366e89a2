# Every target does its own set-up: a machine with Python >= 3.11 and make is enough.
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
COLLECTION := examples/postman/opdata.postman_collection.json
export UV_NO_PROGRESS := 1
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help install demo test torture check bench collection lock fmt clean

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Compiled here: who runs it may be unable to write beside the sources, or told not to, and would compile at each start.
install: $(VENV)/.installed  ## make .venv with everything in it; leaves .venv/bin/opdata
	@$(BIN)/python -m compileall -q src

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "opdata needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: install    ## start a server, load sample data, show the results (ONCE=1 exits after)
	@$(BIN)/python -m opdata.demo $(if $(ONCE),--once)

test: install    ## run the whole test suite
	$(BIN)/pytest

# Each of these has a default in tests/faults/counts.py; MINUTES bounds each test.
torture: install ## inject faults by the thousand; SEED= KILLS= RACES= BODIES= … MINUTES= ONLY=
	OPDATA_TORTURE=1 $(foreach name,SEED MINUTES KILLS WORKER_KILLS LOAD_KILLS CRASHES TERMINATIONS LINE_FAULTS \
		CALL_STRIDE POWER_CUTS FILLS COLLISIONS RACES BODIES EXAMPLES SLOW_SENDERS,$(if $($(name)),OPDATA_TORTURE_$(name)=$($(name)))) \
		$(BIN)/pytest -n 0 tests/faults tests/plans tests/system/test_key_rotation.py tests/system/test_retention.py $(if $(ONLY),-k '$(ONLY)')

check: install   ## lint, format, types, import contracts, secrets, known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.secret_scan
	$(BIN)/python -m tools.audit_lock

bench: install   ## measure ingestion; QUICK=1 for a short run
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

collection: install  ## generate the collection for Postman and Bruno from the OpenAPI document
	$(BIN)/opdata openapi --postman > $(COLLECTION).new && mv $(COLLECTION).new $(COLLECTION)

fmt: install     ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

sync-client: install  ## make the blocking client out of the asynchronous one
	$(BIN)/python -m tools.generate_sync

# The lock is a hashed requirements file and not uv.lock: see docs/decisions/0002-lock.md.
lock: install    ## resolve pyproject.toml anew into requirements.lock
	$(UV) pip compile --quiet --universal --upgrade --generate-hashes --no-annotate --no-emit-index-url \
		--custom-compile-command "make lock" --all-extras --group dev -o requirements.lock pyproject.toml

clean:           ## remove what the targets made
	rm -rf $(VENV) demo-data examples/typescript/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
