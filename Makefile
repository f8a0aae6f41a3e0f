PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check bench torture floors gpu docs clean

demo: $(STAMP)  ## pretrain, sweep, select and report on images the package makes itself
	$(BIN)/densescope demo --output demo

test: $(STAMP)  ## everything CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal
	$(BIN)/python -m pytest -q --nbmake --nbmake-timeout=600 examples/quickstart.ipynb

check: $(STAMP)  ## format, lint, types and the fast tests
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -x -n 2 -m "not slow and not browser"

CAMVID ?= $(wildcard ../shared/data/camvid_small)

bench: $(STAMP)  ## measure speed; tables go to benchmarks/results
	$(BIN)/python -m benchmarks.imports
	$(BIN)/python -m benchmarks.estimator
	$(BIN)/python -m benchmarks.metrics
	$(BIN)/python -m benchmarks.layers
	$(BIN)/python -m benchmarks.probing $(if $(CAMVID),--camvid $(CAMVID))
	$(BIN)/python -m benchmarks.views
	$(BIN)/python -m benchmarks.sweep
	$(BIN)/python -m benchmarks.regularizer
	$(BIN)/python -m benchmarks.regularizer --lightly
	$(BIN)/python -m benchmarks.monitor

torture: $(STAMP)  ## hostile, broken and odd inputs under limits; prints what happened
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hostile
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.hostile.kills

FLOORS ?= .floors

floors:  ## the fast tests with the oldest versions that pyproject.toml names
	$(PYTHON) -m venv $(FLOORS)
	$(FLOORS)/bin/python -m pip install --disable-pip-version-check -q uv
	$(FLOORS)/bin/uv pip install -q --python $(FLOORS)/bin/python --resolution lowest-direct -e ".[dev]"
	OMP_NUM_THREADS=1 $(FLOORS)/bin/python -m pytest -q -m "not slow and not browser" tests

gpu: $(STAMP)  ## all that needs a GPU, in nine minutes; records go to gpu-records
	$(BIN)/python -m benchmarks.gpu

study: $(STAMP)  ## tables and figure of studies/degradation from its records
	$(BIN)/python -m benchmarks.degradation
	$(BIN)/python -m benchmarks.rulers

docs: $(STAMP)  ## the user guide and the reference, into site/; a broken link or anchor fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo site build dist
