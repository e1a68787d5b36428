"""FP8 in 128x128 blocks as ``compressed-tensors`` holds it: E4M3 codes, and the fp32 factor of each block.

Both are the stored bytes themselves. Source: compressed-tensors, ``float-quantized`` with strategy ``block``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from surogate_bench.recipes import ComputePrecision
from surogate_bench_quantization.export.checkpoint_format import ExportedLayers
from surogate_bench_quantization.export.compressed_tensors import quantization_config
from surogate_bench_quantization.export.stored import stored_weight
from surogate_bench_quantization.formats.fp8 import TILE
from surogate_bench_quantization.storage import FP8TilesWeight

_WEIGHTS = {
    "num_bits": 8, "type": "float", "symmetric": True, "strategy": "block", "block_structure": [TILE, TILE],
    "dynamic": False,
}  # fmt: skip
_FP8_INPUTS = {
    "num_bits": 8, "type": "float", "symmetric": True, "strategy": "group", "group_size": TILE, "dynamic": True,
}  # fmt: skip
"""vLLM has no other scaling of inputs beside weights in blocks."""
_MARLIN = "vLLM's Marlin kernel rounds the blocks' fp32 factors to bf16 when it loads them; others keep them."


class FP8BlocksFormat:
    """E4M3 in blocks; inputs are quantized too where the recipe computes in FP8.

    Args:
        compute: Precision of the recipe's products.
    """

    label = "compressed-tensors float-quantized"
    output_multiple = TILE

    def __init__(self, compute: ComputePrecision) -> None:
        self._quantizes_inputs = compute is ComputePrecision.FP8_HYBRID

    @property
    def notes(self) -> Sequence[str]:
        """What a server has to know or to have."""
        if self._quantizes_inputs:
            return (
                "A server quantizes inputs to E4M3 with one scale per token and 128 values, computed for each input; "
                "in training a layer's inputs have one scale, computed from earlier steps.",
                "vLLM needs a GPU of compute capability 7.5, or a CPU with AMX; inputs stay in bf16 below 8.9 and on a "
                "CPU without AMX-FP8.",
                _MARLIN,
            )
        return (
            "vLLM needs a GPU of compute capability 7.5; its CPU build has no kernel for FP8 weights and bf16 inputs.",
            _MARLIN,
        )

    def quantization_config(self, unquantized: Sequence[str]) -> dict[str, Any]:
        """Build ``quantization_config``."""
        inputs = _FP8_INPUTS if self._quantizes_inputs else None
        return quantization_config("float-quantized", weights=_WEIGHTS, inputs=inputs, unquantized=unquantized)

    def convert(self, layers: Mapping[str, nn.Linear]) -> ExportedLayers:
        """Take codes and factors as they are stored."""
        tensors: dict[str, Tensor] = {}
        for name, layer in layers.items():
            stored = stored_weight(layer, FP8TilesWeight)
            tensors[f"{name}.weight"] = stored.codes.view(torch.float8_e4m3fn)
            tensors[f"{name}.weight_scale"] = stored.inverse_scales
        return ExportedLayers(tensors=tensors)
