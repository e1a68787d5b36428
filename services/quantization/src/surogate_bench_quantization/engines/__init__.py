"""Engines: who does a recipe's arithmetic."""

from surogate_bench_quantization.engines.engine import Engine, EngineSession
from surogate_bench_quantization.engines.selection import select_engine

__all__ = ["Engine", "EngineSession", "select_engine"]
