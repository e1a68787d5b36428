"""A stage is done when its ``manifest.json`` exists: written last, by exactly one writer."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from surogate_bench.errors import PermanentError
from surogate_bench.layout import manifest_key
from surogate_bench.store import ObjectStore, walk_files


class FileDigest(BaseModel):
    """SHA-256 (hex) and size (bytes) of one output file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    size: int


class Manifest(BaseModel):
    """What one finished stage made, from what, with what, where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    run: str
    spec_hash: str
    created: datetime
    files: dict[str, FileDigest]
    engine: str | None = None
    hardware: dict[str, Any]
    versions: dict[str, str]
    result: dict[str, Any]
    """The stage's own figures: TrainResult, EvalResult or PrepareResult as plain JSON."""
    procedure_version: int = 1
    """TRAINING_VERSION or SCORING_VERSION of the code that made it."""
    reused_from: str | None = None
    """Prefix of the stage of another sweep whose result this is: its files lie there; None if they lie here."""

    def location(self, prefix: str) -> str:
        """Prefix that the files lie under; ``prefix`` is that of the manifest itself."""
        return self.reused_from or prefix


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish_stage(store: ObjectStore, prefix: str, folder: Path, manifest: Manifest) -> bool:
    """Upload ``folder`` to ``prefix`` and then, conditionally, the manifest with every file's digest filled in.

    Returns:
        False when another writer had finished the stage first; its files and manifest stand.

    Raises:
        TransientError: the store is away; calling again is safe.
    """
    if store.exists(manifest_key(prefix)):
        return False
    files = {name: FileDigest(sha256=sha256_of(path), size=path.stat().st_size) for name, path in walk_files(folder)}
    store.put_tree(prefix, folder)
    complete = manifest.model_copy(update={"files": files, "created": datetime.now(UTC)})
    return store.create(manifest_key(prefix), complete.model_dump_json(indent=2).encode())


def reuse_stage(store: ObjectStore, prefix: str, *, run: str, source: str) -> bool:
    """Finish the stage under ``prefix`` by referring to an equal one, without copying its files.

    Safe beside a collection of garbage, which removes a stage's manifest before it looks for references: the source is
    read again after the reference is written.

    Args:
        store: Holds both.
        prefix: Of the stage that becomes done.
        run: The run it belongs to.
        source: Prefix of the finished stage, or of another reference to it.

    Returns:
        False when the source is gone; nothing has changed then.

    Raises:
        TransientError: the store is away; calling again is safe.
    """
    found = read_manifest(store, source)
    if found is None:
        return False
    origin = found.location(source)
    reference = found.model_copy(update={"run": run, "reused_from": origin})
    created = store.create(manifest_key(prefix), reference.model_dump_json(indent=2).encode())
    if created and not store.exists(manifest_key(origin)):
        store.delete([manifest_key(prefix)])
        return False
    return True


def read_manifest(store: ObjectStore, prefix: str) -> Manifest | None:
    """Read the manifest of the stage under ``prefix``; None while the stage is not done.

    Raises:
        PermanentError: there is one but it cannot be understood.
    """
    raw = store.get(manifest_key(prefix))
    if raw is None:
        return None
    try:
        return Manifest.model_validate(json.loads(raw))
    except (ValidationError, ValueError) as error:
        raise PermanentError(f"{manifest_key(prefix)} in {store.url} is not a manifest: {error}") from error


def fetch_stage(store: ObjectStore, prefix: str, folder: Path, *, under: str = "") -> Manifest:
    """Download a finished stage's files (only those below ``under``) into ``folder`` and verify every digest.

    Raises:
        PermanentError: the stage is not done, or a file differs from its digest.
    """
    manifest = read_manifest(store, prefix)
    if manifest is None:
        raise PermanentError(f"{prefix} in {store.url} has no manifest: the stage is not finished")
    for name, digest in manifest.files.items():
        if not name.startswith(under):
            continue
        key = f"{manifest.location(prefix)}/{name}"
        data = store.get(key)
        if data is None or hashlib.sha256(data).hexdigest() != digest.sha256:
            raise PermanentError(f"{key} in {store.url} is missing or differs from its manifest")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return manifest
