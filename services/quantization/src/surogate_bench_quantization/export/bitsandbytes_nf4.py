"""NF4 as bitsandbytes itself serializes it, which transformers and vLLM's plug-in for bitsandbytes read."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from surogate_bench_quantization.export.checkpoint_format import ExportedLayers
from surogate_bench_quantization.storage.nf4 import NF4Linear


class BitsAndBytesNF4Format:
    """Packed codes, and bitsandbytes' quantization state."""

    label = "bitsandbytes nf4"
    notes = (
        "vLLM 0.28 and later load bitsandbytes checkpoints with the package vllm-bnb-plugin only, and not under tensor "
        "parallelism.",
    )
    output_multiple = 1
    input_multiple = 1

    def quantization_config(self, unquantized: Sequence[str]) -> dict[str, Any]:
        """Build ``quantization_config``."""
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8",
            "llm_int8_skip_modules": list(unquantized),
        }

    def convert(self, layers: Mapping[str, nn.Linear]) -> ExportedLayers:
        """Take codes and quantization states as they are stored."""
        tensors: dict[str, Tensor] = {}
        for name, layer in layers.items():
            if not isinstance(layer, NF4Linear):
                raise TypeError(f"expected a layer of bitsandbytes, found {type(layer).__name__}")
            tensors[f"{name}.weight"] = layer.weight.data
            state: dict[str, Tensor] = layer.weight.quant_state.as_dict(packed=True)
            tensors |= {f"{name}.weight.{key}": value for key, value in state.items()}
        return ExportedLayers(tensors=tensors)
