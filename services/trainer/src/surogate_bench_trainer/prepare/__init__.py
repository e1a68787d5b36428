"""The prepare stage: checks model and data before anything expensive starts, and publishes them for all stages."""

from surogate_bench_trainer.prepare.stage import prepare_stage

__all__ = ["prepare_stage"]
