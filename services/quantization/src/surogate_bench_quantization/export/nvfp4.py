"""NVFP4 as ``compressed-tensors`` holds it: packed codes, E4M3 block scales, and an fp32 divisor per tensor.

Codes and block scales are the stored bytes. The divisor ``weight_global_scale`` is the reciprocal of the stored tensor
scale. Where no fp32 number has exactly that reciprocal, the divisor's is the next fp32 number.

vLLM multiplies projections of the same input as one matrix and keeps one divisor for it. So they all get the largest of
their tensor scales ``T``, and one with a smaller scale ``t`` gets block scales ``E4M3(d * t / T)`` in place of ``d``.
That rounds its weights once more, unless ``t / T`` is a power of two. Source: compressed-tensors,
``nvfp4-pack-quantized``; vLLM's ``CompressedTensorsW4A4Fp4.process_weights_after_loading``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from surogate_bench.recipes import ComputePrecision
from surogate_bench_quantization.export.checkpoint_format import ExportedLayers
from surogate_bench_quantization.export.compressed_tensors import quantization_config
from surogate_bench_quantization.export.stored import stored_weight
from surogate_bench_quantization.formats.elements import E4M3
from surogate_bench_quantization.formats.fp8 import decode_e4m3, encode
from surogate_bench_quantization.formats.nvfp4 import BLOCK
from surogate_bench_quantization.formats.nvfp4_packed import unpack_products
from surogate_bench_quantization.storage import NVFP4Weight

_WEIGHTS = {
    "num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": BLOCK,
    "dynamic": False, "scale_dtype": "torch.float8_e4m3fn",
}  # fmt: skip


class NVFP4Format:
    """E2M1 in blocks of 16; inputs stay in bf16.

    Args:
        compute: Precision of the recipe's products.
    """

    label = "compressed-tensors nvfp4-pack-quantized"
    output_multiple = 1
    input_multiple = BLOCK

    def __init__(self, compute: ComputePrecision) -> None:
        self._compute = compute

    @property
    def notes(self) -> Sequence[str]:
        """What a server has to know or to have."""
        always = (
            "Tensor scales are written as divisors, whose reciprocals may differ from the scales in fp32's last bit.",
            "vLLM needs a GPU of compute capability 7.5; its CPU build has no kernel for NVFP4.",
        )
        if self._compute is ComputePrecision.BF16:
            return always
        return (
            *always,
            f"A server takes inputs in bf16, where training quantizes them to {self._compute.value}: vLLM has no "
            "products of NVFP4 weights with inputs scaled as in training.",
        )

    def quantization_config(self, unquantized: Sequence[str]) -> dict[str, Any]:
        """Build ``quantization_config``."""
        return quantization_config("nvfp4-pack-quantized", weights=_WEIGHTS, inputs=None, unquantized=unquantized)

    def convert(self, layers: Mapping[str, nn.Linear]) -> ExportedLayers:
        """Take codes as they are stored, and bring all tensor scales to the largest."""
        weights = {name: stored_weight(layer, NVFP4Weight) for name, layer in layers.items()}
        shared = torch.stack([weight.tensor_scale for weight in weights.values()]).amax()
        tensors: dict[str, Tensor] = {}
        errors: dict[str, float] = {}
        for name, weight in weights.items():
            scales = _scales_for(weight, shared)
            if error := _relative_error(weight, scales, shared):
                errors[name] = error
            tensors[f"{name}.weight_packed"] = weight.codes
            tensors[f"{name}.weight_scale"] = scales.view(torch.float8_e4m3fn)
            tensors[f"{name}.weight_global_scale"] = divisor(shared).view(1)
        return ExportedLayers(tensors=tensors, relative_errors=errors)


def divisor(scale: Tensor) -> Tensor:
    """Return the fp32 number whose fp32 reciprocal is ``scale``, or comes nearest to it; 1 for a scale of 0.

    Args:
        scale: 0-dim fp32, not negative.
    """
    if not scale:
        return torch.ones_like(scale)
    nearest = scale.reciprocal()
    candidates = torch.stack(
        (nearest, *(torch.nextafter(nearest, torch.full_like(nearest, end)) for end in (0.0, torch.inf)))
    )
    distances = (candidates.reciprocal() - scale).abs()
    return candidates[distances.argmin()]


def _scales_for(weight: NVFP4Weight, shared: Tensor) -> Tensor:
    """Return E4M3 bytes of the block scales under another tensor scale; the stored ones under the weight's own."""
    if weight.tensor_scale == shared:
        return weight.block_scales
    ratio = weight.tensor_scale / shared
    return encode(decode_e4m3(weight.block_scales).float() * ratio, E4M3)


def _relative_error(weight: NVFP4Weight, scales: Tensor, shared: Tensor) -> float:
    """Return the norm of the difference by that of the stored weight; 0 where nothing differs."""
    if scales is weight.block_scales:
        return 0.0
    stored = unpack_products(weight.codes, weight.block_scales).float() * weight.tensor_scale
    written = unpack_products(weight.codes, scales).float() * shared
    norm = torch.linalg.vector_norm(stored)
    return float(torch.linalg.vector_norm(written - stored) / norm) if norm else 0.0
