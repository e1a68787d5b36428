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
SEEDS ?=
SERVICES := common quantization trainer model-server evaluator orchestrator
UV := $(BIN)/uv
UV_INSTALL := $(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --no-deps
# uv searches for local wheels where pip does, unless UV_FIND_LINKS is set; not for CUDA, as torch's CPU build would be
# preferred to the locked one.
comma := ,
space := $(subst ,, )
ifneq ($(ACCELERATOR),cuda)
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))
endif

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | while IFS=$$'\t' read -r name text; do printf '  %-17s %s\n' "$$name" "$$text"; done

.PHONY: sweep
sweep: $(VENV)/runtime.stamp ## Run a sweep (SWEEP=configs/sweeps/embedded.yaml STORE=results SEEDS="0 1 2"); about 5 min on 2 cores with AVX-512; a repeated run continues. CLUSTER=1 NAMESPACE=… runs it on Kubernetes
	@$(BIN)/surogate-bench run $(SWEEP) $(SEEDS:%=--seed %) $(if $(CLUSTER),--on kubernetes $(if $(NAMESPACE),--namespace $(NAMESPACE)),--store $(STORE))

# More workers than cores, as many tests wait for processes. The tests of a file run in one worker, as they share
# servers. The chart's tests run separately: Helm's SDK loads Go's runtime, which should not share a process with
# torch's.
TEST_WORKERS ?= 3
WORKERS := -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder
# Coverage almost doubles the time of the tests in Python.
COVERAGE ?=
# Further variants of what other tests prove, each with processes of its own.
EXHAUSTIVE ?=
.PHONY: test
test: $(VENV)/dev.stamp ## Run all tests except those on a cluster, including those that run vLLM and lm-eval; about 17 min on 2 cores (TEST_WORKERS=3). EXHAUSTIVE=1 adds further variants, COVERAGE=1 measures coverage (30 min)
	@$(BIN)/pytest tests/chart
	@rm -f .coverage .coverage.*
	@$(BIN)/pytest $(WORKERS) -m 'not cluster$(if $(EXHAUSTIVE),, and not exhaustive)' --ignore tests/chart $(if $(COVERAGE),--cov --cov-report=)
ifneq ($(COVERAGE),)
	@$(BIN)/coverage combine --quiet --append 2>/dev/null || true
	@$(BIN)/coverage report --skip-covered --skip-empty --fail-under=90
	@$(BIN)/coverage report --include='*/surogate_bench_orchestrator/domain/*' --fail-under=100
endif

.PHONY: test-fast
test-fast: $(VENV)/dev.stamp ## Run the tests that start no server (a few minutes)
	@$(BIN)/pytest tests/chart
	@$(BIN)/pytest $(WORKERS) -m 'not e2e and not cluster' --ignore tests/chart

ROUNDS ?= 10
.PHONY: fuzz
fuzz: $(VENV)/dev.stamp ## Run the property tests with new random examples (ROUNDS=10; the other targets always draw the same ones)
	@for round in $$(seq $(ROUNDS)); do \
	  $(BIN)/pytest $(WORKERS) --hypothesis-profile 'new examples' $$(grep -rl --include='test_*.py' hypothesis tests); done

# The cluster is the one that KUBECONFIG names; its nodes have the images of `make images`, and one has two GPUs.
.PHONY: cluster-test
cluster-test: $(VENV)/dev.stamp ## Run the tests on a cluster that every change must pass (about 20 min)
	@$(BIN)/pytest tests/contract tests/cluster -m 'cluster and not exhaustive'

.PHONY: cluster-test-all
cluster-test-all: $(VENV)/dev.stamp ## Run all tests on a cluster, every fault included (about an hour)
	@$(BIN)/pytest tests/contract tests/cluster -m cluster

.PHONY: kind-up
kind-up: images ## Create a kind cluster with a GPU node, load the images and install the chart (GPUS=2, REAL_GPUS=1 for the host's)
	@IMAGE_TAG=$(IMAGE_TAG) tests/cluster/kind/up.sh

.PHONY: kind-test
kind-test: $(VENV)/dev.stamp ## Run the cluster tests on the kind cluster
	@KUBECONFIG=$$(tests/cluster/kind/kubeconfig.sh) $(MAKE) --no-print-directory cluster-test

.PHONY: kind-down
kind-down: ## Remove the kind cluster
	@tests/cluster/kind/down.sh

