# Set-up is these two commands: make demo, make test. Both make a virtual environment in .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-servers test-slow bench lint format clean

demo: $(VENV)/.demo
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python examples/demo.py $(DEMO)

test: lint
	$(BIN)/pytest -n 2 -m "not slow and not servers" tests

test-servers: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadfile -m servers tests

test-slow: $(STAMP)
	$(BIN)/pytest -m slow tests

# QUICK=1: a tenth of the data, once, in three minutes; the page is printed, not kept.
bench: $(STAMP)
	$(BIN)/python -m benchmarks.bench $(if $(QUICK),--quick)

lint: $(STAMP)
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/ruff format --check src tests examples benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)
	$(BIN)/ruff check --fix src tests examples benchmarks
	$(BIN)/ruff format src tests examples benchmarks

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV) || (apt-get update -q && apt-get install -y -q python3-venv && $(PYTHON) -m venv $(VENV))

$(STAMP): pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[s3-fast,dev]"
	touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[demo]"
	touch $@

clean:
	rm -rf $(VENV) .demo
