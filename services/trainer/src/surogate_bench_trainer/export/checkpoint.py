"""The files of an exported checkpoint: sharded weights, configuration, tokenizer and licence."""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor
from transformers import PreTrainedModel

from surogate_bench.contract import MODEL_CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE
from surogate_bench.inputs.content import model_files
from surogate_bench_quantization.export import CheckpointFormat
from surogate_bench_trainer.export.layers import Layers, groups

SHARD_BYTES = 4 << 30
"""Most bytes of a file, unless one tensor has more."""
_NOT_COPIED = (".safetensors", ".bin", ".py", ".index.json")
_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*")


@dataclass(slots=True)
class WrittenWeights:
    """What has been written."""

    layers: int
    """Linear layers whose weights the recipe stores."""
    weight_bytes: int = 0
    relative_errors: dict[str, float] = field(default_factory=dict)


def write_weights(
    folder: Path,
    model: PreTrainedModel,
    layers: Layers,
    checkpoint_format: CheckpointFormat,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> WrittenWeights:
    """Write all tensors of a model in safetensors format, and an index where they take several files.

    Args:
        folder: To write to.
        model: With the recipe's layers in place.
        layers: Those that the recipe stores.
        checkpoint_format: How these are written; all else is written as it is.
        shard_bytes: Most bytes of a file.
    """
    written = WrittenWeights(layers=len(layers))
    places: dict[str, int] = {}
    count = 0
    for shard in _shards(_tensors(model, layers, checkpoint_format, written), shard_bytes):
        path = folder / _temporary(count)
        safetensors.torch.save_file(shard, path, metadata={"format": "pt"})
        path.chmod(0o644)  # it comes readable by its owner only
        places |= dict.fromkeys(shard, count)
        written.weight_bytes += sum(tensor.nbytes for tensor in shard.values())
        count += 1
    _name_shards(folder, places, count, written.weight_bytes)
    return written


def _tensors(
    model: PreTrainedModel, layers: Layers, checkpoint_format: CheckpointFormat, written: WrittenWeights
) -> Iterator[tuple[str, Tensor]]:
    for group in groups(layers):
        converted = checkpoint_format.convert(group)
        written.relative_errors |= converted.relative_errors
        yield from converted.tensors.items()
    yield from _other_tensors(model, layers)


def _other_tensors(model: PreTrainedModel, layers: Layers) -> Iterator[tuple[str, Tensor]]:
    """Yield what no recipe touches; a tensor that two names share comes once, as transformers and vLLM expect."""
    converted = tuple(f"{name}." for name in layers)
    written: set[tuple[int, tuple[int, ...]]] = set()
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tuple(tensor.shape))
        of_layer = name.startswith(converted) and name.removesuffix(".bias") not in layers
        if not of_layer and place not in written:
            written.add(place)
            yield name, tensor


def _shards(tensors: Iterable[tuple[str, Tensor]], most: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > most:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
    yield shard


def _temporary(index: int) -> str:
    return f"shard-{index}"


def _name_shards(folder: Path, places: dict[str, int], count: int, weight_bytes: int) -> None:
    if count == 1:
        (folder / _temporary(0)).rename(folder / WEIGHTS_FILE)
        return
    names = [f"model-{index + 1:05d}-of-{count:05d}.safetensors" for index in range(count)]
    for index, name in enumerate(names):
        (folder / _temporary(index)).rename(folder / name)
    weight_map = {name: names[place] for name, place in sorted(places.items())}
    write_json(folder / WEIGHTS_INDEX_FILE, {"metadata": {"total_size": weight_bytes}, "weight_map": weight_map})


def write_config(folder: Path, source: Path, quantization_config: dict[str, Any] | None) -> None:
    """Write the model's ``config.json`` as it was published, but for dtype, quantization and code of its own."""
    config = json.loads((source / MODEL_CONFIG_FILE).read_text(encoding="utf-8"))
    config.pop("auto_map", None)
    for name in {"dtype", "torch_dtype"} & config.keys() or {"dtype"}:
        config[name] = "bfloat16"
    if quantization_config is not None:
        config["quantization_config"] = quantization_config
    write_json(folder / MODEL_CONFIG_FILE, config)


def copy_other_files(folder: Path, source: Path) -> None:
    """Copy tokenizer, generation settings and licence, byte for byte."""
    licences = [path for pattern in _LICENCES for path in source.glob(pattern) if path.is_file()]
    settings = [path for name, path in model_files(source).items() if name != MODEL_CONFIG_FILE and _is_copied(name)]
    for path in (*settings, *licences):
        shutil.copyfile(path, folder / path.name)


def _is_copied(name: str) -> bool:
    return not name.endswith(_NOT_COPIED)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, indented."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
