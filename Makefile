# The one command surface. Each target sets up what it needs, once: see .ci/set-up.

override DOC := $(value DOC)# as typed: no $ in a path or URL means anything to make
ifeq ($(DOC),)
override DOC := tests/samples/harbour-report.md
endif
export DOC PYTHON

MINUTES := 30
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help run demo trace-demo test test-slow coverage soak lint ruff mypy pyright layers format constraints clean set-up set-up-dev

help: ## say what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1#\2/p' Makefile | awk -F'#' '{ printf "%-24s%s\n", $$1, $$2 }'

run: set-up ## bring a document through: make run DOC=path-or-url
	@exec $(BIN)/tidegate run -- "$$DOC"

demo: set-up ## watch documents go through an outage, in 20 seconds
	@exec $(BIN)/tidegate demo

trace-demo: set-up ## watch three documents in a collector UI, Arize Phoenix, which it installs under .cache (900 MB)
	@.ci/phoenix
	@exec $(BIN)/python examples/tracing/demo.py .cache/phoenix/bin/python

test: set-up-dev ## the fast tests, under two minutes
	@$(PYTEST) -m "not slow" --numprocesses=auto --maxprocesses=4

test-slow: set-up-dev ## the slow tests: crashes, clean environments, big documents
	@$(PYTEST) -m slow --numprocesses=auto --maxprocesses=2

coverage: set-up-dev ## the fast tests, and how many branches of the savers, the store and the journal they take
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	@$(BIN)/coverage run -m pytest -m "not slow" --numprocesses=auto --maxprocesses=4
	@$(BIN)/coverage combine --quiet
	@$(BIN)/python -m tests.tools.branches

soak: set-up-dev ## half an hour of the service under load and outages: make soak MINUTES=3
	@mkdir -p .cache
	@exec $(BIN)/python -m tests.soak --minutes "$(MINUTES)" --folder .cache

lint: ruff mypy pyright layers ## style, types and import layers

ruff: set-up-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

mypy: set-up-dev
	$(BIN)/mypy

pyright: set-up-dev
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

layers: set-up-dev
	$(BIN)/lint-imports

format: set-up-dev ## mend what can be mended without thinking
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

constraints: set-up ## resolve all dependencies anew and pin them
	@.ci/constraints

clean: ## remove what was installed and cached
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist

set-up:
	@.ci/set-up run

set-up-dev:
	@.ci/set-up dev
