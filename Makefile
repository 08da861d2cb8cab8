# Everything that a clone needs: `make demo` shows the main job, `make test` passes the tests, `make check` the linters.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Rooms whose branch coverage is held at 95 %.
COVERED := store objects delta merge
COVERAGE := $(foreach room,$(COVERED),--cov=weightvc.$(room)) --cov-branch --cov-report=term:skip-covered --cov-fail-under=95

.PHONY: demo test check docs clean

demo: $(READY)
	$(BIN)/python benchmarks/demo.py

test: $(READY)
	$(BIN)/pytest -n 2 --dist worksteal $(COVERAGE) $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/docs

docs: $(READY)
	$(BIN)/python docs/reference.py

$(READY): pyproject.toml constraints/ci.txt weightvc/delta/kernels/compiled.c
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "weightvc needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch, the other packages and the test tools into $(VENV): 1.3 GB with the CPU build of PyTorch,"
	@echo "more with CUDA's. This takes minutes; pip says what it downloads, and how big it is."
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints/ci.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) .demo .coverage .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