# For a machine that has torch, Transformers and PEFT, but no network: BORROWED=1 uses PYTHON as it is, together with the
# wheels that `make gpu-wheels` has collected on a machine with a network. Report and wheels are in folders that git ignores.
GPU_REPORT ?= gpu-check
GPU_PYTHON ?= 3.12
GPU_PLATFORMS := 2_17 2_24 2_28
BORROWED ?=
CARRIED := annotated-types bitsandbytes obstore pydantic pydantic-core typing-inspection
.PHONY: gpu-check
gpu-check: $(if $(BORROWED),gpu-wheels/site,$(VENV)/runtime.stamp) ## Prove on a GPU that every recipe is computed correctly, and time it (8 min; GPU_REPORT=gpu-check); a dry run on a CPU (1 min). BORROWED=1 on a machine without a network
	@$(if $(BORROWED),PYTHONPATH=$(subst $(space),:,$(SERVICES:%=services/%/src)):gpu-wheels/site $(PYTHON),$(BIN)/python) \
	  -m surogate_bench_trainer.gpu_check --output $(GPU_REPORT) --commit $$(git rev-parse --short HEAD 2>/dev/null || echo unknown) $(GPU_CHECK_OPTIONS)

.PHONY: gpu-wheels
gpu-wheels: $(UV) ## Collect wheels of the locked packages for BORROWED=1, about 50 MiB (GPU_PYTHON=3.12, the Python version of that machine)
	@rm -rf gpu-wheels && mkdir gpu-wheels
	@awk -v names="$(CARRIED)" 'BEGIN { n = split(names, each, " "); for (i = 1; i <= n; i++) kept[each[i]] = 1 } \
	  /^[a-z]/ { split($$0, pin, "=="); on = pin[1] in kept; sub(/ ;[^\\]*/, " ") } /^ *#/ { next } on' locks/cuda.txt > gpu-wheels/lock.txt
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
	  --implementation cp --python-version $(GPU_PYTHON) $(GPU_PLATFORMS:%=--platform manylinux_%_x86_64) -d gpu-wheels -r gpu-wheels/lock.txt
	@du -ch gpu-wheels/*.whl

gpu-wheels/site: $(wildcard gpu-wheels/*.whl)
	@[ -n "$^" ] || { echo "gpu-wheels/ has no wheels: run make gpu-wheels where there is a network, and copy the folder" >&2; exit 2; }
	@rm -rf $@ && for wheel in $^; do $(PYTHON) -m zipfile -e $$wheel $@; done

.PHONY: check
check: $(VENV)/dev.stamp ## Lint and type-check everything (about 1 min)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy services/*/src
	$(BIN)/lint-imports
	$(BIN)/codespell README.md CHANGELOG.md CONTRIBUTING.md docs Makefile services configs charts images tests
	$(BIN)/yamllint --strict configs charts/values.yaml charts/Chart.yaml tests/cluster
	$(BIN)/shellcheck .ci/run images/install.sh tests/cluster/kind/*.sh
	$(BIN)/hadolint images/Dockerfile tests/cluster/prometheus/Dockerfile

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

$(VENV)/runtime.stamp: locks/$(ACCELERATOR).txt $(SERVICES:%=services/%/pyproject.toml) $(VENV)/torch.stamp
	@echo "[3/4] $$(grep -cE '^[a-z]' $<) locked packages for $(ACCELERATOR), byte-compiled (1-3 min)"
	@$(UV_INSTALL) --require-hashes -r $<
	@echo "[4/4] the services (seconds)"
	@$(UV_INSTALL) --no-build-isolation $(SERVICES:%=-e services/%)
	@$(BIN)/python -m compileall -q services
	@touch $@

$(VENV)/dev.stamp: locks/dev.txt locks/numerics.txt $(VENV)/runtime.stamp
	@echo "[dev] test tools and oracles (up to 1 min)"
	@$(UV_INSTALL) --require-hashes -r $<
	@SKIP_CUDA_BUILD=1 $(UV_INSTALL) --require-hashes --no-build-isolation -r locks/numerics.txt
	@touch $@

LOCK := $(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11
CPU_ONLY := --excludes locks/excluded-cpu.txt
.PHONY: lock
lock: $(UV) ## Resolve the locks again from pyproject.toml (versions and hashes, no index addresses)
	$(LOCK) $(CPU_ONLY) --extra cpu --extra smollm2 pyproject.toml -o locks/cpu.txt
	env -u UV_FIND_LINKS $(LOCK) --extra cuda pyproject.toml -o locks/cuda.txt
	$(LOCK) $(CPU_ONLY) --extra cpu --extra dev --extra smollm2 -c locks/cpu.txt pyproject.toml -o locks/dev.txt
	$(MAKE) --no-print-directory lock-images
	$(MAKE) --no-print-directory lock-transformer-engine

# What Transformer Engine needs beside the CUDA image of the trainer, at the versions of locks/cuda.txt; and what compiles
# its part for torch, with the same CUDA as torch.
in_locks = $$(sed -nE 's/^([a-z0-9-]+)==.*/--no-emit-package \1/p' $(1))
.PHONY: lock-transformer-engine
lock-transformer-engine: $(UV) ## Resolve the lock of Transformer Engine again, at the versions of the other locks
	env -u UV_FIND_LINKS $(LOCK) --excludes locks/excluded-transformer-engine.txt -c locks/cuda.txt \
	  $(call in_locks,locks/images/torch-cuda.txt locks/images/trainer-cuda.txt) \
	  locks/transformer-engine.in -o locks/transformer-engine.txt
	env -u UV_FIND_LINKS $(LOCK) -c locks/images/torch-cuda.txt $(call in_locks,locks/images/torch-cuda.txt) \
	  locks/transformer-engine-build.in -o locks/transformer-engine-build.txt

