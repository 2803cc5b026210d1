# `make demo` and `make test` do everything on a bare machine with Python 3.11 or newer, make and a package index.
PYTHON ?= python3
VENV ?= .venv
# Processes that run tests: each takes a core and up to 2 GB.
TEST_PROCESSES ?= 2
BIN := $(VENV)/bin
# Commands are started hundreds of times: compile modules once, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=
INSTALLED := $(VENV)/installed

.PHONY: help demo test test-slow lint types format check clean

help:
	@echo "make demo    both stages on a real slide (a few minutes); writes demo-out/"
	@echo "make test    the test suite; make test-slow has the long cases (kills at every write)"
	@echo "make check   linter, formatter's check and type checker"

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/g2l demo --out demo-out

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow" -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow and alone" $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m "slow and not alone" -n $(TEST_PROCESSES) --dist worksteal $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy
	$(BIN)/mypy benchmarks

check: lint types

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo-out
