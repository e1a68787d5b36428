"""How chains of elementwise operations run: slab by slab on a CPU, as few kernels as possible on a GPU.

Both keep intermediate results out of main memory, where a chain written plainly spends its time. On a GPU torch.compile
fuses a whole function; its options make it divide and cast as eager execution does, so that results are the same bits.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache, wraps
from shutil import which
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from surogate_bench.errors import ConfigError

SLAB = 2**18
"""Elements that chains of fp32 operations are worth cutting long tensors into: what a core's cache holds."""

_P = ParamSpec("_P")
_R = TypeVar("_R")
_EAGER_NUMERICS: dict[str, str | int | bool | Callable[..., Any]] = {
    "eager_numerics.division_rounding": True,
    "eager_numerics.disable_ftz": True,
    "emulate_precision_casts": True,  # which also keeps products and sums apart
}


def slabs(*tensors: Tensor, rows: int) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors into corresponding parts of so many rows; on a GPU one part is the whole.

    Args:
        tensors: Tensors of the same first dimension, on one device.
        rows: Rows of a part; at least one is taken.
    """
    if tensors[0].is_cuda:
        yield tensors
    else:
        yield from zip(*(torch.split(tensor, max(1, rows)) for tensor in tensors), strict=True)


def fused(function: Callable[Concatenate[Tensor, _P], _R]) -> Callable[Concatenate[Tensor, _P], _R]:
    """Compile a function of tensors where its first argument is on a GPU; elsewhere it runs as written.

    Numbers that change from call to call must be passed as tensors: a Python number is compiled in. Divide tensors by
    tensors: a reciprocal, or a division by a number, is not rounded correctly by every version of the compiler.
    """

    @wraps(function)
    def dispatch(first: Tensor, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return (_compiled(function) if first.is_cuda else function)(first, *args, **kwargs)

    return dispatch


def require_compiler(device: torch.device) -> None:
    """Check that a GPU's kernels can be compiled: Triton builds their launchers with the system's C compiler.

    Raises:
        ConfigError: the device is a GPU, and there is no C compiler.
    """
    if device.type != "cuda" or any(map(which, (os.environ.get("CC") or "cc", "gcc", "clang"))):
        return
    raise ConfigError(
        "training on a GPU compiles kernels, and there is no C compiler",
        field="CC",
        value=os.environ.get("CC"),
        remedy="Install gcc, or set CC to a C compiler.",
    )


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(function, fullgraph=True, dynamic=True, options=_EAGER_NUMERICS)
    return compiled
