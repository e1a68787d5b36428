"""Select the engine with which this machine runs a recipe, without importing torch."""

from dataclasses import dataclass
from importlib.util import find_spec

from surogate_bench.recipes import Recipe
from surogate_bench.recipes.engines import AUTO, required_capability, select_support, unsupported_reason
from surogate_bench_orchestrator.runtimes.local.machine import Machine


@dataclass(frozen=True, slots=True)
class Capability:
    """Whether a recipe can run on this machine, and on which engine."""

    engine: str | None
    """None if no engine can run it."""
    note: str


def capability(recipe: Recipe, machine: Machine, requested: str = AUTO) -> Capability:
    """Return the engine that is selected for a recipe on this machine, by name or by ``auto``."""
    available = max((gpu.compute_capability for gpu in machine.gpus if gpu.compute_capability), default=None)
    support = select_support(recipe, available, requested)
    if support is None:
        return Capability(None, unsupported_reason(recipe, requested))
    if support.package and find_spec(support.package) is None:
        return Capability(None, f"needs {support.package}, which is not installed")
    faster = required_capability(recipe, requested)
    if faster is None or support.min_compute_capability:
        return Capability(support.engine, support.note)
    return Capability(support.engine, f"{support.note}; in hardware from compute capability {faster[0]}.{faster[1]} on")
