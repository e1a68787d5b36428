"""What merging an adapter into a checkpoint changes, determined from headers only. Does not import torch.

Adapters come from the object store. Their patterns of rank and alpha are those of the sweep, or plain names after an
import, and their shapes are checked.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open

from surogate_bench.contract import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_PREFIX,
    ADAPTER_WEIGHTS_FILE,
    LORA_A,
    LORA_B,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
)
from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.user_paths import require_free_space

_FLOATS = frozenset({"BF16", "F16", "F32"})
_NOT_ENOUGH = "to hold the merged weights (serving.merged) takes"
_FIELD = "serving.merged"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMerge:
    """The merge of one layer: weight (outputs, inputs) += scale * B (outputs, rank) @ A (rank, inputs)."""

    weight: str
    """Name of the tensor in the checkpoint."""
    a: str
    b: str
    """Names of the matrices in the adapter."""
    scale: float


class _Config(BaseModel):
    """The fields of PEFT's ``adapter_config.json`` that decide the scale."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    r: int
    lora_alpha: float
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool = False
    fan_in_fan_out: bool = False

    def scale(self, layer: str) -> float:
        """Return what the product of a layer's matrices is multiplied by; the first pattern that matches decides."""
        rank, alpha = _matching(self.rank_pattern, layer, self.r), _matching(self.alpha_pattern, layer, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def _matching(patterns: Mapping[str, float] | None, layer: str, otherwise: float) -> float:
    found = (value for name, value in (patterns or {}).items() if re.match(rf"(.*\.)?({name})$", layer))
    return next(found, otherwise)


def merge_plan(base: Path, adapter: Path) -> dict[str, list[LayerMerge]]:
    """Return the layers to merge by file of the checkpoint.

    Args:
        base: Folder of the model, in safetensors format.
        adapter: Folder of the adapter, in PEFT's format.

    Raises:
        ConfigError: the adapter cannot be merged into this checkpoint: a layer has no weight there, one of another
            shape, or one that is quantized.
        PermanentError: a file cannot be read.
    """
    layers = _layers(adapter)
    plan: dict[str, list[LayerMerge]] = {}
    missing = {layer.weight: layer for layer, _ in layers}
    for file in _weight_files(base):
        with _opened(base / file) as tensors:
            for layer, shape in layers:
                if layer.weight in tensors.keys():  # noqa: SIM118 - no dict
                    found = tensors.get_slice(layer.weight)
                    _check(layer.weight, tuple(found.get_shape()), found.get_dtype(), shape)
                    plan.setdefault(file, []).append(layer)
                    missing.pop(layer.weight, None)
    if missing:
        raise _refused(
            f"the adapter changes {len(missing)} layers that the checkpoint has no weights of, such as {min(missing)}"
        )
    return plan


def require_room(base: Path, files: Mapping[str, object], target: Path) -> None:
    """Check that the merged files fit on the disk.

    Args:
        base: Folder of the model.
        files: Names of those that are rewritten.
        target: Folder that they are written to.

    Raises:
        ConfigError: they do not.
    """
    needed = sum((base / name).stat().st_size for name in files)
    require_free_space(target, needed, field="work-dir", what=_NOT_ENOUGH)


def _layers(adapter: Path) -> list[tuple[LayerMerge, tuple[int, int]]]:
    """Return each layer of an adapter with the shape that its weight must have."""
    config = _Config.model_validate_json((adapter / ADAPTER_CONFIG_FILE).read_bytes())
    if config.fan_in_fan_out:
        raise _refused("the adapter is of layers whose weights are stored transposed (fan_in_fan_out)")
    with _opened(adapter / ADAPTER_WEIGHTS_FILE) as tensors:
        shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 - no dict
    return list(_pairs(config, shapes))


def _pairs(config: _Config, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[LayerMerge, tuple[int, int]]]:
    for name in sorted(shapes):
        if not name.endswith(LORA_A):
            continue
        b = name.removesuffix(LORA_A) + LORA_B
        if b not in shapes:
            raise PermanentError(f"{ADAPTER_WEIGHTS_FILE} of the adapter has {name} and not {b}")
        layer = name.removeprefix(ADAPTER_PREFIX).removesuffix(LORA_A)
        found = LayerMerge(weight=f"{layer}.weight", a=name, b=b, scale=config.scale(layer))
        yield found, (shapes[b][0], shapes[name][1])


def _check(name: str, shape: tuple[int, ...], dtype: str, expected: tuple[int, int]) -> None:
    if dtype not in _FLOATS:
        raise _refused(f"the base is quantized: it stores {name} as {dtype}")
    if shape != expected:
        by = " x ".join(map(str, shape))
        raise _refused(
            f"{name} of the checkpoint is {by}, and the adapter's matrices give {expected[0]} x {expected[1]}"
        )


def _refused(problem: str) -> ConfigError:
    return ConfigError(
        f"{problem}, so it cannot be merged",
        field=_FIELD,
        value=True,
        remedy="Leave serving.merged out, or use an unquantized checkpoint whose tensors have the names of its layers.",
    )


def _weight_files(base: Path) -> list[str]:
    if not (base / WEIGHTS_INDEX_FILE).is_file():
        return [WEIGHTS_FILE]
    weight_map = json.loads((base / WEIGHTS_INDEX_FILE).read_bytes())["weight_map"]
    return sorted(set(weight_map.values()))


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "np")
    except (SafetensorError, OSError) as error:
        raise PermanentError(f"{path} cannot be read: {error}") from error
