"""FP8 products ("hybrid": E4M3 forward, E5M2 gradients), emulated."""

import torch
from torch import Tensor, nn

from surogate_bench.recipes import Recipe, WeightStorage
from surogate_bench_trainer.engines.emulated_products import LastInput, QuantizedInput, scaled_product
from surogate_bench_trainer.engines.engine import check_entries
from surogate_bench_trainer.engines.operands import Operand, fp8_operand
from surogate_bench_trainer.formats.delayed_scaling import DelayedScaling
from surogate_bench_trainer.formats.elements import E4M3, E5M2
from surogate_bench_trainer.formats.fp8 import amax, quantize_current, quantize_scaled
from surogate_bench_trainer.quantized_linear import QuantizedLinear
from surogate_bench_trainer.storage import freeze

_PREFIX = "delayed_scaling."


class FP8HybridProducts(nn.Module):
    """E4M3 inputs with delayed scaling, E4M3 weight, E5M2 gradients with current scaling.

    Args:
        weight: Operand of shape (out_features, in_features).
        scaling: The model's delayed scaling.
        slot: This layer's slot in it.
        last_input: Shared by the layers of a model.
    """

    def __init__(self, weight: Operand, scaling: DelayedScaling, slot: int, last_input: LastInput) -> None:
        super().__init__()
        self.weight = weight
        self._scaling = scaling
        self._slot = slot
        self._last_input = last_input

    def fprop(self, inputs: Tensor, *, record: bool) -> Tensor:
        """Forward product Q(x) @ Q(W).T; ``record`` the input's amax for later scales."""
        scale = self._scaling.scale(self._slot)
        codes, largest = self._last_input.get(
            inputs, (scale,), lambda x: QuantizedInput(quantize_scaled(x.flatten(end_dim=-2), scale, E4M3), amax(x))
        )
        if record:
            self._scaling.record(self._slot, largest)
        return scaled_product(codes, self.weight.values().t(), self.weight.scale / scale)

    def dgrad(self, gradients: Tensor) -> Tensor:
        """Backward product Q(g) @ Q(W)."""
        codes, scale = quantize_current(gradients, E5M2)
        return scaled_product(codes, self.weight.values(), self.weight.scale / scale)

    @property
    def operand_nbytes(self) -> int:
        """Bytes of the cached operand."""
        return self.weight.nbytes


class FP8Session:
    """Holds the delayed scaling of one model's inputs, a slot per layer."""

    def __init__(self, recipe: Recipe, *, layers: int, device: torch.device) -> None:
        self._storage = recipe.weight_storage
        self._last_input = LastInput()
        self._replaced = 0
        self._scaling = DelayedScaling(
            slots=layers, history_length=recipe.fp8_amax_history_length, margin=recipe.fp8_margin, device=device
        )

    def replace(self, linear: nn.Linear) -> nn.Linear:
        """See :class:`EngineSession`."""
        storage = freeze(linear.weight, self._storage)
        operand = fp8_operand(storage.dequantize(), packed=self._storage is not WeightStorage.BF16)
        products = FP8HybridProducts(operand, self._scaling, self._replaced, self._last_input)
        self._replaced += 1
        return QuantizedLinear(linear, storage, products)

    def end_of_optimizer_step(self) -> None:
        """See :class:`EngineSession`."""
        self._scaling.update()
        self._last_input.forget()

    def state_dict(self) -> dict[str, Tensor]:
        """See :class:`EngineSession`."""
        return {_PREFIX + name: tensor.clone() for name, tensor in self._scaling.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See :class:`EngineSession`."""
        check_entries(state, expected=self.state_dict())
        self._scaling.load_state_dict({name.removeprefix(_PREFIX): tensor for name, tensor in state.items()})
