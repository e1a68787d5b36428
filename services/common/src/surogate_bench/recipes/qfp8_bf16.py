"""QFP8 + bf16: weights kept in FP8 128x128 tiles, products in bf16."""

from surogate_bench.recipes.precisions import ComputePrecision, WeightStorage
from surogate_bench.recipes.recipe import Recipe

QFP8_BF16 = Recipe(
    name="qfp8-bf16",
    title="QFP8 + bf16",
    weight_storage=WeightStorage.FP8_128X128,
    compute=ComputePrecision.BF16,
)
