"""The prepare stage: checks model and data before anything expensive starts, and publishes them for all stages.

The same checks serve an inspection, which describes what would be trained and publishes nothing.
"""

from surogate_bench_trainer.prepare.inspection import inspect_stage
from surogate_bench_trainer.prepare.stage import prepare_stage

__all__ = ["inspect_stage", "prepare_stage"]
