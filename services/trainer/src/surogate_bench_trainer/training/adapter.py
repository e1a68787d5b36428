"""Adapter files in the format that PEFT and vLLM load."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor

from surogate_bench.contract import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE
from surogate_bench_trainer.model.lora import ADAPTER


def save_adapter(model: PeftModel, folder: Path) -> str:
    """Write ``adapter_model.safetensors`` (fp32) and ``adapter_config.json``. Equal adapters give equal bytes.

    Returns:
        SHA-256 over the two files' bytes, the configuration first: the adapter's content hash.
    """
    state = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    config = model.peft_config[ADAPTER].to_dict() | {"inference_mode": True}
    contents = {
        ADAPTER_CONFIG_FILE: (json.dumps(config, indent=2, sort_keys=True, default=_to_json) + "\n").encode(),
        ADAPTER_WEIGHTS_FILE: safetensors.torch.save(tensors, metadata={"format": "pt"}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return hashlib.sha256(b"".join(contents.values())).hexdigest()


def save_input_scales(scales: Mapping[str, Tensor], path: Path) -> None:
    """Write the input scales that training ended with, for serving with the same products.

    Args:
        scales: 0-dim fp32 tensors by module path of the projection.
        path: Path of the safetensors file.
    """
    safetensors.torch.save_file({name: scale.cpu() for name, scale in scales.items()}, path)


def _to_json(value: Any) -> Any:  # noqa: ANN401 - any value of PEFT's configuration
    return sorted(value) if isinstance(value, set) else str(value)
