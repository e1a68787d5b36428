"""Make the folders of the bundled object store; a bucket is a folder."""

import sys
from pathlib import Path

for folder in map(Path, sys.argv[1:]):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(
            f"{folder}: {error.strerror}: the volume must be writable for group 10001. Choose a StorageClass that "
            "honours fsGroup (objectStore.bundled.persistence.storageClass), a prepared claim (existingClaim), or none."
        )
