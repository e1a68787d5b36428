"""QBnB: NF4 weights with double quantization by bitsandbytes, products in bf16 (QLoRA, arXiv:2305.14314)."""

from surogate_bench.recipes.precisions import ComputePrecision, WeightStorage
from surogate_bench.recipes.recipe import Recipe

QBNB = Recipe(name="qbnb", title="QBnB", weight_storage=WeightStorage.NF4, compute=ComputePrecision.BF16)
