"""Publish, read, fetch and reuse finished stages. A stage is complete when, and only when, it has a manifest.

The manifest is written last, by exactly one writer.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from surogate_bench.errors import PermanentError
from surogate_bench.files import sha256_of
from surogate_bench.layout import Stage, manifest_key, run_name
from surogate_bench.machine.hardware import describe_machine, package_versions
from surogate_bench.stages.identity import SCORING_VERSION, TRAINING_VERSION
from surogate_bench.stages.manifest import FileDigest, Manifest, ResultT, StageResult
from surogate_bench.stages.requests import (
    CheckRequest,
    EvaluateRequest,
    ForeignTrainRequest,
    ImportRequest,
    PrepareRequest,
    TrainRequest,
)
from surogate_bench.store.object_store import ObjectStore, walk_files

StoredRequest = PrepareRequest | CheckRequest | TrainRequest | ImportRequest | ForeignTrainRequest | EvaluateRequest
"""Requests whose results are stored."""
_PROCEDURE_VERSIONS: Mapping[Stage, int] = MappingProxyType({"train": TRAINING_VERSION, "eval": SCORING_VERSION})


def new_manifest(
    request: StoredRequest,
    result: StageResult,
    *,
    engine: str | None = None,
    gpu: str | None = None,
    served_by: Mapping[str, str] = MappingProxyType({}),
) -> Manifest:
    """Build the manifest of a stage that this process has run; :func:`publish_stage` adds the files.

    Args:
        request: The request of the stage.
        result: The result of the stage.
        engine: Engine that computed the products.
        gpu: Name of the GPU that was used.
        served_by: Versions of the packages in the server that was used, by name.
    """
    stage, run = _stage_and_run(request)
    return Manifest(
        stage=stage,
        run=run,
        spec_hash=request.layout.spec_hash,
        created=datetime.now(UTC),
        files={},
        engine=engine,
        hardware=describe_machine(gpu),
        versions={**served_by, **package_versions()},
        result=result,
        procedure_version=_PROCEDURE_VERSIONS.get(stage, 1),
    )


def _stage_and_run(request: StoredRequest) -> tuple[Stage, str]:
    match request:
        case PrepareRequest():
            return "prepare", "prepare"
        case CheckRequest():
            return "check", request.subject
        case TrainRequest():
            return "train", run_name(request.recipe, request.seed)
        case ImportRequest():
            return "import", request.adapter
        case ForeignTrainRequest():
            return "foreign-train", run_name(request.trainer, request.seed)
        case EvaluateRequest():
            return "eval", request.run


def publish_stage(store: ObjectStore, prefix: str, folder: Path, manifest: Manifest) -> bool:
    """Upload ``folder`` to ``prefix`` and then, conditionally, the manifest with the digest of every file.

    Args:
        store: Destination.
        prefix: Prefix of the stage.
        folder: Folder of the outputs; may be empty.
        manifest: From :func:`new_manifest`.

    Returns:
        False if another writer has completed the stage first; its files and manifest are kept.

    Raises:
        TransientError: the store is unavailable; calling again is safe.
    """
    if store.exists(manifest_key(prefix)):
        return False
    files = {name: FileDigest(sha256=sha256_of(path), size=path.stat().st_size) for name, path in walk_files(folder)}
    store.put_tree(prefix, folder)
    complete = manifest.model_copy(update={"files": files, "created": datetime.now(UTC)})
    return store.create(manifest_key(prefix), complete.model_dump_json(indent=2).encode())


def reuse_stage(store: ObjectStore, prefix: str, *, run: str, source: str) -> bool:
    """Complete the stage under ``prefix`` by referring to an equal one, without copying its files.

    Safe during garbage collection, which deletes a stage's manifest before it searches for references: the source is
    read again after the reference is written.

    Args:
        store: Store of both stages.
        prefix: Prefix of the stage to complete.
        run: The run it belongs to.
        source: Prefix of the finished stage, or of another reference to it.

    Returns:
        False if the source no longer exists; nothing has changed then.

    Raises:
        TransientError: the store is unavailable; calling again is safe.
    """
    found = read_manifest(store, source)
    if found is None:
        return False
    origin = found.location(source)
    reference = found.model_copy(update={"run": run, "reused_from": origin})
    # The keys of the source and no others: a result of an earlier version stays as it was written.
    document = reference.model_dump_json(indent=2, exclude_unset=True).encode()
    created = store.create(manifest_key(prefix), document)
    if created and not store.exists(manifest_key(origin)):
        store.delete([manifest_key(prefix)])
        return False
    return True


def read_manifest(store: ObjectStore, prefix: str) -> Manifest | None:
    """Read the manifest of the stage under ``prefix``; None while the stage is not complete.

    Raises:
        PermanentError: there is one but it cannot be parsed.
    """
    raw = store.get(manifest_key(prefix))
    if raw is None:
        return None
    try:
        return Manifest.model_validate(json.loads(raw))
    except (ValidationError, ValueError) as error:
        raise PermanentError(f"{manifest_key(prefix)} in {store.url} is not a manifest: {error}") from error


def read_result(store: ObjectStore, prefix: str, kind: type[ResultT]) -> ResultT | None:
    """Read the result of the stage under ``prefix``; None while the stage is not complete.

    Raises:
        PermanentError: the manifest or its result cannot be parsed.
    """
    manifest = read_manifest(store, prefix)
    return None if manifest is None else manifest.require_result(kind)


def require_manifest(store: ObjectStore, prefix: str) -> Manifest:
    """Read the manifest of the stage under ``prefix``.

    Raises:
        PermanentError: the stage is not complete, or its manifest cannot be parsed.
    """
    manifest = read_manifest(store, prefix)
    if manifest is None:
        raise PermanentError(f"{prefix} in {store.url} has no manifest: the stage is not finished")
    return manifest


def fetch_stage(store: ObjectStore, prefix: str, folder: Path, *, under: str = "") -> Manifest:
    """Download a finished stage's files (only those below ``under``) into ``folder`` and verify every digest.

    Raises:
        PermanentError: the stage is not complete, or a file differs from its digest.
    """
    manifest = require_manifest(store, prefix)
    for name in manifest.files:
        if not name.startswith(under):
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read_file(store, prefix, manifest, name))
    return manifest


def read_file(store: ObjectStore, prefix: str, manifest: Manifest, name: str) -> bytes:
    """Read one file of a finished stage and verify its digest.

    Args:
        store: The store.
        prefix: Prefix of the stage.
        manifest: Manifest of the stage.
        name: One of ``manifest.files``.

    Raises:
        PermanentError: the file is missing or differs from its digest.
    """
    key = f"{manifest.location(prefix)}/{name}"
    data = store.get(key)
    if data is None or hashlib.sha256(data).hexdigest() != manifest.files[name].sha256:
        raise PermanentError(f"{key} in {store.url} is missing or differs from its manifest")
    return data
