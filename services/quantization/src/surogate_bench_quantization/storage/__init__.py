"""Storage of the frozen weights, exact to the byte."""

from surogate_bench_quantization.storage.frozen_weight import (
    BF16Weight,
    FP8TilesWeight,
    FrozenWeight,
    NVFP4Weight,
    freeze,
)

__all__ = ["BF16Weight", "FP8TilesWeight", "FrozenWeight", "NVFP4Weight", "freeze"]
