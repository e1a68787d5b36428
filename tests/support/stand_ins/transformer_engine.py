"""Stands in for Transformer Engine 2.12 on a CPU: what the engine calls of it, with the library's own semantics.

A quantizer points into scale and history; each quantization raises the history's row 0; a weight is quantized when the
workspace of its name is made, and stays. ``tests/numerics/test_transformer_engine.py`` compares names and formulas
with the library's source where that is installed.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surogate_bench_quantization.formats.elements import E4M3, E5M2, ElementFormat
from surogate_bench_quantization.formats.fp8 import quantize_scaled

REGIONS: list[dict[str, Any]] = []


class Format(Enum):
    HYBRID = SimpleNamespace(max_fwd=448, max_bwd=57344)


@dataclass
class DelayedScaling:
    margin: int = 0
    fp8_format: Format = Format.HYBRID
    amax_history_len: int = 1024
    amax_compute_algo: str = "max"
    reduce_amax: bool = True


@dataclass
class NVFP4BlockScaling:
    disable_rht: bool = False
    disable_stochastic_rounding: bool = False
    disable_2d_quantization: bool = False


@contextmanager
def autocast(*, enabled: bool = True, recipe: Any = None, _graph: bool = False) -> Iterator[None]:
    REGIONS.append({"enabled": enabled, "recipe": recipe, "_graph": _graph})
    yield


@dataclass
class Quantizer:
    state: SimpleNamespace
    column: int
    element: ElementFormat
    usage: dict[str, bool] = field(default_factory=dict)

    def set_usage(self, **usage: bool) -> None:
        self.usage.update(usage)

    def __call__(self, values: Tensor) -> Tensor:
        """Return the values that the codes stand for, in fp32."""
        row = self.state.amax_history[0]
        row[self.column] = torch.maximum(row[self.column], values.abs().max().float())
        scale = self.state.scale[self.column]
        return quantize_scaled(values.contiguous(), scale, self.element).float() / scale


class Workspace:
    def __init__(self, values: Tensor) -> None:
        self.values = values

    def get_metadata(self) -> dict[str, Any]:
        codes = torch.zeros(self.values.shape, dtype=torch.uint8)
        return {"data": codes, "data_transpose": codes.t().contiguous(), "fp8_scale_inv": torch.ones(1), "quantizer": 0}


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, quantize: Quantizer, of_gradients: Quantizer) -> Tensor:
        ctx.weight, ctx.quantize = weight, of_gradients
        return (quantize(inputs) @ weight.t()).to(torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return (ctx.quantize(gradients) @ ctx.weight).to(torch.bfloat16), None, None, None


class Linear(nn.Module):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        init_method: Callable[[Tensor], None] | None = None,
        params_dtype: torch.dtype | None = None,
        device: torch.device | str = "cuda",
    ) -> None:
        super().__init__()
        assert not bias
        assert init_method is not None
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=params_dtype, device=device))
        self.fp8_meta: dict[str, Any] = {}
        self._fp8_workspaces: dict[str, Workspace] = {}

    def init_fp8_metadata(self) -> None:
        length = REGIONS[-1]["recipe"].amax_history_len
        for key, tensors in (("scaling_fwd", 3), ("scaling_bwd", 2)):
            state = SimpleNamespace(amax_history=torch.zeros(length, tensors), scale=torch.ones(tensors))
            self.fp8_meta[key] = state

    def _get_weight_quantizers(self) -> list[Quantizer]:
        return [Quantizer(self.fp8_meta["scaling_fwd"], 1, E4M3)]

    def get_weight_workspace(
        self, *, tensor: Tensor, quantizer: Quantizer, cache_name: str, workspace_dtype: torch.dtype
    ) -> Workspace:
        assert workspace_dtype == torch.bfloat16
        assert quantizer.usage == {"rowwise": True, "columnwise": True}
        self._fp8_workspaces[cache_name] = Workspace(quantizer(tensor))
        return self._fp8_workspaces[cache_name]

    def forward(self, inp: Tensor, is_first_microbatch: bool | None = None) -> Tensor:
        assert is_first_microbatch is False
        assert inp.shape[0] % 8 == 0
        assert inp.shape[1] == self.weight.shape[1]
        weight = self._fp8_workspaces["weight"].values
        inputs = Quantizer(self.fp8_meta["scaling_fwd"], 0, E4M3)
        gradients = Quantizer(self.fp8_meta["scaling_bwd"], 0, E5M2)
        product: Tensor = _Product.apply(inp, weight, inputs, gradients)
        return product


def install(patch: pytest.MonkeyPatch) -> None:
    """Make ``transformer_engine`` importable in this process."""
    REGIONS.clear()
    contents = {
        "transformer_engine": (),
        "transformer_engine.pytorch": (Linear, autocast),
        "transformer_engine.common": (),
        "transformer_engine.common.recipe": (Format, DelayedScaling, NVFP4BlockScaling),
    }
    for name, members in contents.items():
        module = ModuleType(name)
        for member in members:
            setattr(module, member.__name__, member)
        patch.setitem(sys.modules, name, module)
