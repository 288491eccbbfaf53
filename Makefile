# The targets that a newcomer needs: demo, up, down, test. They all make the same environment first.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

.PHONY: env demo up down peers test test-faults soak fuzz check lint format types imports audit clean

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

# MLServer and tritonclient in .local/mlserver, whose packages have other bounds than ours; the tests that need them are
# skipped without it.
peers: env
	@$(BIN)/python -m tests.servers.mlserver 2> >(grep -v 'is ignored: it is neither' >&2)

# All tests, a file at a time on each core, in the order of their names, in which no long file comes last; and which lines
# and branches they reach in their own process; below the floor, they fail.
test: env
	@$(BIN)/python -m pytest --cov --numprocesses logical --dist loadfile --no-loadscope-reorder

# Every fault of RELIABILITY.md with so many seeds, in two lanes; a line of JSON for each run goes to OUT, and what
# survived in it is not played again. No run begins after MINUTES.
SEEDS ?= 10
MINUTES ?= inf
SOAK_MINUTES ?= 30
OUT ?= tests/faults/seen.jsonl

test-faults: env
	@$(BIN)/python -m tests.faults --seeds 1..$(SEEDS) --lanes 2 --minutes $(MINUTES) --out $(OUT)

# Random faults over some 200 partitions; prints its seed first.
soak: env
	@$(BIN)/python -m tests.faults --soak $(SOAK_MINUTES)

# Coverage-guided fuzzing, so many seconds a target; what is found lies under .local/fuzz as crash-...
SECONDS_EACH ?= 60
fuzz: env
	@for target in $$($(BIN)/python -m tests.fuzz --list 2> /dev/null); do \
		echo "$$target, $(SECONDS_EACH) s"; \
		$(BIN)/python -m tests.fuzz $$target --seconds $(SECONDS_EACH) --inputs .local/fuzz/$$target \
			2> >(tail -n 40 >&2) || exit 1; \
	done

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
