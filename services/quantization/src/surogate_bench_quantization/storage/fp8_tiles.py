"""Weights stored as FP8 in tiles."""

from torch import Tensor

from surogate_bench_quantization.formats.fp8 import dequantize_tiles, quantize_tiles
from surogate_bench_quantization.storage.frozen_weight import FrozenWeight


class FP8TilesWeight(FrozenWeight):
    """E4M3 with an fp32 scale per 128x128 tile: 1 + 4/16384 bytes per parameter where tiles are whole."""

    codes: Tensor
    inverse_scales: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        codes, inverse_scales = quantize_tiles(weight.detach())
        self.register_buffer("codes", codes)
        self.register_buffer("inverse_scales", inverse_scales)

    def dequantize(self) -> Tensor:
        """bf16(code / scale)."""
        return dequantize_tiles(self.codes, self.inverse_scales)
