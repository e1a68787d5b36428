"""FP8 products on tensor cores, through torch's scaled GEMM."""

import torch
from torch import Tensor, nn
from torch.nn.functional import ScalingType, pad, scaled_mm

from surogate_bench_quantization.engines.fp8.inputs import FP8Inputs, InputScale
from surogate_bench_quantization.formats.elements import E4M3, E5M2
from surogate_bench_quantization.formats.fp8 import cast_current, cast_scaled

_MULTIPLE = 16
"""Every dimension of a product must be a multiple of this; codes are padded with zeros if one is not."""


class TensorCoreFP8Forward(nn.Module):
    """Forward product of E4M3 inputs and an E4M3 weight on tensor cores.

    Args:
        weight: bf16 (out_features, in_features).
    """

    codes: Tensor
    inverse_scale: Tensor
    quantize = staticmethod(cast_scaled)

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        codes, inverse_scale = cast_current(weight, E4M3)
        self._width_out, self._width_in = weight.shape
        # As bytes: PEFT casts adapters to the dtype of a float8 base.
        self.register_buffer("codes", _padded(codes).view(torch.uint8))
        self.register_buffer("inverse_scale", inverse_scale)

    def multiply(self, codes: Tensor, scale: InputScale) -> Tensor:
        """Multiply codes (m, in_features), made with ``scale``, with the weight: bf16 (m, out_features)."""
        return self._multiply(codes, scale.inverse, self.codes, fast=True)[:, : self._width_out].contiguous()

    def _multiply(self, left: Tensor, left_scale: Tensor, right: Tensor, *, fast: bool) -> Tensor:
        """(m, k) FP8 times the transpose of padded (n, k) E4M3 bytes, to (m, n) bf16."""
        product: Tensor = scaled_mm(
            _padded(left),
            right.view(torch.float8_e4m3fn).t(),
            left_scale,
            ScalingType.TensorWise,
            self.inverse_scale,
            ScalingType.TensorWise,
            output_dtype=torch.bfloat16,
            use_fast_accum=fast,
        )
        return product[: left.shape[0]]


class TensorCoreFP8Products(TensorCoreFP8Forward):
    """The same codes as :class:`EmulatedFP8Products`, multiplied as FP8 numbers; only sums are formed otherwise.

    Tensor cores contract both operands along their contiguous dimension, so the backward product needs the weight
    transposed. With a bf16 weight both are kept, 2 bytes per parameter; with a quantized one only the weight is, 1
    byte per parameter, and it is transposed for each backward product.

    As Transformer Engine does, forward products take the faster accumulation of Hopper's tensor cores (partial sums of
    14 bits or so), backward products the exact one.

    Args:
        weight: bf16 (out_features, in_features).
        inputs: The layer's.
        packed: Keep the weight's operand once.
    """

    transposed_codes: Tensor | None

    def __init__(self, weight: Tensor, inputs: FP8Inputs, *, packed: bool) -> None:
        super().__init__(weight)
        self.register_buffer("transposed_codes", None if packed else self.codes.t().contiguous())
        self._inputs = inputs

    def fprop(self, inputs: Tensor, *, record: bool) -> Tensor:
        """Forward product Q(x) @ Q(W).T; ``record`` the input's amax for later scales."""
        return self.multiply(self._inputs.codes(inputs, self.quantize, record=record), self._inputs.scale)

    def dgrad(self, gradients: Tensor) -> Tensor:
        """Backward product Q(g) @ Q(W)."""
        codes, inverse_scale = cast_current(gradients, E5M2)
        transposed = self.codes.t().contiguous() if self.transposed_codes is None else self.transposed_codes
        return self._multiply(codes, inverse_scale, transposed, fast=False)[:, : self._width_in].contiguous()

    @property
    def operand_nbytes(self) -> int:
        """Bytes of the cached operands, one or two."""
        return sum(buffer.nbytes for buffer in self.buffers())


def _padded(codes: Tensor) -> Tensor:
    """Pad both dimensions of FP8 codes to multiples of 16 with zeros, which add nothing to a product."""
    missing = [-size % _MULTIPLE for size in codes.shape]
    if not any(missing):
        return codes
    return pad(codes.view(torch.uint8), (0, missing[1], 0, missing[0])).view(codes.dtype)
