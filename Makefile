# Every target sets up .venv itself, with uv if it is there, else with venv and pip. Offline once installed.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: demo checkpoints treebank test lint bench clean

demo: .venv/installed
	$(BIN)/python -m pipeline run

# The tiny checkpoints of demo/checkpoints, each by its recipe, in the order in which they need one another. Hours on
# CPU. A recipe that was stopped goes on where it was when this is called again.
RECIPES := bert_tiny simcse_teacher diffcse_teacher clip sam grounding_dino
DEVICE ?= cpu
THREADS ?= 2
EWT ?=

checkpoints: treebank .venv/installed
	$(BIN)/python -m demo.recipes.stanza_en --treebank "$(EWT)" --threads $(THREADS)
	@set -e; for recipe in $(RECIPES); do echo "$$recipe"; \
		$(BIN)/python -m demo.recipes.$$recipe --device $(DEVICE) --threads $(THREADS); done

treebank:
	@test -d "$(EWT)" || { echo "EWT='$(EWT)' is no folder. The parser is trained on Universal Dependencies English EWT:" \
		"make checkpoints EWT=PATH_TO_UD_ENGLISH_EWT" >&2; exit 2; }

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
