"""The stored weight of a quantized layer."""

from typing import TypeVar

from torch import nn

from surogate_bench_quantization.linear import FrozenLinear
from surogate_bench_quantization.storage import FrozenWeight

_Weight = TypeVar("_Weight", bound=FrozenWeight)


def stored_weight(layer: nn.Linear, kind: type[_Weight]) -> _Weight:
    """Return the weight that a layer stores.

    Raises:
        TypeError: it is stored in another format.
    """
    if not isinstance(layer, FrozenLinear) or not isinstance(layer.storage, kind):
        raise TypeError(f"expected a layer with {kind.__name__}, found {type(layer).__name__}")
    return layer.storage
