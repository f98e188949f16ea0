# make demo | test | lint | real | bench | wheel: each sets up .venv itself.
PYTHON ?= python3
BIN := .venv/bin
DATA := $(or $(POSEGRAD_DATA),../shared/data)

.PHONY: demo test lint real bench wheel clean

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
	$(BIN)/posegrad train --out runs/demo

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

test: lint
	$(BIN)/pytest

wheel: .venv/.dev
	bash tests/wheel.sh

clean:
	rm -rf .venv dist runs
