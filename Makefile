# The project's commands. Each does its own set-up; Python 3.11 or newer, git and make are all they need.
# Another Python: make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
VENV ?= .venv
# Many tests wait for processes: one more worker than cores keeps the cores busy.
WORKERS ?= $(shell expr $$($(PYTHON) -c 'import os; print(os.cpu_count())') + 1)
SEEDS ?= 300
KILLS ?= 200
ARGS ?=
SCALE ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest

# Tests start hundreds of interpreters: each would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-versions lint format cover sim faults crash docs pictures bench plots clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

demo: $(VENV)/.run-stamp ## a research agent that is killed twice and goes on
	@scripts/fetch-model $(BIN)/python
	@$(BIN)/python -m examples.research.demo $(ARGS)

test: $(VENV)/.dev-stamp ## all tests; ARGS="-k name" for some
	$(PYTEST) -n $(WORKERS) --dist worksteal $(ARGS)

test-fast: $(VENV)/.dev-stamp ## the tests that are not marked slow
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow" $(ARGS)

test-versions: ## the fast tests on every newer Python found here
	@MAKE="$(MAKE)" scripts/test-versions

lint: $(VENV)/.dev-stamp ## style, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.dev-stamp ## mend style and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

cover: $(VENV)/.dev-stamp ## branch coverage of core, workflow, runtime, store
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist worksteal $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

sim: $(VENV)/.dev-stamp ## the simulator: make sim SEEDS=20000
	$(BIN)/python -m perdure.testing.sim --seeds $(SEEDS) $(ARGS)

crash: $(VENV)/.dev-stamp ## kill -9 a worker again and again: make crash KILLS=200
	$(BIN)/python -m tests.crash.campaign --kills $(KILLS) $(ARGS)
	$(BIN)/python -m tests.crash.payments --kills $(KILLS)

faults: $(VENV)/.dev-stamp ## fail every store call of the simulator's corpus, and every write to the file, one by one
	$(BIN)/python -m perdure.testing.exhaustive
	PERDURE_FAULT_STRIDE=1 $(PYTEST) -q -n $(WORKERS) tests/store/test_exhaustive_faults.py

docs: $(VENV)/.dev-stamp ## the documentation as a site, in .cache/site
	$(BIN)/sphinx-build -W --keep-going -q docs .cache/site

pictures: $(VENV)/.dev-stamp ## the documentation's pictures, from real runs in tmux; ARGS=demo records the demo
	$(BIN)/python scripts/pictures.py $(ARGS)

bench: $(VENV)/.run-stamp .venv-dbos/.stamp .venv-langgraph/.stamp ## speed, beside DBOS, LangGraph and the limit of the disk; table and plots
	$(BIN)/python benchmarks/bench.py $(ARGS)
	$(BIN)/python benchmarks/scale.py $(SCALE)
	$(BIN)/python benchmarks/restart.py
	@$(MAKE) --no-print-directory plots

plots: $(VENV)/.run-stamp .venv-plots/.stamp ## the table and the plots of the newest results
	$(BIN)/python benchmarks/figures.py
	.venv-plots/bin/python benchmarks/plots_side/plot.py

clean: ## remove everything that set-up made
	rm -rf .venv .venv-* .cache .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis dist

# Set-up: again only when what it installs has changed; an environment that works is kept.
$(VENV)/.run-stamp: requirements/run.txt pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || scripts/make-venv $(PYTHON) $(VENV)
	@$(PIP) install -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev-stamp: requirements/dev.txt $(VENV)/.run-stamp
	@$(PIP) install -r requirements/dev.txt
	@touch $@

.venv-%/.stamp: benchmarks/%_side/requirements.txt
	@scripts/make-venv $(PYTHON) $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check --quiet install -r $<
	@touch $@
