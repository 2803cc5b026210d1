# `make demo` and `make test` do everything on a bare machine with Python 3.11 or newer, make and a package index.
PYTHON ?= python3
VENV ?= .venv
# Processes that run tests: each takes a core and up to 2 GB.
TEST_PROCESSES ?= 2
BIN := $(VENV)/bin
# Commands are started hundreds of times: compile a module once, when it is first imported, whatever the environment says.
# Compiling all 25,000 of what is installed takes a minute or two, and few of them are ever imported.
export PYTHONDONTWRITEBYTECODE :=
INSTALLED := $(VENV)/installed

# The lowest versions that pyproject.toml allows, in an environment of their own (5 GB).
LOWEST ?= .venv-lowest
LOWEST_INSTALLED := $(LOWEST)/installed

.PHONY: help demo test test-slow test-lowest test-tools site lint types format check clean

help:
	@echo "make demo    both stages on a real slide (a few minutes); writes demo-out/"
	@echo "make test    the test suite; make test-slow has the long cases (kills at every write)"
	@echo "make test-lowest  the fast tests, and those of logging, with the lowest versions that are allowed"
	@echo "make test-tools  adapters within the tools that they are for; installs these"
	@echo "make site    the documentation as a site, in site/"
	@echo "make check   linter, formatter's check and type checker"

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[demo,dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/g2l demo --out demo-out

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow" -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

# Only the files that have such tests are collected, a third of all: conftest.py sees that none lies elsewhere.
test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow and alone" $$(grep -rl 'mark\.alone' tests --include='test_*.py') $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m "slow and not alone" -n $(TEST_PROCESSES) --dist worksteal $(PYTEST_ARGS) \
		$$(grep -rl 'mark\.slow' tests --include='test_*.py')

$(LOWEST_INSTALLED): pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade pip
	$(PYTHON) .ci/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --no-cache-dir --no-compile --constraint $(LOWEST)/constraints.txt --editable '.[demo,dev]'
	@touch $@

# No fast test loads the tracking services, so that their slow ones run too.
LOGGED := tests/report/logs tests/stages/test_evaluate.py::test_both_services_get_the_report_as_artefact
# What old versions call in newer ones of their own dependencies may be deprecated; we cannot mend that.
test-lowest: $(LOWEST_INSTALLED)
	$(LOWEST)/bin/python -m pytest -m "not slow" -n $(TEST_PROCESSES) --dist loadfile -W ignore::DeprecationWarning $(PYTEST_ARGS)
	$(LOWEST)/bin/python -m pytest -m slow -W ignore::DeprecationWarning $(LOGGED) $(PYTEST_ARGS)
	cp $(LOWEST)/constraints.txt .ci/lowest-proven.txt

# Other tools, installed beside this project one after another: minutes, gigabytes, a package index.
test-tools: $(INSTALLED)
	G2L_TOOLS=1 $(BIN)/python -m pytest -s tests/tools $(PYTEST_ARGS)

site: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy --num-workers 2
	$(BIN)/mypy benchmarks --num-workers 2

check: lint types

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(LOWEST) demo-out
