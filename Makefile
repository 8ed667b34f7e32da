# Every target makes its own environment in .venv; only Python 3.11+ and a package registry are needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
RETRIEVAL := $(BIN)/retrieval
.DEFAULT_GOAL := help
.PHONY: help demo test check e2e bench lock clean

help: ## Show the targets
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## /  make \1	/' | expand -t 16

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; run make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "installing into .venv (torch, CPU build where the registry has one)" >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check torch==2.13.0
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## Run the whole pipeline on generated data and show where the report is
	@$(RETRIEVAL) run pipelines/sample.toml --workspace workspace

test: $(READY) ## Run the tests (RETRIEVAL_DATA=folder adds the real-data ones)
	@$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

check: $(READY) ## Style, types and layers
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

e2e: $(READY) ## Run every recipe end to end on generated data
	@$(BIN)/python -m pytest -q tests/e2e

bench: $(READY) ## Run the short benchmarks; benchmarks/README.md has the long ones
	@for file in lists search evaluate prepare; do $(BIN)/python benchmarks/$$file.py || exit 1; done

lock: $(READY) ## Pin every dependency but torch, with hashes, into requirements.lock
	@$(BIN)/python -m pip install -q uv
	@$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); x = p["project"]["optional-dependencies"]; \
	  wanted = p["project"]["dependencies"] + x["cpu"] + x["report"] + x["tune"] + x["s3"] + x["dev"] + p["build-system"]["requires"] + ["editables", "fsspec", "networkx", "sympy"]; \
	  print("\n".join(each for each in wanted if not each.startswith("torch")))' | $(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header --no-annotate -o requirements.lock -

clean: ## Remove the environment, caches and the demo's workspace
	rm -rf .venv workspace .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
