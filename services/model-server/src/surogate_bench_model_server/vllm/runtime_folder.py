"""A short private folder for the sockets of one vLLM.

The path of a Unix socket has at most 107 bytes (``unix(7)``). vLLM, PyTorch and Python's multiprocessing make theirs
below ``TMPDIR``, which may be longer than that.
"""

import os
import tempfile
from pathlib import Path

from surogate_bench.errors import PermanentError

_SOCKET_PATH_BYTES = 107
_PREFIX = "sgb-"
_OWN_BYTES = len(f"/{_PREFIX}xxxxxxxx")
_LONGEST_SOCKET_BYTES = 48
"""Longest socket name below ``TMPDIR``: vLLM's is a UUID (36), PyTorch's ``torch-shm-dir-XXXXXX/manager.sock`` (33)."""
_TEMPORARY_LINK = "t"
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - where a private folder is made


def make_runtime_folder() -> Path:
    """Make an empty folder (mode 0700) whose path is short enough for sockets; whoever makes it removes it.

    Raises:
        PermanentError: no folder with a short path can be written to.
    """
    tried = dict.fromkeys(filter(None, (_temporary(), os.environ.get("XDG_RUNTIME_DIR"), *_SHORT_FOLDERS)))
    for parent in tried:
        if _fits(parent):
            try:
                return Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
            except OSError:
                continue
    raise PermanentError(
        f"no folder for vLLM's sockets can be made in {', '.join(tried)}. Set TMPDIR to a folder that can be written "
        f"to, of at most {_SOCKET_PATH_BYTES - _OWN_BYTES - _LONGEST_SOCKET_BYTES} characters."
    )


def runtime_environment(folder: Path) -> dict[str, str]:
    """Environment variables that make vLLM and its libraries create their sockets under short paths.

    A ``TMPDIR`` that is too long stays in use, through a short symbolic link in ``folder``: it may have been chosen
    for its size.

    Args:
        folder: From :func:`make_runtime_folder`.
    """
    environment = {"VLLM_RPC_BASE_PATH": str(folder)}
    if not _fits(_temporary()):
        link = folder / _TEMPORARY_LINK
        link.symlink_to(Path(_temporary()).absolute(), target_is_directory=True)
        environment["TMPDIR"] = str(link)
    return environment


def _temporary() -> str:
    return tempfile.gettempdir()


def _fits(parent: str) -> bool:
    return len(os.fsencode(Path(parent).absolute())) + _OWN_BYTES + _LONGEST_SOCKET_BYTES <= _SOCKET_PATH_BYTES
