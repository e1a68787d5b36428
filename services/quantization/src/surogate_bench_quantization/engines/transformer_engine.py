"""Products of NVIDIA's Transformer Engine: one ``te.Linear`` a layer. Not yet run on hardware.

The library is imported only when this engine is chosen. What is called has been compared with the source of version
2.12. Where its arithmetic differs from the recipes' is in docs/numerics.md.

Transformer Engine moves the scales of delayed scaling at the end of every outermost ``autocast`` region. Here each
layer has a region of its own, entered as for the capture of CUDA graphs (``_graph=True``), where the library leaves
that to its caller: scales move once per optimizer step, for inputs and gradients.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from typing_extensions import override

from surogate_bench.errors import ConfigError
from surogate_bench.recipes import ComputePrecision, Recipe
from surogate_bench.recipes.precisions import TRANSFORMER_ENGINE
from surogate_bench_quantization.engines.engine import Engine, EngineSession, check_entries
from surogate_bench_quantization.engines.transformer_engine_scaling import INPUT, DelayedState, start_at_weight
from surogate_bench_quantization.linear import FrozenLinear
from surogate_bench_quantization.storage import FrozenWeight, freeze

_MULTIPLES = {ComputePrecision.FP8_HYBRID: 16, ComputePrecision.NVFP4: 32}
"""Every dimension of a product must be a multiple of this; rows are padded with zeros if they are not."""
_GENERATOR = "transformer_engine.generator"


class Library(NamedTuple):
    """What is used of Transformer Engine."""

    pytorch: ModuleType
    """``transformer_engine.pytorch``"""
    recipes: ModuleType
    """``transformer_engine.common.recipe``"""


def load_library() -> Library:
    """Import Transformer Engine.

    Raises:
        ConfigError: it is not installed, incomplete, does not fit the other libraries, or is of another version.
    """
    remedy = "Install Transformer Engine 2.12 as docs/hardware.md describes, or use engine: auto."
    try:
        found = Library(import_module("transformer_engine.pytorch"), import_module("transformer_engine.common.recipe"))
    except (ImportError, OSError, AssertionError, RuntimeError) as error:
        message = f"Transformer Engine cannot be imported: {error}"
        raise ConfigError(message, field="engine", value=TRANSFORMER_ENGINE, remedy=remedy) from error
    if not hasattr(found.pytorch.Linear, "get_weight_workspace"):
        message = "this version of Transformer Engine does not keep a quantized weight as the engine needs it"
        raise ConfigError(message, field="engine", value=TRANSFORMER_ENGINE, remedy=remedy)
    return found


def library_recipe(recipe: Recipe, recipes: ModuleType) -> object:
    """Make the recipe object of ``transformer_engine.common.recipe`` that is nearest to a recipe.

    Hadamard transforms are disabled: they belong to weight gradients, which do not exist here.
    """
    match recipe.compute:
        case ComputePrecision.FP8_HYBRID:
            delayed: object = recipes.DelayedScaling(
                margin=recipe.fp8_margin,
                fp8_format=recipes.Format.HYBRID,
                amax_history_len=recipe.fp8_amax_history_length,
                amax_compute_algo="max",
                reduce_amax=False,
            )
            return delayed
        case ComputePrecision.NVFP4:
            squares = recipe.fp4_profile == "paper"
            nvfp4: object = recipes.NVFP4BlockScaling(disable_rht=True, disable_2d_quantization=not squares)
            return nvfp4
        case ComputePrecision.BF16:
            raise NotImplementedError("products in bf16 are torch's own on every device")


class TransformerEngineProducts(nn.Module):
    """A ``te.Linear`` whose weight is quantized once.

    Args:
        weight: bf16 (out_features, in_features).
        library: Transformer Engine.
        recipe: Of :func:`library_recipe`.
        delayed: Whether that is delayed scaling.
        multiple: What rows have to be a multiple of.
    """

    def __init__(self, weight: Tensor, library: Library, recipe: object, *, delayed: bool, multiple: int) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self._library, self._recipe, self._multiple = library, recipe, multiple
        self.linear = library.pytorch.Linear(
            inputs, outputs, bias=False, params_dtype=torch.bfloat16, device=weight.device, init_method=_leave
        )
        self.linear.weight = nn.Parameter(weight, requires_grad=False)
        with self._region():
            self.linear.init_fp8_metadata()
        states = (self.linear.fp8_meta["scaling_fwd"], self.linear.fp8_meta["scaling_bwd"])
        self.states = tuple(DelayedState(each.amax_history, each.scale) for each in states) if delayed else ()
        if delayed:
            start_at_weight(self.states[0], weight)
        self._quantized_nbytes = self._quantize_once(weight)

    def multiply(self, inputs: Tensor, *, record: bool) -> Tensor:
        """Multiply bf16 (m, in_features), differentiably: bf16 (m, out_features)."""
        rows = inputs.shape[0]
        kept = None if record or not self.states else self.states[0].history[0].clone()
        with self._region():
            # False: the weight that was quantized at the start is used.
            outputs: Tensor = self.linear(pad(inputs, (0, 0, 0, -rows % self._multiple)), is_first_microbatch=False)
        if kept is not None:
            self.states[0].history[0].copy_(kept)
        return outputs[:rows]

    @property
    def operand_nbytes(self) -> int:
        """Bytes of the quantized weight, in both directions."""
        return self._quantized_nbytes

    def _region(self) -> AbstractContextManager[None]:
        region: AbstractContextManager[None] = self._library.pytorch.autocast(
            enabled=True, recipe=self._recipe, _graph=True
        )
        return region

    def _quantize_once(self, weight: Tensor) -> int:
        """Let the layer quantize its weight for both products, and drop the bf16 values."""
        layer = self.linear
        (quantizer,) = layer._get_weight_quantizers()
        quantizer.set_usage(rowwise=True, columnwise=True)
        held = layer.get_weight_workspace(
            tensor=weight, quantizer=quantizer, cache_name="weight", workspace_dtype=weight.dtype
        )
        # Only the shape is read from here on.
        shape = weight.new_zeros(1).expand(weight.shape)
        layer.weight = nn.Parameter(shape, requires_grad=False)
        return sum(value.nbytes for value in held.get_metadata().values() if isinstance(value, Tensor))


class TransformerEngineLinear(FrozenLinear):
    """A frozen layer whose products, and their derivative, are Transformer Engine's.

    Args:
        linear: The layer to replace; its bias, if any, is shared.
        storage: Its weight.
        products: Transformer Engine's layer.
    """

    products: TransformerEngineProducts

    def __init__(self, linear: nn.Linear, storage: FrozenWeight, products: TransformerEngineProducts) -> None:
        super().__init__(linear, storage, products)

    @override
    def multiply(self, inputs: Tensor) -> Tensor:
        outputs = self.products.multiply(inputs.flatten(end_dim=-2), record=self.training)
        return outputs.view(*inputs.shape[:-1], outputs.shape[-1])


class TransformerEngineSession(EngineSession):
    """Holds the histories and scales of one model's inputs and gradients; under NVFP4 torch's generator."""

    generators: Sequence[torch.Generator] = ()  # the library draws from torch's own, which graphs know

    def __init__(self, recipe: Recipe, library: Library, *, device: torch.device, seed: int) -> None:
        self._recipe, self._library, self._device = recipe, library, device
        self._library_recipe = library_recipe(recipe, library.recipes)
        self._layers: list[TransformerEngineProducts] = []
        if recipe.is_stochastic:
            torch.cuda.manual_seed(seed)

    @override
    def replace(self, linear: nn.Linear) -> nn.Linear:
        multiple = _MULTIPLES[self._recipe.compute]
        _check_widths(linear, self._recipe, multiple)
        storage = freeze(linear.weight, self._recipe.weight_storage)
        delayed = self._recipe.compute is ComputePrecision.FP8_HYBRID
        products = TransformerEngineProducts(
            storage.dequantize(), self._library, self._library_recipe, delayed=delayed, multiple=multiple
        )
        self._layers.append(products)
        return TransformerEngineLinear(linear, storage, products)

    @property
    @override
    def maxima(self) -> Sequence[Tensor]:
        return [state.history[0] for layer in self._layers for state in layer.states]

    @override
    def end_of_optimizer_step(self) -> None:
        largest = self._library.recipes.Format.HYBRID.value
        for layer in self._layers:
            for state, value in zip(layer.states, (largest.max_fwd, largest.max_bwd), strict=False):
                state.update(value, margin=self._recipe.fp8_margin)

    @override
    def input_scales(self) -> Sequence[Tensor]:
        return [layer.states[0].scale[INPUT].clone() for layer in self._layers if layer.states]

    @override
    def state_dict(self) -> dict[str, Tensor]:
        if self._recipe.is_stochastic:
            return {_GENERATOR: torch.cuda.get_rng_state(self._device)}
        return {name: tensor.clone() for name, tensor in self._tensors().items()}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        check_entries(state, expected=self.state_dict())
        if self._recipe.is_stochastic:
            torch.cuda.set_rng_state(state[_GENERATOR].cpu(), self._device)
        for name, tensor in self._tensors().items():
            tensor.copy_(state[name])

    def _tensors(self) -> dict[str, Tensor]:
        """Histories and scales themselves, by layer and direction."""
        return {
            f"transformer_engine.{place}.{direction}.{name}": tensor
            for place, layer in enumerate(self._layers)
            for direction, state in zip(("forward", "backward"), layer.states, strict=False)
            for name, tensor in (("amax_history", state.history), ("scale", state.scale))
        }


class TransformerEngine(Engine):
    """NVIDIA's library: FP8 with delayed scaling, NVFP4 with block scaling."""

    name = TRANSFORMER_ENGINE

    @override
    def start(self, recipe: Recipe, *, layers: int, device: torch.device, seed: int) -> EngineSession:
        del layers
        return TransformerEngineSession(recipe, load_library(), device=device, seed=seed)


def _leave(weight: Tensor) -> None:
    """Initialize nothing, and draw no random numbers: the weight is replaced."""
    del weight


def _check_widths(linear: nn.Linear, recipe: Recipe, multiple: int) -> None:
    if linear.in_features % multiple or linear.out_features % multiple:
        raise ConfigError(
            f"Transformer Engine's {recipe.compute} products need dimensions divisible by {multiple}, but a layer of "
            f"this model has {linear.in_features} inputs and {linear.out_features} outputs",
            field="engine",
            value=TRANSFORMER_ENGINE,
            remedy="Use engine: emulated.",
        )
