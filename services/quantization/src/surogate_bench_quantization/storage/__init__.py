"""Storage of the frozen weights, exact to the byte."""

from surogate_bench_quantization.storage.fp8_tiles import FP8TilesWeight
from surogate_bench_quantization.storage.frozen_weight import FrozenWeight
from surogate_bench_quantization.storage.nvfp4 import NVFP4Weight
from surogate_bench_quantization.storage.selection import freeze

__all__ = ["FP8TilesWeight", "FrozenWeight", "NVFP4Weight", "freeze"]
