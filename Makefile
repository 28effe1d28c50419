# Every target sets up .venv itself, with uv if it is there, else with venv and pip. Offline once installed.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: demo test lint bench clean

demo: .venv/installed
	$(BIN)/python -m pipeline run

test: .venv/installed-dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(PYTEST_ARGS)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/installed-dev
	$(BIN)/python -m benchmarks.parse

clean:
	rm -rf .venv .scratch .run .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A lock is installed once for what it says; a changed one installs again.
define install
	@if command -v uv >/dev/null; then \
		test -x $(BIN)/python || uv venv -q --python $(PYTHON) .venv; \
		uv pip install -q --compile-bytecode --python $(BIN)/python -r $(1); \
	else \
		test -x $(BIN)/python || $(PYTHON) -m venv .venv; \
		$(BIN)/python -m pip install -q --disable-pip-version-check -r $(1); \
	fi
endef

.venv/installed: requirements.lock
	@echo "installing requirements.lock into .venv (several GB the first time)"
	$(call install,requirements.lock)
	@touch $@

.venv/installed-dev: requirements-dev.lock
	@echo "installing requirements-dev.lock into .venv (several GB the first time)"
	$(call install,requirements-dev.lock)
	@touch $@ .venv/installed
