"""FP8 products ("hybrid": E4M3 forward, E5M2 gradients): the state that every engine needs for them."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from typing_extensions import override

from surogate_bench.recipes import Recipe, WeightStorage
from surogate_bench_quantization.engines.engine import EngineSession, check_entries
from surogate_bench_quantization.engines.fp8.inputs import FP8Inputs
from surogate_bench_quantization.engines.last_input import LastInput, QuantizedInput
from surogate_bench_quantization.formats.delayed_scaling import DelayedScaling
from surogate_bench_quantization.linear import Products, QuantizedLinear
from surogate_bench_quantization.storage import freeze

_PREFIX = "delayed_scaling."


class MakeProducts(Protocol):
    """Makes an engine's products with one frozen weight."""

    def __call__(self, weight: Tensor, inputs: FP8Inputs, *, packed: bool) -> Products:
        """Make them from a bf16 weight (out_features, in_features); ``packed``: keep as little as possible of it."""
        ...


class FP8Session(EngineSession):
    """Holds the delayed scaling of one model's inputs, a slot per layer."""

    generators: Sequence[torch.Generator] = ()

    def __init__(self, recipe: Recipe, make_products: MakeProducts, *, layers: int, device: torch.device) -> None:
        self._storage = recipe.weight_storage
        self._make_products = make_products
        self._last_input: LastInput[QuantizedInput] = LastInput()
        self._replaced = 0
        self._scaling = DelayedScaling(
            slots=layers, history_length=recipe.fp8_amax_history_length, margin=recipe.fp8_margin, device=device
        )

    @override
    def replace(self, linear: nn.Linear) -> nn.Linear:
        storage = freeze(linear.weight, self._storage)
        inputs = FP8Inputs(self._scaling, self._replaced, self._last_input)
        packed = self._storage is not WeightStorage.BF16
        products = self._make_products(storage.dequantize(), inputs, packed=packed)
        self._replaced += 1
        return QuantizedLinear(linear, storage, products)

    @property
    @override
    def maxima(self) -> Sequence[Tensor]:
        return (self._scaling.amax,)

    @override
    def end_of_optimizer_step(self) -> None:
        self._scaling.update()
        self._last_input.forget()

    @override
    def input_scales(self) -> Sequence[Tensor]:
        return [self._scaling.scale_on_device(slot).clone() for slot in range(self._replaced)]

    @override
    def state_dict(self) -> dict[str, Tensor]:
        return {_PREFIX + name: tensor.clone() for name, tensor in self._scaling.state_dict().items()}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        check_entries(state, expected=self.state_dict())
        self._scaling.load_state_dict({name.removeprefix(_PREFIX): tensor for name, tensor in state.items()})
