"""Check that this vLLM is one that the plug-in was tested with, and install the plug-in."""

import inspect
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms.cpu import CpuPlatform

from surogate_bench.machine.packages import VLLM

PROVEN_VERSIONS = SpecifierSet(">=0.32.0,<0.33")
STOCK_WRAPPER = "vllm.lora.punica_wrapper.punica_cpu.PunicaWrapperCPU"
OUR_WRAPPER = "surogate_bench_model_server.cpu_lora.wrapper.GroupedPunicaWrapper"

_EXPECTED_PARAMETERS = {
    "update_metadata": ("self", "mapping", "lora_index_to_id", "max_loras", "vocab_size", "kwargs"),
    "add_lora_linear": (
        *("self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "output_slices", "buffer", "kwargs"),
    ),
    "add_lora_embedding": ("self", "y", "x", "lora_b_stacked", "add_inputs", "kwargs"),
    "add_lora_logits": ("self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "buffer", "kwargs"),
}


def find_obstacle() -> str | None:
    """Return why the plug-in cannot be used; None if it can."""
    found = _vllm_version()
    if found is None or not PROVEN_VERSIONS.contains(found, prereleases=True):
        return f"proven with vLLM {PROVEN_VERSIONS}, this is {found or 'of unknown version'}"
    for name, expected in _EXPECTED_PARAMETERS.items():
        method = getattr(PunicaWrapperCPU, name, None)
        if method is None:
            return f"PunicaWrapperCPU has no {name}"
        parameters = tuple(inspect.signature(method).parameters)
        if parameters != expected:
            return f"PunicaWrapperCPU.{name} takes {', '.join(parameters)}; expected {', '.join(expected)}"
    if not isinstance(getattr(PunicaWrapperCPU, "token_lora_indices", None), property):
        return "PunicaWrapperCPU has no property token_lora_indices"
    chosen = CpuPlatform.get_punica_wrapper()
    if chosen not in {STOCK_WRAPPER, OUR_WRAPPER}:
        return f"the CPU platform already uses {chosen}"
    return None


def install() -> None:
    """Make vLLM's CPU platform return our class as its LoRA implementation."""

    def get_punica_wrapper(_platform: type[CpuPlatform]) -> str:
        return OUR_WRAPPER

    CpuPlatform.get_punica_wrapper = classmethod(get_punica_wrapper)


def _vllm_version() -> str | None:
    for distribution in reversed(VLLM):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None
