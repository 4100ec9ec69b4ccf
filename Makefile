# deskrisk: `make demo` shows it live, `make test` proves it, `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
export PYTHONPATH := $(CURDIR)
export NUMBA_CACHE_DIR := $(CURDIR)/.cache/numba
STAMP := .cache/installed
WARMED := .cache/warmed

.PHONY: help demo test check bench install lock clean
help: ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: install ## everything on this machine with a simulated market; ARGS="--for 30 --json --no-browser"
	@$(PY) -m app demo $(ARGS)

test: install ## all tests; ARGS="-k fold" passes on to pytest
	@$(PY) -m pytest $(ARGS)

check: install ## lint, types, layers, lock
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports --no-cache
	@$(PY) -m pip check

bench: install ## benchmarks; ARGS="engine --size smoke --json"
	@$(PY) -m app bench $(ARGS)

install: $(WARMED)
$(STAMP): requirements.lock pyproject.toml
	@mkdir -p .cache
	@test -x $(PY) || { echo "making a virtual environment ..."; $(PYTHON) -m venv $(VENV); }
	@echo "installing what requirements.lock pins (once; a minute or two) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# kernels that changed are compiled before a process needs them
$(WARMED): $(STAMP) $(wildcard models/*.py models/*/*.py)
	@$(PY) -m app warm
	@touch $(WARMED)

lock: ## write requirements.lock anew from pyproject.toml
	@$(PY) -m pip install --quiet uv==0.9.10
	@$(VENV)/bin/uv pip compile pyproject.toml requirements.in --extra test --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --python-version 3.11 --python-platform linux --quiet -o requirements.lock

clean: ## forget the environment, caches and compiled parts
	@rm -rf $(VENV) .cache
