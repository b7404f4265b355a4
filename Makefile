# Two commands do all their own set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test lint bench setup clean
.DELETE_ON_ERROR:

setup: $(VENV)/.ready

# Installed once, and again when what is declared changes.
$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("edgessl needs Python 3.10 or newer; set PYTHON=" if sys.version_info < (3, 10) else 0)'
	@echo "setting up $(VENV) (the first time takes a few minutes)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: setup
	@$(PY) -m examples.demo

lint: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

test: lint
	@$(PY) -m pytest -n 2 --dist loadfile

# Figures for docs/benchmarks.md; minutes, on an otherwise idle machine.
bench: setup
	@$(PY) -m examples.measure

clean:
	rm -rf $(VENV) .venv-peers .cache out build *.egg-info .mypy_cache .pytest_cache .ruff_cache
