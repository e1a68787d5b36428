"""Which engine this machine runs a recipe with, told without importing torch.

The trainer decides by the same rules (tests compare the two).
"""

from dataclasses import dataclass
from importlib.util import find_spec

from surogate_bench.recipes import ComputePrecision, Recipe, WeightStorage
from surogate_bench_orchestrator.adapters.local.machine import Machine


@dataclass(frozen=True, slots=True)
class Capability:
    """Whether and how a recipe runs here."""

    engine: str | None
    """None where none can."""
    note: str


def capability(recipe: Recipe, machine: Machine) -> Capability:
    """Say which engine ``auto`` takes for a recipe on this machine."""
    if recipe.weight_storage is WeightStorage.NF4:
        if find_spec("bitsandbytes") is None:
            return Capability(None, "needs bitsandbytes, which is not installed")
        return Capability("bitsandbytes", "products in bf16")
    if recipe.compute is ComputePrecision.BF16:
        return Capability("torch", "products in bf16")
    if recipe.compute is ComputePrecision.NVFP4:
        return Capability("emulated", "bit for bit; this version has no engine for FP4 tensor cores")
    needs = recipe.min_compute_capability or (0, 0)
    there = any(gpu.compute_capability and gpu.compute_capability >= needs for gpu in machine.gpus)
    if there:
        return Capability("torch", "products on FP8 tensor cores")
    return Capability(
        "emulated", f"bit for bit, but slower; in hardware from compute capability {needs[0]}.{needs[1]} on"
    )
