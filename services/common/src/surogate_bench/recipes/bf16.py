"""BF16: the reference that every other recipe is compared with."""

from surogate_bench.recipes.precisions import ComputePrecision, WeightStorage
from surogate_bench.recipes.recipe import Recipe

BF16 = Recipe(name="bf16", title="BF16", weight_storage=WeightStorage.BF16, compute=ComputePrecision.BF16)
