# deskrisk: `make demo` shows it live, `make test` proves it, `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
export PYTHONPATH := $(CURDIR)
export NUMBA_CACHE_DIR := $(CURDIR)/.cache/numba
STAMP := .cache/installed
TESTING := .cache/testing
WARMED := .cache/warmed
# uv installs in seconds what takes pip a minute; it does not read pip's settings, so pip is asked where it cannot
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
take = ($(PIP) uv==0.9.10 && VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/uv pip install --quiet --compile-bytecode --require-hashes --no-deps -r $(1)) \
	|| { echo "uv could not: pip does it, in a minute or two ..."; $(PIP) --require-hashes --no-deps -r $(1); }
LOCK := $(VENV)/bin/uv pip compile pyproject.toml requirements.in --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-header --no-annotate --python-version 3.11 --python-platform linux --quiet
# workers of a test run: half of its time is waiting for processes, so that there are more of them than cores
WORKERS ?= 3
SPREAD := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

.PHONY: help demo test nightly mutants check bench install lock clean
help: ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(STAMP) ## everything on this machine with a simulated market; ARGS="--for 30 --json --no-browser"
	@$(PY) -m app demo $(ARGS)

test: install $(TESTING) ## all tests; ARGS="-k fold" passes on to pytest
	@$(PY) -m pytest $(SPREAD) $(ARGS)

nightly: install $(TESTING) ## all tests with long seeds and many examples
	@DESKRISK_PROFILE=nightly DESKRISK_SEEDS=6000 $(PY) -m pytest $(SPREAD) $(ARGS)

mutants: install $(TESTING) ## which changes of the gate and the fold no test notices; ARGS="gate --sample 40"
	@$(PIP) cosmic-ray==8.7.0
	@$(PY) -m tests.mutants $(ARGS)

check: install $(TESTING) ## lint, types, layers, lock
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports --no-cache
	@$(PY) -m pip check

bench: install $(TESTING) ## benchmarks; ARGS="engine --size smoke --json"
	@$(PY) -m app bench $(ARGS)

install: $(WARMED)

# what runs: the packages of requirements.lock; the embedded broker is compiled while they are fetched
$(STAMP): requirements.lock pyproject.toml
	@mkdir -p .cache
	@test -x $(PY) || { echo "making a virtual environment ..."; $(PYTHON) -m venv $(VENV); }
	@echo "installing what requirements.lock pins (once; under a minute where the index is near) ..."
	@$(PY) -m app.brokers & $(call take,requirements.lock)
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# what tests and checks: taken in addition, so that a demo waits for none of it
$(TESTING): requirements-test.lock $(STAMP)
	@echo "installing what requirements-test.lock pins (once) ..."
	@$(call take,requirements-test.lock)
	@touch $(TESTING)

# kernels that changed are compiled before a process needs them
$(WARMED): $(STAMP) $(wildcard models/*.py models/*/*.py)
	@$(PY) -m app warm
	@touch $(WARMED)

lock: ## write both lock files anew from pyproject.toml
	@$(PIP) uv==0.9.10
	@$(LOCK) -o requirements.lock
	@$(LOCK) --extra test -c requirements.lock -o requirements-test.lock

clean: ## forget the environment, caches and compiled parts
	@rm -rf $(VENV) .cache
