# make setup   both environments (.venv, .venv-legacy); a repeat does nothing
# make web     the page of `edge benchmark --device browser`, into apps/web/dist; needs Node 20
# make mediapipe   the environment in which `edge pack mediapipe` runs what it wrote (400 MB)
# make check   format, lint, types, floors
# make test    the tests
# make demo    the whole path on made-up data, written to build/demo
# make format  rewrite the code in the project's format
# make clean   remove what was built, the environments too
#
# PYTHON=/path/to/python picks another Python 3.10-3.12 for .venv.

MAKEFLAGS += --no-print-directory
export PYTHON

BIN := .venv/bin
CODE := edge distill converters benchmark tests scripts

.PHONY: setup web mediapipe check test demo format clean
.DELETE_ON_ERROR:

setup: .venv/.installed .venv-legacy/.installed

.venv/.installed: pyproject.toml constraints.txt
	@rm -f $@
	@scripts/setup.sh main .venv

# The legacy environment is pinned in the script itself; without a Python for it, a line says so.
.venv-legacy/.installed: scripts/setup.sh
	@rm -f $@
	@scripts/setup.sh legacy .venv-legacy

web:
	cd apps/web && npm ci --no-audit --no-fund && npm run build

mediapipe: .venv-mediapipe/.installed

.venv-mediapipe/.installed: scripts/setup.sh
	@scripts/setup.sh mediapipe .venv-mediapipe

check: setup
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

# A file at a time for each core, so that what a file sets up is made once.
test: setup
	$(BIN)/python -m pytest -n auto --dist loadfile

demo: setup
	$(BIN)/edge demo --output build/demo

format: setup
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

clean:
	rm -rf apps/web/dist apps/web/node_modules
	rm -rf .venv .venv-legacy .venv-mediapipe build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
