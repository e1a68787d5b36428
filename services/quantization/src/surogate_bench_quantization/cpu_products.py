"""bf16 matrix products on CPUs that have no instructions for them.

torch gives bf16 products to oneDNN where the CPU has AVX-512 or the bf16 extension of Arm. Elsewhere it has loops of 3
to 8 GFLOP/s per core (torch 2.13.0, AMD Zen 3); the fp32 GEMM reaches 45 to 70 there. Products of two bf16 numbers are
exact in fp32, so it does what oneDNN does: accumulate in fp32, round once.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.library import Library

_OPERATORS = ("mm", "addmm", "bmm", "baddbmm")
"""The operators that all products use: linear layers, ``@``, their gradients, and calls by libraries."""

_registered: list[Library] = []
"""A registration lasts as long as its object."""


def has_bf16_products() -> bool:
    """Whether this CPU multiplies bf16 matrices fast without the replacement."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def ensure_fast_bf16_products() -> None:
    """Compute this process's bf16 products on the CPU by fp32 GEMMs, where that is faster."""
    if not has_bf16_products() and not _registered:
        _registered.append(use_fp32_gemms())


def use_fp32_gemms() -> Library:
    """Register other kernels for this process's products on the CPU.

    Returns:
        The registration; it can be taken back.
    """
    library = Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        for name in _OPERATORS:
            kernel = _kernel(getattr(torch.ops.aten, name).out)
            library.impl(name, kernel, "CPU")  # type: ignore[no-untyped-call]
    return library


def _kernel(into: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make a kernel from an operator's variant that writes into a given tensor, which is left as it is."""

    def kernel(*matrices: Tensor, **factors: float) -> Tensor:
        left, right = matrices[-2:]
        shape = (*left.shape[:-1], right.shape[-1])
        if right.dtype is not torch.bfloat16:
            return into(*matrices, **factors, out=right.new_empty(shape))
        accumulated = right.new_empty(shape, dtype=torch.float32)
        return into(*(each.float() for each in matrices), **factors, out=accumulated).to(torch.bfloat16)

    return kernel
