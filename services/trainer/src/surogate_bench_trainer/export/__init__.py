"""Writing the base weights of a recipe as a checkpoint that other servers load."""

from surogate_bench_trainer.export.stage import export_stage

__all__ = ["export_stage"]
