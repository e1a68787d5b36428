"""The q, k and v projections share one input, as do gate and up: it is quantized once."""

import weakref
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

Quantized = TypeVar("Quantized")
"""An input made ready for a product, as the products of one engine take it."""


class QuantizedInput(NamedTuple):
    """An input made ready for a product of codes under one scale."""

    values: Tensor
    """Codes: as bf16 values where products are emulated, as FP8 numbers for tensor cores."""
    measure: Tensor
    """0-dim fp32: the input's amax (FP8), or its tensor scale (NVFP4)."""


class LastInput(Generic[Quantized]):
    """Remembers the last quantized input: the q, k and v projections share one, as do gate and up."""

    def __init__(self) -> None:
        self._tensor: Callable[[], Tensor | None] = lambda: None
        self._key: tuple[object, ...] = ()
        self._quantized: Quantized | None = None

    def get(self, inputs: Tensor, settings: tuple[object, ...], quantize: Callable[[Tensor], Quantized]) -> Quantized:
        """Quantize ``inputs``, unless the same unchanged tensor was quantized last with the same settings."""
        if inputs.is_inference():  # changes in place are not counted there
            return quantize(inputs)
        key = (inputs._version, *settings)
        if self._quantized is None or self._tensor() is not inputs or self._key != key:
            self._quantized = quantize(inputs)
            self._tensor, self._key = weakref.ref(inputs), key
        return self._quantized

    def forget(self) -> None:
        """Free the memory."""
        self._quantized = None
