# make setup   both environments (.venv, .venv-legacy); a repeat does nothing
# make web     the page of `edge benchmark --device browser`, into benchmark/page; needs Node 20
# make wheel   a wheel that holds that page, into dist
# make wheel-test   the wheel, installed and used in a new environment elsewhere
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

.PHONY: setup web wheel wheel-test mediapipe check test demo format clean
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

# build/lib of an earlier wheel would bring files along that are no more.
wheel: setup web
	rm -rf dist build/lib build/bdist.*
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w dist .

wheel-test: wheel
	$(BIN)/python scripts/wheel_test.py dist

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
	rm -rf dist benchmark/page apps/web/node_modules
	rm -rf .venv .venv-legacy .venv-mediapipe build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
