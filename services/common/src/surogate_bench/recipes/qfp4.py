"""QFP4: weights kept in NVFP4; products in FP8, as in the published row."""

from surogate_bench.recipes.precisions import ComputePrecision, WeightStorage
from surogate_bench.recipes.recipe import Recipe

QFP4 = Recipe(name="qfp4", title="QFP4", weight_storage=WeightStorage.NVFP4, compute=ComputePrecision.FP8_HYBRID)
