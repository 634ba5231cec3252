# Every target sets up .venv by itself. A stamp says what is installed there; a changed pyproject.toml renews it.

PYTHON ?= python3
SEEDS ?= 100

PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check
PYTEST := .venv/bin/python -m pytest

export RAY_USAGE_STATS_ENABLED := 0

.PHONY: demo test check sim fault nodes long bench policies clean

demo: .venv/demo.stamp
	.venv/bin/flexray run examples/grid_search.py

# What needs no Ray runs on both cores at once, the rest one by one.
test: .venv/dev.stamp
	$(PYTEST) tests/unit tests/sim -n 2
	$(PYTEST) tests -m "not long" --ignore tests/unit --ignore tests/sim

check: .venv/dev.stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy flexray $(wildcard tests/typing)
	.venv/bin/lint-imports

sim: .venv/dev.stamp
	FLEXRAY_SIM_SEEDS=$(SEEDS) $(PYTEST) tests/sim

fault: .venv/dev.stamp
	$(PYTEST) tests/fault

nodes: .venv/dev.stamp
	$(PYTEST) tests/integration/test_nodes.py tests/integration/test_on_premises.py

# What `make test` leaves out.
long: .venv/dev.stamp
	$(PYTEST) tests -m long

bench: .venv/bench.stamp
	.venv/bin/python -m tests.bench

# Scaling policies compared in simulation: writes docs/policies.md and its plot.
policies: .venv/bench.stamp
	.venv/bin/python -m tests.bench.policies

clean:
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[examples]'
	touch $@

.venv/dev.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[dev,examples]'
	touch .venv/demo.stamp $@

.venv/bench.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[bench]'
	touch $@