# An image's lock: the dependencies of its service, at the versions of locks/cpu.txt or cuda.txt, without those of the
# torch image.
LOCK_IMAGE := $(LOCK) --excludes locks/images/excluded.txt services/common/pyproject.toml
lock_cpu := $(LOCK_IMAGE) $(CPU_ONLY) -c locks/cpu.txt
lock_cuda := env -u UV_FIND_LINKS $(LOCK_IMAGE) -c locks/cuda.txt
less_torch = $$(sed -nE 's/^([a-z0-9-]+)==.*/--no-emit-package \1/p' locks/images/torch-$(1).txt)
define lock-on-torch
	$(lock_$(1)) locks/images/torch-$(1).in -o locks/images/torch-$(1).txt
	$(lock_$(1)) $(less_torch) services/trainer/pyproject.toml -o locks/images/trainer-$(1).txt
	$(lock_$(1)) $(less_torch) services/model-server/pyproject.toml locks/images/model-server-$(1).in -o locks/images/model-server-$(1).txt
endef
.PHONY: lock-images
lock-images: $(UV) ## Resolve the images' locks again, at the versions of the other locks
	$(lock_cpu) --excludes locks/images/excluded-orchestrator.txt services/orchestrator/pyproject.toml -o locks/images/orchestrator.txt
	$(lock_cpu) services/evaluator/pyproject.toml -o locks/images/evaluator.txt
	$(call lock-on-torch,cpu)
	$(call lock-on-torch,cuda)

CONTAINER_TOOL ?= docker
IMAGE_REGISTRY ?=
IMAGE_TAG ?= dev
TRANSFORMER_ENGINE ?=
IMAGES := orchestrator evaluator trainer model-server
.PHONY: images $(IMAGES:%=image-%)
images: $(IMAGES:%=image-%) ## Build the container images (IMAGE_REGISTRY= IMAGE_TAG=dev ACCELERATOR=cpu CONTAINER_TOOL=docker). TRANSFORMER_ENGINE=1 adds that library to the trainer's (with ACCELERATOR=cuda)
image-trainer: IMAGE_TARGET = trainer$(if $(TRANSFORMER_ENGINE),-transformer-engine)
$(IMAGES:%=image-%): image-%:
	@[ -z "$(TRANSFORMER_ENGINE)" ] || [ $(ACCELERATOR) = cuda ] || { echo "TRANSFORMER_ENGINE=1 needs ACCELERATOR=cuda: the library has no part for CPUs" >&2; exit 2; }
	$(CONTAINER_TOOL) build --target $(or $(IMAGE_TARGET),$*) -t $(addsuffix /,$(IMAGE_REGISTRY))surogate-bench/$*:$(IMAGE_TAG) \
	  --build-arg UV_VERSION=$(UV_VERSION) --build-arg TORCH=$(TORCH) --build-arg ACCELERATOR=$(ACCELERATOR) \
	  $(IMAGE_LABELS) -f images/Dockerfile .
# Not as build arguments: buildah's cache would keep the first values.
IMAGE_SOURCE ?=
IMAGE_LABELS = --label org.opencontainers.image.revision=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
  $(IMAGE_SOURCE:%=--label org.opencontainers.image.source=%)

.PHONY: reference
reference: $(VENV)/runtime.stamp ## Generate the references of settings and metrics (configs/*.md) and the CRD
	@$(BIN)/python -m surogate_bench.specs.reference > configs/README.md.new && mv configs/README.md.new configs/README.md
	@$(BIN)/python -m surogate_bench.processes.metrics > configs/METRICS.md.new && mv configs/METRICS.md.new configs/METRICS.md
	@$(BIN)/python -m surogate_bench_orchestrator.resource > charts/files/recipesweeps.crd.yaml.new && mv charts/files/recipesweeps.crd.yaml.new charts/files/recipesweeps.crd.yaml

.PHONY: clean
clean: ## Remove the environment and caches, but no results
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage .surogate-bench
