"""Engines of other projects: torch's own GEMMs, and bitsandbytes for NF4."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from surogate_bench.recipes import ComputePrecision, Recipe, WeightStorage
from surogate_bench.recipes.precisions import BITSANDBYTES, TORCH
from surogate_bench_quantization.engines.engine import Engine, EngineSession, StatelessSession
from surogate_bench_quantization.engines.fp8.session import FP8Session
from surogate_bench_quantization.engines.fp8.tensor_cores import TensorCoreFP8Products
from surogate_bench_quantization.engines.nvfp4.session import NVFP4Session
from surogate_bench_quantization.engines.nvfp4.tensor_cores import TensorCoreNVFP4Products
from surogate_bench_quantization.linear import QuantizedLinear
from surogate_bench_quantization.storage import FrozenWeight, freeze
from surogate_bench_quantization.storage.nf4 import nf4_linear


class DequantizingProducts(nn.Module):
    """Products in bf16 with a weight that is expanded for each of them and dropped again.

    Args:
        storage: The weight, (out_features, in_features).
    """

    def __init__(self, storage: FrozenWeight) -> None:
        super().__init__()
        self.storage = storage

    def fprop(self, inputs: Tensor, *, record: bool) -> Tensor:
        """Multiply with the expanded weight: x @ W.T."""
        del record  # nothing is observed
        return torch.nn.functional.linear(inputs.flatten(end_dim=-2), self.storage.dequantize())

    def dgrad(self, gradients: Tensor) -> Tensor:
        """Multiply with the expanded weight: g @ W."""
        return gradients @ self.storage.dequantize()

    @property
    def operand_nbytes(self) -> int:
        """Nothing is kept in addition to the storage."""
        return 0


class TorchSession(StatelessSession):
    """Replaces layers whose storage is quantized; the BF16 recipe leaves every layer as it is."""

    def __init__(self, storage: WeightStorage) -> None:
        self._storage = storage

    @override
    def replace(self, linear: nn.Linear) -> nn.Linear:
        if self._storage is WeightStorage.BF16:
            return linear
        storage = freeze(linear.weight, self._storage)
        return QuantizedLinear(linear, storage, DequantizingProducts(storage))


class TorchEngine(Engine):
    """torch's GEMMs: bf16 on any device, FP8 and NVFP4 on tensor cores that have them."""

    name = TORCH

    @override
    def start(self, recipe: Recipe, *, layers: int, device: torch.device, seed: int) -> EngineSession:
        match recipe.compute:
            case ComputePrecision.BF16:
                return TorchSession(recipe.weight_storage)
            case ComputePrecision.FP8_HYBRID:
                return FP8Session(recipe, TensorCoreFP8Products, layers=layers, device=device)
            case ComputePrecision.NVFP4:
                return NVFP4Session(recipe, TensorCoreNVFP4Products, device=device, seed=seed)


class BitsAndBytesSession(StatelessSession):
    """Replaces layers by bitsandbytes' own."""

    @override
    def replace(self, linear: nn.Linear) -> nn.Linear:
        layer: nn.Linear = nf4_linear(linear)
        return layer


class BitsAndBytesEngine(Engine):
    """NF4 weights, expanded to bf16 by bitsandbytes for every product."""

    name = BITSANDBYTES

    @override
    def start(self, recipe: Recipe, *, layers: int, device: torch.device, seed: int) -> EngineSession:
        del recipe, layers, device, seed
        return BitsAndBytesSession()
