"""The import stage: adapters that were trained elsewhere are fetched, checked, and written as vLLM serves them."""

from surogate_bench_trainer.foreign.stage import import_stage

__all__ = ["import_stage"]
