# The project's commands. Each sets up .venv first, if it does not exist or pyproject.toml has changed.
PYTHON ?= python3
VENV := .venv
PYTHON_VERSION ?= 3.12
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BASE := $(VENV)/.installed-base
# Run several processes with one thread each: two processes with many threads on the same cores slow each other down tenfold.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help bench test test-all check docs format wheels clean

help:  ## list the commands
	@grep -E "^[a-z-]+:.*##" $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BASE): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"zoo needs Python 3.11 or later; $(PYTHON) is {v[0]}.{v[1]}. Try: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"  # the first version with --group
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/python -m compileall -q zoo plugins  # pip compiles only the files that it copies, and an editable install copies none
	@touch $@

$(STAMP): $(BASE)
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

bench: $(BASE)  ## measure the ResNet18 pairings; prints the table, writes results/resnet18.md
	$(BIN)/zoo bench configs/resnet18.yaml --output results/resnet18.md

test: check docs  ## lint, type-check, build the site, run the tests (without the slow ones)
	$(PYTEST) -m "not slow"

test-all: check docs  ## the same as `make test`, with the slow tests
	$(PYTEST)

check: $(STAMP)  ## check the format, lint, types, import layers and spelling only
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: $(STAMP)  ## build the site into site/; fails if a link is broken or a name is unknown
	$(BIN)/python scripts/write_reference.py
	$(BIN)/zensical build --clean --strict

format: $(STAMP)  ## reformat the files, and fix the lint errors that ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheels: $(STAMP)  ## download the wheels that benchmarks/gpu.sh needs without a network: make wheels PYTHON_VERSION=3.12
	$(BIN)/python benchmarks/wheels.py --python-version $(PYTHON_VERSION) --output wheels

clean:  ## remove .venv and the files that tools create (not the results)
	rm -rf $(VENV) site .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
