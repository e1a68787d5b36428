"""Low-precision products emulated exactly in bf16 GEMMs, on any device.

FP8 codes, and E2M1 elements times their E4M3 block scales, have at most 8 significant bits, so bf16 holds them
exactly, and an fp32 accumulator holds each product of two exactly. Only the tensor scales remain; they multiply the
accumulators before these are rounded to the bf16 output. What differs from tensor cores is the order of summation.
"""

import torch
from torch import Tensor

from surogate_bench_quantization.fusion import fused

_NOTHING = torch.zeros((), dtype=torch.bfloat16)


def scaled_product(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """Multiply bf16 matrices, accumulate in fp32, scale the accumulators, round once to bf16.

    On a CPU, ``addmm`` applies ``alpha`` to the fp32 accumulators at no cost; multiplying a bf16 result would round
    twice (relative error 0.0024 instead of 0.0017, the rounding of the output itself).

    Args:
        left: (m, k) bf16.
        right: (k, n) bf16.
        scale: 0-dim fp32.

    Returns:
        (m, n) bf16.
    """
    if left.device.type == "cpu":
        return torch.addmm(_NOTHING, left, right, beta=0, alpha=float(scale))
    return _rounded(torch.mm(left, right, out_dtype=torch.float32), scale)


def scaled_rows_product(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """Multiply as :func:`scaled_product` does, with a scale for each row.

    Args:
        left: (m, k) bf16.
        right: (k, n); fp32 on a CPU, where torch has no product of bf16 matrices that returns its fp32 accumulators;
            bf16 elsewhere.
        scale: (m, 1) fp32.

    Returns:
        (m, n) bf16.
    """
    if left.device.type == "cpu":
        return torch.mm(left.float(), right).mul_(scale).to(torch.bfloat16)
    return _rounded(torch.mm(left, right, out_dtype=torch.float32), scale)


@fused
def _rounded(accumulators: Tensor, scale: Tensor) -> Tensor:
    return (accumulators * scale).to(torch.bfloat16)
