"""Holders of one frozen weight matrix each.

Everything is kept in registered buffers, quantized data as uint8: PEFT casts fresh adapters to the dtype of a float8
base, which would round LoRA's initialization.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from surogate_bench.recipes import WeightStorage
from surogate_bench_quantization.formats.fp8 import dequantize_tiles, quantize_tiles
from surogate_bench_quantization.formats.nvfp4 import filled, quantize_rows
from surogate_bench_quantization.formats.nvfp4_packed import pack, unpack_products
from surogate_bench_quantization.fusion import SLAB, slabs


class FrozenWeight(nn.Module):
    """A weight of shape (out_features, in_features) in some storage format."""

    @abstractmethod
    def dequantize(self) -> Tensor:
        """The stored values as a bf16 tensor (out_features, in_features), rounded once."""

    @property
    def nbytes(self) -> int:
        """Bytes that the stored weight takes, scales included."""
        return sum(buffer.nbytes for buffer in self.buffers())


class BF16Weight(FrozenWeight):
    """Plain bf16: 2 bytes a parameter."""

    values: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", weight.detach().to(torch.bfloat16))

    def dequantize(self) -> Tensor:
        """The stored tensor itself."""
        return self.values


class FP8TilesWeight(FrozenWeight):
    """E4M3 with an fp32 scale per 128x128 tile: 1 + 4/16384 bytes a parameter where tiles are whole."""

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


class NVFP4Weight(FrozenWeight):
    """NVFP4 in blocks of 1x16 along in_features, without 4/6: 0.5625 bytes a parameter and 4 bytes a tensor.

    Codes and scales are those of whole blocks: where 16 does not divide in_features, zeros fill up the last one.
    """

    codes: Tensor
    block_scales: Tensor
    tensor_scale: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._columns = weight.shape[1]
        whole = filled(weight.detach().contiguous())
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


STORAGE_CLASSES: Mapping[WeightStorage, Callable[[Tensor], FrozenWeight]] = {
    WeightStorage.BF16: BF16Weight,
    WeightStorage.FP8_128X128: FP8TilesWeight,
    WeightStorage.NVFP4: NVFP4Weight,
}


def freeze(weight: Tensor, storage: WeightStorage) -> FrozenWeight:
    """Put a weight into a storage format.

    Args:
        weight: bf16 (out_features, in_features).
        storage: Any format but NF4, which bitsandbytes keeps in a layer of its own.

    Raises:
        KeyError: NF4.
    """
    return STORAGE_CLASSES[storage](weight)
