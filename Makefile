# surogate-bench: `make sweep` runs the embedded experiment, `make test` the tests. Both set everything up first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
TORCH := torch==2.13.0
ACCELERATOR ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
SWEEP ?= configs/sweeps/embedded.yaml
STORE ?= results
SERVICES := common trainer model-server evaluator orchestrator
UV := $(BIN)/uv
UV_INSTALL := $(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --no-deps
# uv looks for local wheels where pip was told to, unless it was told itself.
comma := ,
space := $(subst ,, )
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | while IFS=$$'\t' read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

.PHONY: sweep
sweep: $(VENV)/runtime.stamp ## Run a sweep (SWEEP=configs/sweeps/embedded.yaml STORE=results); about 4 min on 2 cores, and it continues where it was
	@$(BIN)/surogate-bench run $(SWEEP) --store $(STORE)

.PHONY: test
test: $(VENV)/dev.stamp ## Run all tests with coverage, real vLLM and lm-eval included; about 25 min on 2 cores
	@rm -f .coverage .coverage.*
	@$(BIN)/pytest --cov --cov-report=
	@$(BIN)/coverage combine --quiet --append 2>/dev/null || true
	@$(BIN)/coverage report --skip-covered --skip-empty --fail-under=90
	@$(BIN)/coverage report --include='*/surogate_bench_orchestrator/domain/*' --fail-under=100

.PHONY: test-fast
test-fast: $(VENV)/dev.stamp ## Run the tests that start no server (a few minutes)
	@$(BIN)/pytest -m 'not e2e'

.PHONY: check
check: $(VENV)/dev.stamp ## Lint and type-check everything (about 1 min)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy services/*/src
	$(BIN)/lint-imports
	$(BIN)/codespell README.md CHANGELOG.md Makefile services configs tests
	$(BIN)/yamllint --strict configs
	$(BIN)/shellcheck .ci/run

.PHONY: format
format: $(VENV)/dev.stamp ## Format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: env
env: $(VENV)/runtime.stamp ## Build the environment only (2-5 min, 3 GB on a CPU machine)

$(UV):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "surogate-bench needs Python 3.11, 3.12 or 3.13 (PYTHON=…); $(PYTHON) is %d.%d" % v)'
	@echo "[1/4] virtual environment in $(VENV) (seconds)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# Without a GPU the CPU build: a local wheel if one is found, otherwise the one uv selects. CUDA's is in its lock.
$(VENV)/torch.stamp: | $(UV)
	@echo "[2/4] $(TORCH) for $(ACCELERATOR) (up to 1 min)"
	@[ $(ACCELERATOR) = cuda ] || { [ -n "$$UV_FIND_LINKS" ] && $(UV_INSTALL) --no-index $(TORCH) 2>/dev/null; } || $(UV_INSTALL) --torch-backend cpu $(TORCH)
	@touch $@

$(VENV)/runtime.stamp: requirements-$(ACCELERATOR).txt $(SERVICES:%=services/%/pyproject.toml) $(VENV)/torch.stamp
	@echo "[3/4] $$(grep -cE '^[a-z]' $<) locked packages for $(ACCELERATOR), byte-compiled (1-3 min)"
	@$(UV_INSTALL) --require-hashes -r $<
	@echo "[4/4] the services (seconds)"
	@$(UV_INSTALL) --no-build-isolation $(SERVICES:%=-e services/%)
	@$(BIN)/python -m compileall -q services
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt tests/numerics/requirements.txt $(VENV)/runtime.stamp
	@echo "[dev] test tools and oracles (up to 1 min)"
	@$(UV_INSTALL) --require-hashes -r $<
	@SKIP_CUDA_BUILD=1 $(UV_INSTALL) --require-hashes --no-build-isolation -r tests/numerics/requirements.txt
	@touch $@

LOCK := $(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11
CPU_ONLY := --excludes images/excluded-packages.txt
.PHONY: lock
lock: $(UV) ## Resolve the locks anew from pyproject.toml (versions and hashes, no index addresses)
	$(LOCK) $(CPU_ONLY) --extra cpu --extra smollm2 pyproject.toml -o requirements-cpu.txt
	env -u UV_FIND_LINKS $(LOCK) --extra cuda pyproject.toml -o requirements-cuda.txt
	$(LOCK) $(CPU_ONLY) --extra cpu --extra dev --extra smollm2 -c requirements-cpu.txt pyproject.toml -o requirements-dev.txt

.PHONY: reference
reference: $(VENV)/runtime.stamp ## Write configs/README.md, the reference of all settings, anew
	@$(BIN)/python -m surogate_bench.specs.reference > configs/README.md

.PHONY: clean
clean: ## Remove the environment and caches; results stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage .surogate-bench
