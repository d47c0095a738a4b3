# make demo   the main result: exits with no ROM, with the identity and with the batching ROM
# make test   lint, types, import walls, and all tests
# make lint   ruff, mypy and the import walls alone
# make docs   write docs/reference anew from the code
# make clean  remove all that the others made, .venv included
#
# Each target sets up what it needs in .venv; PYTHON=... chooses the interpreter that makes it.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install -q --disable-pip-version-check
HOT := setup.py $(wildcard vmm/core/*.py vmm/core/*.pxd)

.PHONY: demo test lint docs clean

demo: .venv/.compiled
	@$(BIN)/vmirom compare forkstorm

test: lint
	$(BIN)/pytest -n auto

lint: .venv/.dev .venv/.compiled
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.dev .venv/.compiled
	$(BIN)/python docs/generate.py

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		.import_linter_cache
	rm -f vmm/core/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip compiles the core as it installs; without a C compiler it installs all the same.
.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
		"vmirom needs Python 3.11 or newer, and $(PYTHON) is %d.%d; try make PYTHON=python3.11" \
		% v[:2])'
	@echo "Setting up .venv: once, about a minute"
	@$(PYTHON) -m venv .venv
	@$(PIP) $$($(BIN)/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
	@$(PIP) --no-build-isolation -e .
	@touch $@

.venv/.dev: .venv/.installed
	@$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

# An edit of a hot module would otherwise run as it was when it was installed.
.venv/.compiled: .venv/.installed $(HOT)
	@$(BIN)/python setup.py -q build_ext --inplace
	@touch $@
