"""FP8: bf16 weights, products in FP8 (E4M3 forward, E5M2 gradients), as Transformer Engine's HYBRID format."""

from surogate_bench.recipes.precisions import ComputePrecision, WeightStorage
from surogate_bench.recipes.recipe import Recipe

FP8 = Recipe(name="fp8", title="FP8", weight_storage=WeightStorage.BF16, compute=ComputePrecision.FP8_HYBRID)
