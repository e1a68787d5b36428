"""The specification of a sweep, ``RecipeSweep``, read from YAML."""

from surogate_bench.specs.adapters import ForeignAdapter
from surogate_bench.specs.data import DataSpec
from surogate_bench.specs.evaluation import EvaluationSpec, ServingSpec
from surogate_bench.specs.lora import LoraSpec
from surogate_bench.specs.model import ModelSpec
from surogate_bench.specs.recipes import RecipeEntry
from surogate_bench.specs.sweep import Placement, RecipeSweep
from surogate_bench.specs.trainers import ForeignTrainer
from surogate_bench.specs.training import TrainingSpec
from surogate_bench.specs.yaml_io import load_sweep, with_seeds

__all__ = [
    "DataSpec",
    "EvaluationSpec",
    "ForeignAdapter",
    "ForeignTrainer",
    "LoraSpec",
    "ModelSpec",
    "Placement",
    "RecipeEntry",
    "RecipeSweep",
    "ServingSpec",
    "TrainingSpec",
    "load_sweep",
    "with_seeds",
]
