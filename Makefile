# The targets that a newcomer needs: demo, up, down, test. They all make the same environment first.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

.PHONY: env demo up down test check lint format types imports audit clean

env: .venv/.made

.venv/.made: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "corpuscore needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Next: make env PYTHON=python3.11"; exit 1; }
	@echo "Making .venv from requirements.lock (about four minutes the first time)."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.lock 2> >(grep -v 'is ignored: it is neither' >&2)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m corpuscore.scoring.kernels.build
	@touch $@

demo up down: env
	@exec $(BIN)/python -m infra.stack $@

# All tests, and which lines and branches they reach in their own process; below the floor, they fail.
test: env
	@$(BIN)/python -m pytest --cov

# The hooks of .pre-commit-config.yaml are these, one by one, but for the audit, which asks a server.
check: lint format types imports audit

lint: env
	$(BIN)/ruff check .

format: env
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

imports: env
	$(BIN)/lint-imports

# Pinned packages with known vulnerabilities fail it; where no advisories are served, it says so.
audit: env
	$(BIN)/python -m infra.audit requirements.lock

clean: down
	rm -rf .venv .local
