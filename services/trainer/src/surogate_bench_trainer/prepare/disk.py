"""Room and rights to write, checked before anything expensive starts."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from surogate_bench.errors import ConfigError
from surogate_bench.model_source import local_folder
from surogate_bench.store import ObjectStore

_MIB = 1 << 20
NEEDED_MIB = 256
"""Free space that any sweep needs: data, checkpoints, results."""
NEEDED_FOR_MODEL_MIB = 1024
"""Free space for a converted model, twice."""


def check_room(store: ObjectStore, work_dir: Path, *, needed_mib: int) -> None:
    """Check free space in the work folder and in a local store, and that the store can be written.

    Raises:
        ConfigError: there is too little room, or the store cannot be written.
    """
    store.verify_conditional_writes()
    for field, folder in (("work-dir", work_dir), ("store", local_folder(store))):
        if folder is None:
            continue
        free = shutil.disk_usage(folder).free // _MIB
        if free < needed_mib:
            raise ConfigError(
                f"has only {free} MiB of disk space left, of {needed_mib} MiB needed",
                field=field,
                value=str(folder),
                remedy="Free some space, or choose another folder.",
            )


@contextmanager
def clear_disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a ConfigError.

    Raises:
        ConfigError: writing under ``folder`` failed for such a reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}:
            raise
        raise ConfigError(
            f"cannot be written: {error.strerror}",
            field="work-dir",
            value=str(folder),
            remedy="Free some space, or choose a folder you may write.",
        ) from error
