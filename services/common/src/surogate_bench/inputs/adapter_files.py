"""The two files of an adapter that was trained elsewhere: no other file is read, and no content is trusted."""

import os
import stat
from pathlib import Path
from typing import Protocol

from surogate_bench.contract import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE
from surogate_bench.errors import ConfigError

ADAPTER_FILES = (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE)
LARGEST_CONFIG = 1 << 20
"""Maximum size of ``adapter_config.json`` in bytes; typical files have about a thousand."""
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
"""Ends of the names of files that may be pickled."""
AS_SAFETENSORS = (
    "Pickled files are never loaded, because they can run code. Load the adapter with PEFT where you trust it, and "
    "save_pretrained() it: that writes safetensors."
)


class AdapterOrigin(Protocol):
    """What messages about an adapter name: an entry of the sweep."""

    @property
    def field(self) -> str:
        """Setting that names the adapter, or what trains it."""
        ...

    @property
    def label(self) -> str:
        """Value of that setting."""
        ...


def local_adapter_files(adapter: AdapterOrigin, folder: Path, *, root: Path | None = None) -> dict[str, Path]:
    """Find the files of an adapter in a local folder.

    Args:
        adapter: Its entry in the sweep.
        folder: Its folder.
        root: Folder that symbolic links may point into; ``folder`` itself if None.

    Raises:
        ConfigError: a file is missing, not a regular file, or a link to one outside of ``root``.
    """
    if not folder.is_dir():
        raise _unusable(adapter, "there is no such folder", "Correct the path.")
    names = sorted(path.name for path in folder.iterdir())
    require_adapter_files(adapter, names)
    return {name: _inside(adapter, folder / name, root or folder) for name in ADAPTER_FILES}


def require_adapter_files(adapter: AdapterOrigin, names: list[str]) -> None:
    """Check that the files that are read are among those of a folder.

    Raises:
        ConfigError: one is missing, or the weights are pickled; names it.
    """
    missing = [name for name in ADAPTER_FILES if name not in names]
    if not missing:
        return
    pickles = [name for name in names if name.startswith("adapter_model") and name.endswith(PICKLES)]
    if ADAPTER_WEIGHTS_FILE in missing and pickles:
        raise _unusable(adapter, f"the weights are not in safetensors format ({', '.join(pickles)})", AS_SAFETENSORS)
    raise _unusable(
        adapter,
        f"has no {' and no '.join(missing)}",
        "Give a folder that PEFT's save_pretrained() wrote; a merged model is not an adapter.",
    )


def read_bounded(path: Path, limit: int) -> bytes | None:
    """Read a regular file; None if it is larger than ``limit`` bytes, or not regular."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = file.read(limit + 1)
    return data if len(data) <= limit else None


def _inside(adapter: AdapterOrigin, path: Path, root: Path) -> Path:
    resolved = path.resolve()
    if not resolved.is_relative_to(root.resolve()):
        raise _unusable(
            adapter,
            f"{path.name} is a symbolic link that leaves the folder",
            "Copy the file itself there, or give the folder that contains it.",
        )
    if not resolved.is_file():
        raise _unusable(adapter, f"{path.name} is not a regular file", "Copy the adapter's files there.")
    return resolved


def _unusable(adapter: AdapterOrigin, problem: str, remedy: str) -> ConfigError:
    return ConfigError(problem, field=adapter.field, value=adapter.label, remedy=remedy)
