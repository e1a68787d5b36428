"""Create the folders of the bundled object store (a bucket is a folder), and check that its user can write to them."""

import os
import sys
import tempfile
from pathlib import Path

volume, root, *folders = sys.argv[1:]
try:
    for folder in map(Path, folders):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
except PermissionError as error:
    owner = Path(root).stat()
    own = f"{owner.st_uid}:{owner.st_gid}"
    as_owner = (
        f"run the store as its owner (objectStore.bundled.runAsUser={owner.st_uid}, runAsGroup={owner.st_gid}), "
        if owner.st_uid and owner.st_gid
        else ""
    )
    sys.exit(
        f"{volume} is not writable for {os.getuid()}:{os.getgid()}: {error.filename}: {error.strerror}. The volume "
        f"belongs to {own}, mode {owner.st_mode & 0o7777:04o}, and does not honour fsGroup. Choose a StorageClass that "
        f"does (objectStore.bundled.persistence.storageClass), make the volume writable for group {os.getgid()}, "
        f"{as_owner}or set objectStore.bundled.persistence.enabled=false (results are lost with the pod)."
    )
except OSError as error:
    sys.exit(
        f"{volume} cannot be used: {error.filename}: {error.strerror}. Repair the volume or choose another one "
        "(objectStore.bundled.persistence)."
    )
