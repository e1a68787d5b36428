"""Weights stored as NVFP4."""

from torch import Tensor

from surogate_bench_quantization.formats.nvfp4 import padded, quantize_rows
from surogate_bench_quantization.formats.nvfp4_packed import pack, unpack_products
from surogate_bench_quantization.fusion import SLAB, slabs
from surogate_bench_quantization.storage.frozen_weight import FrozenWeight


class NVFP4Weight(FrozenWeight):
    """NVFP4 in blocks of 1x16 along in_features, without 4/6: 0.5625 bytes per parameter and 4 bytes per tensor.

    Codes and scales are those of whole blocks: if in_features is not divisible by 16, zeros pad the last block.
    """

    codes: Tensor
    block_scales: Tensor
    tensor_scale: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._columns = weight.shape[1]
        whole = padded(weight.detach().contiguous())
        quantized = quantize_rows(whole, four_over_six=False)
        codes, block_scales = pack(quantized, whole)
        self.register_buffer("codes", codes)
        self.register_buffer("block_scales", block_scales)
        self.register_buffer("tensor_scale", quantized.tensor_scale)

    def dequantize(self) -> Tensor:
        """bf16(element * block scale * tensor scale); the first product is exact, the second one formed in fp32."""
        values = unpack_products(self.codes, self.block_scales)[:, : self._columns].contiguous()
        # A GPU rounds a 0-dim fp32 operand of a bf16 tensor to bf16 before it multiplies.
        for (part,) in slabs(values.view(-1), rows=SLAB):
            part.copy_(part.float().mul_(self.tensor_scale))
        return values
