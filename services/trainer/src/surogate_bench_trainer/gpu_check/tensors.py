"""Tensors for checks, the same for the same arguments on every device."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def random_matrix(rows: int, columns: int, *, seed: int) -> Tensor:
    """Draw a bf16 matrix on the CPU whose rows differ in magnitude."""
    generator = torch.Generator().manual_seed(seed)
    magnitudes = torch.randn(rows, 1, generator=generator).exp()
    return (torch.randn(rows, columns, generator=generator) * magnitudes).to(torch.bfloat16)


def numbers(tensor: Tensor) -> NDArray[np.float32]:
    """Return the values of a tensor on any device as fp32."""
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array


def bare_linear(weight: Tensor) -> nn.Linear:
    """Make a frozen linear layer of a bf16 weight (out_features, in_features), without a bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer
