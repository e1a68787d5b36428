"""Checks of a checkpoint's files: they are complete, in safetensors format, and contain finite values."""

import json
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surogate_bench.contract import WEIGHTS_FILE, WEIGHTS_INDEX_FILE
from surogate_bench.errors import ConfigError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_TYPES = {"F16": "fp16", "F32": "fp32", "F64": "fp64"}
"""Floating-point types of safetensors that are not bf16."""
_LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors format."""


def checkpoint_headers(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the headers of a local checkpoint: for each file its tensors with ``dtype``, ``shape``, ``data_offsets``.

    Raises:
        ConfigError: a file is missing, truncated, a Git LFS pointer, or not in safetensors format.
    """
    refuse_lfs_pointers(folder)
    return {name: _header(folder / name) for name in _weight_files(folder)}


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
    if not (folder / WEIGHTS_INDEX_FILE).is_file():
        if (folder / WEIGHTS_FILE).is_file():
            return [WEIGHTS_FILE]
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


def _weight_map(index: Path) -> Mapping[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(index, "has no weight_map") from error
    if not isinstance(weight_map, dict):
        raise _unreadable(index, "has no weight_map")
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
    end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
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
