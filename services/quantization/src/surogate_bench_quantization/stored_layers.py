"""Layers whose weight a recipe stores: our own, or bitsandbytes' for NF4, the one storage with a layer of its own."""

from bitsandbytes.functional import dequantize_4bit
from torch import Tensor, nn

from surogate_bench_quantization.linear import FrozenLinear
from surogate_bench_quantization.storage.nf4 import NF4Linear, nf4_nbytes


def is_stored(layer: nn.Module) -> bool:
    """Return whether a recipe stores the layer's weight."""
    return isinstance(layer, (FrozenLinear, NF4Linear))


def dequantized_weight(layer: nn.Linear) -> Tensor:
    """Return a layer's weight in bf16 (out_features, in_features), whatever it is stored in."""
    if isinstance(layer, FrozenLinear):
        return layer.storage.dequantize()
    if isinstance(layer, NF4Linear):
        values: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        return values
    return layer.weight.data


def weight_nbytes(layer: nn.Linear) -> int:
    """Return the stored bytes of a layer's weight, scales included."""
    if isinstance(layer, FrozenLinear):
        return layer.storage.nbytes
    if isinstance(layer, NF4Linear):
        return nf4_nbytes(layer)
    return layer.weight.nbytes
