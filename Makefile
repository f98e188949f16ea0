# make demo | test | lint | exhaustive | real | bench | gate | accuracy | wheel: each sets up .venv itself.
PYTHON ?= python3
BIN := .venv/bin
DATA := $(or $(POSEGRAD_DATA),../shared/data)

# OpenMP threads that wait for each other spin for a moment, then sleep. Spinning on (the default) makes a training step
# four times as slow when anything else runs on the machine, sleeping at once twice as slow when nothing does.
export GOMP_SPINCOUNT ?= 10000

.PHONY: demo test lint exhaustive real real-test bench gate accuracy wheel clean

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "posegrad needs Python 3.11 or newer; set PYTHON=python3.x"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "no venv module: install it (Debian: apt install python3-venv)"; exit 1; }
	@touch $@

.venv/.train: .venv/.python pyproject.toml
	$(BIN)/pip install -q -e '.[train]'
	@touch $@

.venv/.dev: .venv/.python pyproject.toml
	$(BIN)/pip install -q -e '.[train,dev]'
	@touch $@ .venv/.train

demo: .venv/.train
	$(BIN)/posegrad train --out runs/demo --max-minutes 7.5 --overwrite

.venv/.real: .venv/.train
	$(BIN)/pip install -q -e '.[train,real]'
	@touch $@

# Real images: LM-Occlusion, eight objects, the better part of an hour; figures and metrics in runs/real
real: .venv/.real
	BIN=$(BIN) DATA=$(DATA) bash examples/real.sh

# Tests that need the real data folder
real-test: .venv/.dev
	POSEGRAD_DATA=$(DATA) $(BIN)/pytest -m real

# Time, accuracy and memory beside other solvers; without --quick all sizes, the better part of an hour
bench: .venv/.dev
	$(BIN)/python benchmarks/speed.py --quick

# Whether this package has become slower than the committed ratios to another solver allow
gate: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed.py --gate --clock cpu

# How often the best known minimum is reached, beside other solvers; resumable, tables in runs/accuracy
accuracy: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/accuracy.py

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

# One process a core, each of one thread
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

test: lint
	$(PYTEST)

wheel: .venv/.dev
	bash tests/wheel.sh

clean:
	rm -rf .venv dist runs

# The full product of cameras x losses x weights, and the long fuzz: tens of minutes
exhaustive: .venv/.dev
	$(PYTEST) -m exhaustive
