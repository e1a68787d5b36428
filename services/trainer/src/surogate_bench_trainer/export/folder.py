"""A folder that is complete or absent at any moment."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from surogate_bench.errors import ConfigError
from surogate_bench.stages.exports import check_output

_NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def complete_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write to that becomes ``target`` when the block ends without an exception.

    Until then it is a hidden folder next to it. What killed processes left there is removed first.

    Raises:
        ConfigError: the disk is full or cannot be written, or ``target`` has been filled meanwhile.
    """
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        partial = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _explained(target):
            yield partial
            _publish(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _prefix(target: Path) -> str:
    return f".{target.name}.partial-"


def _remove_abandoned(target: Path) -> None:
    """Remove partial folders that no live process holds the lock of."""
    for folder in target.parent.glob(f"{_prefix(target)}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _publish(partial: Path, target: Path) -> None:
    partial.chmod(0o755)  # mkdtemp makes it private
    for path in (*partial.iterdir(), partial):
        _sync(path)
    check_output(target)
    partial.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Raise a full or read-only disk as a ConfigError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise _not_writable(target, str(error.strerror)) from error
    except SafetensorError as error:  # of its own, with the operating system's message
        if "os error" not in str(error):
            raise
        raise _not_writable(target, str(error)) from error


def _not_writable(target: Path, problem: str) -> ConfigError:
    return ConfigError(
        f"cannot be written: {problem}",
        field="output",
        value=str(target),
        remedy="Free some space, or choose a folder you may write.",
    )
