"""``quantization_config`` of ``compressed-tensors``, which vLLM and transformers read."""

from collections.abc import Mapping, Sequence
from typing import Any


def quantization_config(
    name: str,
    *,
    weights: Mapping[str, Any],
    inputs: Mapping[str, Any] | None,
    unquantized: Sequence[str],
) -> dict[str, Any]:
    """Build the section: one scheme for all linear layers except those named.

    Args:
        name: Name of the compression format.
        weights: Arguments of the weights' quantization.
        inputs: Arguments of the inputs' quantization; None where inputs stay in bf16.
        unquantized: Modules to leave out; a name covers all that is inside it.
    """
    return {
        "quant_method": "compressed-tensors",
        "format": name,
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": dict(weights),
                "input_activations": None if inputs is None else dict(inputs),
                "output_activations": None,
            }
        },
        "ignore": [_pattern(module) for module in unquantized],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _pattern(module: str) -> str:
    """Match a module and what is inside it."""
    escaped = module.replace(".", r"\.")
    return rf"re:{escaped}(\..*)?$"
