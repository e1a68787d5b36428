"""Checks of free disk space and write permissions, made before anything expensive starts."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from surogate_bench.errors import ConfigError
from surogate_bench.stages.model_source import local_folder
from surogate_bench.store.object_store import ObjectStore
from surogate_bench.user_paths import require_free_space

NEEDED_MIB = 256
"""Free space that every sweep needs for data, checkpoints and results."""
NEEDED_FOR_MODEL_MIB = 1024
"""Free space for two copies of a converted model."""


def check_disk_space(store: ObjectStore, work_dir: Path, *, needed_mib: int) -> None:
    """Check the free space of the work folder and of a local store, and that the store is writable.

    Raises:
        ConfigError: there is not enough space, or the store is not writable.
    """
    store.verify_conditional_writes()
    for field, folder in (("work-dir", work_dir), ("store", local_folder(store))):
        if folder is not None:
            require_free_space(folder, needed_mib << 20, field=field, what="preparing needs at least")


@contextmanager
def translate_disk_errors(folder: Path) -> Iterator[None]:
    """Translate the errors of a full or read-only disk.

    Raises:
        ConfigError: writing to ``folder`` failed for such a reason.
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
            remedy="Free some space, or choose a writable folder.",
        ) from error
