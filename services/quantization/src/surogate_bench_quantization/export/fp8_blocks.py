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
_INPUTS = {
    "num_bits": 8, "type": "float", "symmetric": True, "strategy": "group", "group_size": TILE, "dynamic": True,
}  # fmt: skip
"""Scheme of inputs, for recipes with bf16 products too: vLLM 0.32 fails to load weights in blocks without one."""
_NEEDS = (
    "vLLM needs a GPU of compute capability 7.5, or a CPU with AMX.",
    "vLLM's Marlin kernel rounds the blocks' fp32 factors to bf16 when it loads them; others keep them.",
)
_INPUT_NOTES = {
    ComputePrecision.BF16: "A server quantizes inputs to E4M3, where training keeps them in bf16. vLLM keeps them in "
    "bf16 with --linear-backend marlin, on a GPU below compute capability 8.9, and on a CPU without AMX-FP8.",
    ComputePrecision.FP8_HYBRID: "A server quantizes inputs to E4M3 with one scale per token and 128 values, computed "
    "for each input; in training a layer's inputs have one scale, computed from earlier steps.",
    ComputePrecision.NVFP4: "A server quantizes inputs to E4M3, where training quantizes them to NVFP4.",
}


class FP8BlocksFormat:
    """E4M3 in blocks.

    Args:
        compute: Precision of the recipe's products.
    """

    label = "compressed-tensors float-quantized"
    output_multiple = TILE
    input_multiple = 1

    def __init__(self, compute: ComputePrecision) -> None:
        self._compute = compute

    @property
    def notes(self) -> Sequence[str]:
        """What a server has to know or to have."""
        return (_INPUT_NOTES[self._compute], *_NEEDS)

    def quantization_config(self, unquantized: Sequence[str]) -> dict[str, Any]:
        """Build ``quantization_config``."""
        return quantization_config("float-quantized", weights=_WEIGHTS, inputs=_INPUTS, unquantized=unquantized)

    def convert(self, layers: Mapping[str, nn.Linear]) -> ExportedLayers:
        """Take codes and factors as they are stored."""
        tensors: dict[str, Tensor] = {}
        for name, layer in layers.items():
            stored = stored_weight(layer, FP8TilesWeight)
            tensors[f"{name}.weight"] = stored.codes.view(torch.float8_e4m3fn)
            tensors[f"{name}.weight_scale"] = stored.inverse_scales
        return ExportedLayers(tensors=tensors)
