"""bf16: the values that a stored weight stands for, rounded once, as training with bf16 products multiplies them."""

from collections.abc import Mapping, Sequence

from torch import nn

from surogate_bench.recipes import ComputePrecision
from surogate_bench_quantization.export.checkpoint_format import ExportedLayers
from surogate_bench_quantization.stored_layers import dequantized_weight


class DequantizedFormat:
    """A plain bf16 checkpoint.

    Args:
        compute: Precision of the recipe's products.
    """

    label = None
    output_multiple = 1
    input_multiple = 1

    def __init__(self, compute: ComputePrecision) -> None:
        self._compute = compute

    @property
    def notes(self) -> Sequence[str]:
        """What a server has to know or to have."""
        if self._compute is ComputePrecision.BF16:
            return ()
        return (f"A server multiplies in bf16, where training quantizes both operands to {self._compute.value}.",)

    def quantization_config(self, unquantized: Sequence[str]) -> None:
        """Return None: nothing in the checkpoint is quantized."""
        del unquantized

    def convert(self, layers: Mapping[str, nn.Linear]) -> ExportedLayers:
        """Dequantize each weight."""
        return ExportedLayers(tensors={f"{name}.weight": dequantized_weight(layer) for name, layer in layers.items()})
