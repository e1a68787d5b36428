"""FP4: bf16 weights, products in NVFP4 with four-over-six scaling.

Every block is quantized here. The published FP4 row left the last four blocks in bf16 (``skip_last_layers: 4``);
``configs/recipes/fp4-published.yaml`` spells that out.
"""

from surogate_bench.recipes.precisions import ComputePrecision, WeightStorage
from surogate_bench.recipes.recipe import Recipe

FP4 = Recipe(name="fp4", title="FP4", weight_storage=WeightStorage.BF16, compute=ComputePrecision.NVFP4)
