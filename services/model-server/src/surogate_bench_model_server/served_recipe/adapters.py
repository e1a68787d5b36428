"""How vLLM reports its adapters: which it loads, and which adapter each token of a batch belongs to."""

import inspect
from pathlib import Path
from typing import Any

from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager, WorkerLoRAManager

from surogate_bench_model_server.served_recipe.input_scales import InputScales

_EXPECTED_PARAMETERS = {
    "_load_adapter": ("self", "lora_request"),
    "set_active_adapters": ("self", "requests", "mapping"),
}
_VLLM_LOAD = WorkerLoRAManager._load_adapter
_VLLM_SET_ACTIVE = WorkerLoRAManager.set_active_adapters


def install(scales: InputScales) -> None:
    """Report the adapters of this process's vLLM only to ``scales``, and to none that was passed before.

    Raises:
        ValueError: this vLLM loads adapters in another way than the one this was proven with.
    """
    _check()

    def load_adapter(self: WorkerLoRAManager, lora_request: Any) -> Any:  # noqa: ANN401 - vLLM's types
        lora = _VLLM_LOAD(self, lora_request)
        scales.load(lora_request.lora_int_id, lora_request.lora_name, Path(lora_request.lora_path))
        return lora

    def set_active_adapters(self: WorkerLoRAManager, requests: set[Any], mapping: Any) -> None:  # noqa: ANN401
        _VLLM_SET_ACTIVE(self, requests, mapping)
        if mapping is not None:
            scales.set_batch(mapping.index_mapping)

    WorkerLoRAManager._load_adapter = load_adapter
    WorkerLoRAManager.set_active_adapters = set_active_adapters


def _check() -> None:
    for name, expected in _EXPECTED_PARAMETERS.items():
        if name in vars(LRUCacheWorkerLoRAManager):
            raise ValueError(f"FP8 cannot be served: this vLLM's LRUCacheWorkerLoRAManager has its own {name}")
        found = tuple(inspect.signature(getattr(WorkerLoRAManager, name)).parameters)
        if found != expected:
            raise ValueError(
                f"FP8 cannot be served: this vLLM's {name} takes {', '.join(found)}; expected {', '.join(expected)}"
            )
