"""Checks of a checkpoint's files: they are complete, in safetensors format, and contain finite values."""

import json
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surogate_bench.contract import ADAPTER_CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE
from surogate_bench.errors import ConfigError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_TYPES = {"F16": "fp16", "F32": "fp32", "F64": "fp64"}
"""Floating-point types of safetensors that are not bf16."""
_OWN_LAYOUT = "consolidated"
"""Start of the names of weights in Mistral's own layout."""
_LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors format."""


def checkpoint_headers(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the headers of a local checkpoint: for each file its tensors with ``dtype``, ``shape``, ``data_offsets``.

    Raises:
        ConfigError: a file is missing, truncated, a Git LFS pointer, or not in safetensors format; or training and
            serving would load different files.
    """
    refuse_lfs_pointers(folder)
    names = _weight_files(folder)
    _refuse_others(folder, names)
    return {name: _header(folder / name) for name in names}


def refuse_adapter(folder: Path) -> None:
    """Refuse a model with an adapter in its folder: transformers would add it to the model, and vLLM would not.

    Raises:
        ConfigError: the folder has one.
    """
    if (folder / ADAPTER_CONFIG_FILE).exists():
        raise ConfigError(
            f"has an adapter next to the model ({ADAPTER_CONFIG_FILE}): training would start from both, serving from "
            "the model alone",
            field="model",
            value=str(folder),
            remedy="Remove the adapter's files from a copy of the folder, or merge the adapter into the weights.",
        )


def refuse_lfs_pointers(folder: Path) -> None:
    """Refuse a folder that was cloned without Git LFS, which has text files in place of its large files.

    Raises:
        ConfigError: the folder has such files.
    """
    pointers = [path.name for path in sorted(folder.iterdir()) if path.is_file() and _starts_with_pointer(path)]
    if pointers:
        raise ConfigError(
            f"{', '.join(pointers)}: a Git LFS pointer in place of the file",
            field="model",
            value=str(folder),
            remedy="Run 'git lfs pull' there, or download the files from the hub.",
        )


def _starts_with_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER


def _weight_files(folder: Path) -> list[str]:
    """Return the files that transformers loads."""
    if (folder / WEIGHTS_FILE).is_file():
        return [WEIGHTS_FILE]
    if not (folder / WEIGHTS_INDEX_FILE).is_file():
        raise _no_safetensors(folder)
    names = sorted(set(_weight_map(folder / WEIGHTS_INDEX_FILE).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"{len(missing)} of the {len(names)} weight files that {WEIGHTS_INDEX_FILE} names are missing: "
            f"{abbreviated(missing)}",
            field="model",
            value=str(folder),
            remedy="Copy the missing files to the folder.",
        )
    return names


def _refuse_others(folder: Path, loaded: Sequence[str]) -> None:
    """Refuse weights that vLLM would load in place of those of transformers, or in addition to them.

    vLLM loads the authors' own layout if there is one, and otherwise all files, or those of the index if there is one.
    """
    present = sorted(path.name for path in folder.glob("*.safetensors"))
    served = [name for name in present if name.startswith(_OWN_LAYOUT)] or present
    if served == present and (folder / WEIGHTS_INDEX_FILE).is_file():
        served = sorted(set(_weight_map(folder / WEIGHTS_INDEX_FILE).values()))
    if served != list(loaded):
        raise ConfigError(
            f"training would load {abbreviated(list(loaded))}, and vLLM {abbreviated(served)}",
            field="model",
            value=str(folder),
            remedy="Leave one set of weights in a copy of the folder.",
        )


def _weight_map(index: Path) -> Mapping[str, str]:
    try:
        settings = json.loads(index.read_text(encoding="utf-8"))
        weight_map, _ = settings["weight_map"], settings["metadata"]  # transformers requires both
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(index, "has no weight_map, or no metadata") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise _unreadable(index, "has no weight_map")
    unusable = [name for name in weight_map.values() if not isinstance(name, str) or Path(name).name != name]
    if unusable:
        raise _unreadable(index, f"names {unusable[0]!r}, which is no file of its folder")
    return weight_map


def _no_safetensors(folder: Path) -> ConfigError:
    others = sorted(
        path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5") for path in folder.glob(pattern)
    )
    if others:
        return ConfigError(
            f"the weights are not in safetensors format ({abbreviated(others)}); pickled files are never loaded, "
            "because they can run code",
            field="model",
            value=str(folder),
            remedy="Convert them in an environment where you trust the model: load it with transformers and call "
            "save_pretrained().",
        )
    return ConfigError(
        f"has no weights: neither {WEIGHTS_FILE} nor {WEIGHTS_INDEX_FILE}",
        field="model",
        value=str(folder),
        remedy="Give a folder in transformers format (safetensors).",
    )


def _header(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _LARGEST_HEADER + 1  # noqa: PLR2004
        if length > min(size, _LARGEST_HEADER):
            raise _unreadable(path, "is not in safetensors format, or truncated")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise _unreadable(path, "is not in safetensors format") from error
    if not isinstance(header, dict):
        raise _unreadable(path, "is not in safetensors format")
    header.pop("__metadata__", None)
    try:
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
        _ = [(tensor["dtype"], tuple(tensor["shape"])) for tensor in header.values()]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _unreadable(path, "is not in safetensors format") from error
    if 8 + length + end != size:
        raise _unreadable(path, f"has {size} bytes but its header requires {8 + length + end}")
    return header


def _unreadable(path: Path, problem: str) -> ConfigError:
    return ConfigError(f"{path.name} {problem}", field="model.path", value=str(path.parent), remedy="Copy it again.")


def check_finite(folder: Path, files: Mapping[str, Any]) -> None:
    """Read every weight and refuse NaN and infinity, which would make all products NaN.

    Raises:
        ConfigError: a tensor has such values. The message names the first one.
    """
    import torch  # noqa: PLC0415 - slow to import, so after the cheap checks
    from safetensors import safe_open  # noqa: PLC0415

    for file, header in files.items():
        with safe_open(folder / file, "pt") as weights:
            for name in header:
                tensor = weights.get_tensor(name)
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise ConfigError(
                        f"{int((~torch.isfinite(tensor)).sum())} of the {tensor.numel()} values of {name} are NaN or "
                        "infinite",
                        field="model",
                        value=str(folder),
                        remedy="Use an intact checkpoint.",
                    )


def rounded_tensors(files: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return a warning if tensors are stored in another type than bf16, which training and serving round them to.

    Args:
        files: Headers from :func:`checkpoint_headers`.
    """
    types = Counter(tensor["dtype"] for header in files.values() for tensor in header.values())
    others = {_TYPES[kind]: count for kind, count in sorted(types.items()) if kind in _TYPES}
    if not others:
        return ()
    stored = " and ".join(f"{count:,} are {name}" for name, count in others.items())
    return (
        f"of the checkpoint's {types.total():,} tensors {stored}: training and serving round them to bf16, so the base "
        "model that is scored is the rounded one",
    )


def abbreviated(names: list[str], *, shown: int = 4) -> str:
    """Return the first names as text, with the number of the others."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
