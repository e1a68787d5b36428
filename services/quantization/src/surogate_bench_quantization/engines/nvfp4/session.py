"""NVFP4 products: what every engine quantizes, and the state that it needs for that."""

from collections.abc import Sequence
from typing import Generic, Protocol

import torch
from torch import Tensor, nn
from typing_extensions import override

from surogate_bench.recipes import Recipe, WeightStorage
from surogate_bench_quantization.engines.engine import EngineSession, check_entries
from surogate_bench_quantization.engines.last_input import LastInput, Quantized
from surogate_bench_quantization.formats.elements import uniform_noise
from surogate_bench_quantization.formats.nvfp4 import NVFP4Tensor, padded, quantize_rows, quantize_squares
from surogate_bench_quantization.linear import Products, QuantizedLinear
from surogate_bench_quantization.storage import freeze

_GENERATOR = "stochastic_rounding.generator"


class MakeNVFP4Products(Protocol[Quantized]):
    """Makes an engine's products with one frozen weight."""

    def __call__(
        self,
        weight: Tensor,
        recipe: Recipe,
        generator: torch.Generator,
        last_input: LastInput[Quantized],
        *,
        packed: bool,
    ) -> Products:
        """Make them from a bf16 weight (out_features, in_features).

        Args:
            weight: The weight.
            recipe: Its ``fp4_profile`` has the shape of the weight's blocks.
            generator: Source of the noise of stochastic rounding.
            last_input: Shared by the layers of a model.
            packed: Keep as little as possible of the weight.
        """
        ...


class NVFP4Session(EngineSession, Generic[Quantized]):
    """Holds the generator of one model's stochastic rounding."""

    def __init__(
        self, recipe: Recipe, make_products: MakeNVFP4Products[Quantized], *, device: torch.device, seed: int
    ) -> None:
        self._recipe = recipe
        self._make_products = make_products
        self._last_input: LastInput[Quantized] = LastInput()
        self._generator = torch.Generator(device).manual_seed(seed)

    @override
    def replace(self, linear: nn.Linear) -> nn.Linear:
        storage = freeze(linear.weight, self._recipe.weight_storage)
        packed = self._recipe.weight_storage is not WeightStorage.BF16
        products = self._make_products(
            storage.dequantize(), self._recipe, self._generator, self._last_input, packed=packed
        )
        return QuantizedLinear(linear, storage, products)

    @property
    @override
    def generators(self) -> Sequence[torch.Generator]:
        return (self._generator,)

    @property
    @override
    def maxima(self) -> Sequence[Tensor]:
        return ()  # the scales of a tensor are its own, and a micro-batch is computed by one process

    @override
    def end_of_optimizer_step(self) -> None:
        self._last_input.forget()

    @override
    def input_scales(self) -> Sequence[Tensor]:
        return ()

    @override
    def state_dict(self) -> dict[str, Tensor]:
        return {_GENERATOR: self._generator.get_state()}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        check_entries(state, expected=self.state_dict())
        self._generator.set_state(state[_GENERATOR])


def quantize_input(inputs: Tensor) -> NVFP4Tensor:
    """Quantize bf16 (..., in_features) as (m, in_features), padded: 1x16 blocks with 4/6."""
    return quantize_rows(padded(inputs.flatten(end_dim=-2)), four_over_six=True)


def quantize_gradients(gradients: Tensor, generator: torch.Generator) -> NVFP4Tensor:
    """Quantize bf16 (m, out_features), padded: 1x16 blocks, with stochastic rounding."""
    whole = padded(gradients)
    return quantize_rows(whole, four_over_six=False, noise=uniform_noise(whole, generator))


def quantize_weight(weight: Tensor, recipe: Recipe) -> NVFP4Tensor:
    """Quantize a bf16 weight (out_features, in_features), both padded, for the forward product."""
    quantize = quantize_squares if recipe.fp4_profile == "paper" else quantize_rows
    return quantize(padded(weight, rows=True), four_over_six=True)


def quantize_transposed_weight(weight: Tensor, recipe: Recipe) -> NVFP4Tensor | None:
    """Quantize the transpose of a weight for the backward product.

    Args:
        weight: bf16 (out_features, in_features).
        recipe: Its ``fp4_profile`` decides.

    Returns:
        (in_features, out_features), both padded; None where it is the transpose of :func:`quantize_weight`'s result,
        whose blocks are squares.
    """
    if recipe.fp4_profile == "paper":
        return None
    return quantize_rows(padded(weight.t().contiguous(), rows=True), four_over_six=False)
