"""Which layers of a model a recipe stores, which vLLM multiplies as one, and which stay in bf16."""

from collections.abc import Iterator, Mapping

from torch import nn
from transformers import PreTrainedModel

from surogate_bench.errors import ConfigError
from surogate_bench_quantization.export import CheckpointFormat
from surogate_bench_quantization.stored_layers import is_stored
from surogate_bench_trainer.model.coverage import linear_paths, transformer_blocks
from surogate_bench_trainer.model.fused_in_vllm import divided_group, fused_groups
from surogate_bench_trainer.model.heads import head_size_of, kv_heads_of

Layers = Mapping[str, nn.Linear]
"""Linear layers by name in the model."""

_REMEDY = "Export the same values with --format bf16."


def stored_layers(model: PreTrainedModel) -> Layers:
    """Return the layers whose weights a recipe stores."""
    return {name: module for name, module in model.named_modules() if is_stored(module)}


def unquantized_modules(model: PreTrainedModel, stored: Layers) -> list[str]:
    """Return names of modules with linear layers in bf16: whole transformer blocks, and single layers."""
    blocks = transformer_blocks(model)
    root = next(name for name, module in model.named_modules() if module is blocks)
    inside = tuple(f"{root}.{index}." for index in range(len(blocks)))
    outside = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name not in stored and not name.startswith(inside)
    ]
    skipped = [prefix[:-1] for prefix in inside if not any(name.startswith(prefix) for name in stored)]
    whole = tuple(f"{name}." for name in skipped)
    kept = [name for name in linear_paths(model) if name not in stored and not name.startswith(whole)]
    return outside + skipped + kept


def groups(layers: Layers) -> Iterator[Layers]:
    """Group layers that vLLM multiplies as one; each group is in vLLM's order."""
    for names in fused_groups(layers):
        yield {name: layers[name] for name in names}


def check_vllm_can_load(model: PreTrainedModel, layers: Layers, checkpoint_format: CheckpointFormat) -> None:
    """Check that vLLM can load a checkpoint of a format.

    Layers that vLLM multiplies as one must be all in the format or all in bf16. Inputs of each layer, and outputs of
    all but the last of those that it multiplies as one, must be whole blocks.

    Raises:
        ConfigError: a layer is otherwise; names it.
    """
    if checkpoint_format.label is not None:
        _check_one_format_each(model, layers, checkpoint_format)
    _check_blocks(model, layers, checkpoint_format)


def _check_one_format_each(model: PreTrainedModel, layers: Layers, checkpoint_format: CheckpointFormat) -> None:
    group = divided_group(layers, linear_paths(model))
    if group:
        kept = [name for name in group if name not in layers]
        raise ConfigError(
            f"vLLM multiplies {', '.join(group)} as one matrix, and loads them only if all or none of them are "
            f"quantized; the recipe keeps {', '.join(kept)} in bf16",
            field="recipe",
            value=checkpoint_format.label,
            remedy=_REMEDY,
        )


def _check_blocks(model: PreTrainedModel, layers: Layers, checkpoint_format: CheckpointFormat) -> None:
    block = checkpoint_format.input_multiple
    for name, layer in layers.items():
        if layer.in_features % block:
            raise ConfigError(
                f"vLLM loads such weights only where inputs are divisible by {block}; {name} has {layer.in_features}, "
                "and its last blocks are padded with zeros",
                field="recipe",
                value=checkpoint_format.label,
                remedy=_REMEDY,
            )
    multiple = checkpoint_format.output_multiple
    for group in groups(layers):
        widths = [(name, width) for name, layer in group.items() for width in _widths(model, name, layer)]
        for name, width in widths[:-1]:
            if width % multiple:
                raise ConfigError(
                    f"vLLM multiplies {', '.join(group)} as one matrix, and loads weights in blocks of {multiple} only "
                    f"where all but the last of its parts have outputs divisible by {multiple}; {name} has {width}",
                    field="recipe",
                    value=checkpoint_format.label,
                    remedy=_REMEDY,
                )


def _widths(model: PreTrainedModel, name: str, layer: nn.Linear) -> list[int]:
    """Return the outputs of each projection in a layer; some architectures keep several in one."""
    config = model.config
    match name.rpartition(".")[2]:
        case "gate_up_proj":
            return [layer.out_features // 2] * 2
        case "qkv_proj":
            heads, size = config.num_attention_heads, head_size_of(config)
            return [heads * size, *[kv_heads_of(config) * size] * 2]
        case _:
            return [layer.out_features]
