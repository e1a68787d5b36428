"""Engines: implementations of a recipe's products."""

from surogate_bench_quantization.engines.engine import Engine, EngineSession
from surogate_bench_quantization.engines.selection import select_engine

__all__ = ["Engine", "EngineSession", "select_engine"]
