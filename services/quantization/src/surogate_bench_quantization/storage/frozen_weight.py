"""The holder of one frozen weight matrix, of which each storage format has its own.

Everything is kept in registered buffers, quantized data as uint8: PEFT casts fresh adapters to the dtype of a float8
base, which would round LoRA's initialization.
"""

from abc import abstractmethod

from torch import Tensor, nn


class FrozenWeight(nn.Module):
    """A weight of shape (out_features, in_features) in some storage format."""

    @abstractmethod
    def dequantize(self) -> Tensor:
        """The stored values as a bf16 tensor (out_features, in_features), rounded once."""

    @property
    def nbytes(self) -> int:
        """Bytes that the stored weight takes, scales included."""
        return sum(buffer.nbytes for buffer in self.buffers())
