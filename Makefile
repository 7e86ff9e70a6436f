# Each target installs into .venv first, if that was not done since setup.py last changed.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help venv demo test lint

help:
	@echo "make demo   train and evaluate a small model on this machine, then open output/demo/index.html"
	@echo "make test   run every test"
	@echo "make lint   ruff and mypy"
	@echo "make venv   install semsam and its development tools into .venv"

venv: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -e '.[dev]' -c constraints.txt
	touch $@

demo: venv
	$(BIN)/python tools/make_demo.py

# One thread a worker: tests are many and small.
test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
