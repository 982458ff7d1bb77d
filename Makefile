# One word for each thing that people and CI do. Needs Python 3.11+ with pip, and make; all of it stays in .venv.
#
#   make serve MODEL=intfloat/e5-small-v2 HOST=0.0.0.0 PORT=9000 ARGS="--precision fp32"
#   make test ARGS="tests/unit -x"

# `=` and not `?=`: some shells export HOST with another meaning. The command line still wins.
HOST = 127.0.0.1
PORT = 8080
MODEL =
ARGS =
PYTHON ?= python3

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --no-emit-index-url \
	--annotation-style line --custom-compile-command "make lock"

.DELETE_ON_ERROR:
.PHONY: help install serve test check docs fix stress bench lock clean

help:
	@echo "make serve    environment, default model, server on http://$(HOST):$(PORT)"
	@echo "make test     environment, all tests but the stress tests"
	@echo "make install  the environment of serving alone, in .venv"
	@echo "make check    linters, types, architecture, generated pages"
	@echo "make docs     write the pages that come from the code"
	@echo "make fix      format, and mend what the linter can mend"
	@echo "make stress   minutes of load on a real server"
	@echo "make bench    measure this machine"
	@echo "make lock     pin the dependencies anew (ARGS=--upgrade for newer versions)"
	@echo "make clean    remove .venv and caches"

install: .venv/serve.stamp

serve: .venv/serve.stamp
	@exec $(BIN)/tandem serve $(MODEL) --host $(HOST) --port $(PORT) $(ARGS)

test: .venv/dev.stamp
	$(BIN)/python -m pytest $(ARGS)

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/architecture

# What is generated from the code; `make check` fails when it lags.
docs: .venv/serve.stamp
	$(BIN)/python -c 'from pathlib import Path; from tandem.settings_page import settings_markdown; Path("docs/settings.md").write_text(settings_markdown(), encoding="utf-8")'

fix: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

stress: .venv/dev.stamp
	$(BIN)/python -m pytest -m stress $(ARGS)

bench: .venv/serve.stamp
	$(BIN)/tandem bench offline $(ARGS)
	$(BIN)/tandem bench serve $(ARGS)

# A stamp is younger than what it was made from, so a second run does nothing and a changed lock installs again.
.venv/serve.stamp: requirements/build.txt requirements/serve.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tandem needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; name another with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PIP) install --require-hashes -r requirements/build.txt -r requirements/serve.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev.stamp: .venv/serve.stamp requirements/dev.txt
	$(PIP) install -r requirements/dev.txt
	@touch $@

lock: .venv/dev.stamp
	$(LOCK) --generate-hashes requirements/build.in -o requirements/build.txt $(ARGS)
	$(LOCK) --generate-hashes pyproject.toml -o requirements/serve.txt $(ARGS)
	$(LOCK) --excludes requirements/cuda.txt requirements/dev.in -c requirements/serve.txt -o requirements/dev.txt $(ARGS)

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
