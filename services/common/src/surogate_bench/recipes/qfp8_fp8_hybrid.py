"""QFP8 + fp8-hybrid: weights kept in FP8 128x128 tiles, products in FP8."""

from surogate_bench.recipes.precisions import ComputePrecision, WeightStorage
from surogate_bench.recipes.recipe import Recipe

QFP8_FP8_HYBRID = Recipe(
    name="qfp8-fp8-hybrid",
    title="QFP8 + fp8-hybrid",
    weight_storage=WeightStorage.FP8_128X128,
    compute=ComputePrecision.FP8_HYBRID,
)
