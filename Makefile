# Needs make and Python 3.11 or newer; everything else goes into .venv.
#
#   make demo [DATA=file.svm]   train on a two-process cluster, kill one process, compare
#   make test                   all tests but the slow ones
#   make slow                   the slow ones
#   make chaos [SEEDS=0:200]    seeded runs in which workers and the store fail all the time
#   make lint                   ruff, mypy and the import contracts
#   make notebooks              run the example notebooks, with what they show in build/notebooks
#   make docs                   the documentation site, in build/docs; warnings are errors
#   make floors                 the tests on the oldest versions that pyproject.toml allows
#   make clean                  remove .venv and what the tools left
#
# PARALLEL= runs the tests one by one, PYTEST_ARGS="-k name" some of them;
# PYTHON=python3.12 chooses the interpreter that .venv is made with.

PYTHON ?= python3
PYTEST_ARGS ?=
# Two test processes: one starts with the first half of the files, where the clusters are, which
# wait a lot, the other with the second, where the computing is; who is done takes from the other.
# The slow tests run one by one, for their time limits' sake.
PARALLEL ?= -n 2 --dist worksteal
BIN := .venv/bin
SEEDS ?= 0:200
MODELS ?= all

.PHONY: help demo test slow chaos lint notebooks docs floors clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

demo: .venv/.installed-dashboard
	$(BIN)/python examples/demo.py $(if $(DATA),--data '$(DATA)')

test: .venv/.installed-dashboard .venv/.installed-test
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

slow: .venv/.installed-dashboard .venv/.installed-test .venv/.installed-ssh
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

# One JSON line a run goes to chaos.jsonl, with the schedule that repeats it.
chaos: .venv/.installed-dashboard .venv/.installed-test
	$(BIN)/python -m daskps.testing --seeds $(SEEDS) --models $(MODELS) --out chaos.jsonl

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

notebooks: .venv/.installed-dashboard .venv/.installed-jupyter
	$(BIN)/jupyter nbconvert --execute --to html --output-dir build/notebooks examples/*.ipynb

docs: .venv/.installed-docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "the site is build/docs/index.html"

# Every ">=" becomes "=="; the extra of linters is left out, its tools are not what is tested.
# Matplotlib of that age uses names that pyparsing 3.3 warns of, and warnings are errors.
FLOORS := import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  extras = project["optional-dependencies"]; \
  lines = project["dependencies"] + extras["dashboard"] + extras["test"] + ["pyparsing<3.3"]; \
  print("\n".join(lines).replace(">=", "=="))

floors: | $(BIN)/python
	$(BIN)/python -m venv .venv/floors
	$(BIN)/python -c '$(FLOORS)' > .venv/floors/requirements.txt
	.venv/floors/bin/python -m pip install -qq --disable-pip-version-check \
	  --requirement .venv/floors/requirements.txt
	.venv/floors/bin/python -m pip install -qq --disable-pip-version-check --no-deps --editable .
	.venv/floors/bin/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

# One stamp an extra of pyproject.toml: installed once, and again when pyproject.toml changes.
.venv/.installed-%: pyproject.toml | $(BIN)/python
	@echo "installing daskps and its $* dependencies into .venv (once)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[$*]'
	@touch $@

# Some system packages of Python come without venv or ensurepip, hence the last message. A half-made
# .venv is removed, so that the next make starts over.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "daskps needs Python 3.11 or newer, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install" \
	    "python3-venv, or name another one: make PYTHON=..." >&2; exit 1; }

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
