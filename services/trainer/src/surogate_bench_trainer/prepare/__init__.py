"""The prepare stage: check model and data before anything expensive starts, and put them where all stages find them."""

from surogate_bench_trainer.prepare.stage import prepare_stage

__all__ = ["prepare_stage"]
