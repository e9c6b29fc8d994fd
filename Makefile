# Everything a person or CI runs. Needs Python 3.11 or later, make, and the package index; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test check bench clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 10

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.installed-test: $(BIN)/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/.installed-demo

demo: $(VENV)/.installed-demo  ## train on 2,624 photos of solar cells, show the accuracy and where the report is
	$(BIN)/headstart train elpv --out runs/demo --overwrite --budget 10s

test: $(VENV)/.installed-test  ## every test, in two processes
	$(BIN)/python -m pytest -n 2

check: $(VENV)/.installed-test  ## format, lint, types and tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

bench: $(VENV)/.installed-test  ## the measurements behind every number in the documents; DATA=folder with ants_bees, ...
	$(BIN)/python benchmarks/all.py $(DATA)

clean:  ## remove what the targets above made, but no run and no photo
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
