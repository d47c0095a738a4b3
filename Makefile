# make demo   the main result: exits with no ROM, with the identity and with the batching ROM
# make test   lint, types, import walls, and all tests
# make lint   ruff, mypy and the import walls alone
# make docs   write docs/reference anew from the code
# make fuzz   the compiled core against the interpreted one, for SECONDS=60
# make sanitize  tests and fuzzing of a core built with gcc's address and undefined sanitizers
# make clean  remove all that the others made, .venv included
#
# Each target sets up what it needs in .venv; PYTHON=... chooses the interpreter that makes it.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install -q --disable-pip-version-check
HOT := setup.py $(wildcard $(addprefix vmm/core/,*.py *.pxd */*.py */*.pxd))

.PHONY: demo test lint docs fuzz sanitize clean

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

SECONDS := 60

fuzz: .venv/.dev .venv/.compiled
	@$(BIN)/python tests/fuzz/fuzz.py --seconds $(SECONDS)

# Into a tree of its own: such a core runs only with the sanitizers loaded first.
SANITIZED := build/sanitize/lib
SANITIZED_TESTS := tests/vmm/core tests/vmm/test_hostile.py
# Capstone cannot be loaded beside the sanitizers; the other one tests the interpreted core.
SANITIZED_WITHOUT := tests/vmm/core/code/test_lengths.py tests/vmm/core/test_visibility.py

sanitize: .venv/.dev .venv/.compiled
	@VMIROM_SANITIZE=address,undefined VMIROM_REQUIRE_COMPILED=1 $(BIN)/python setup.py -q build \
		--build-lib $(SANITIZED) --build-temp build/sanitize/temp
	@$(BIN)/python tests/fuzz/sanitizers.py $(SANITIZED) $(BIN)/pytest -q -n auto \
		-W error::pytest.PytestUnraisableExceptionWarning \
		$(SANITIZED_TESTS) $(SANITIZED_WITHOUT:%=--ignore %)
	@$(BIN)/python tests/fuzz/fuzz.py --sanitized $(SANITIZED) --alone --seed 1 --rounds 250

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		.import_linter_cache
	rm -f vmm/core/*.so vmm/core/*/*.so
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

# An edit of a hot module would otherwise run as it was when it was installed. Bytecode is
# what pip makes of an installed package; where Python may not write any (PYTHONDONTWRITEBYTECODE)
# each start would compile all modules anew, which takes as long as half a boot.
.venv/.compiled: .venv/.installed $(HOT)
	@$(BIN)/python setup.py -q build_ext --inplace
	@$(BIN)/python -m compileall -q vmi linker rombuilder vmm bench vmirom
	@touch $@
