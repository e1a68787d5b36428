"""Weights stored as bf16."""

import torch
from torch import Tensor

from surogate_bench_quantization.storage.frozen_weight import FrozenWeight


class BF16Weight(FrozenWeight):
    """Plain bf16: 2 bytes per parameter."""

    values: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", weight.detach().to(torch.bfloat16))

    def dequantize(self) -> Tensor:
        """The stored tensor itself."""
        return self.values
