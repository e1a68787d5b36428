"""Fetch the two files of a foreign adapter, with bounded sizes, from a folder, an object store or the hub."""

from dataclasses import dataclass
from pathlib import Path

from surogate_bench.contract import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE
from surogate_bench.errors import ConfigError
from surogate_bench.inputs.adapter_files import (
    ADAPTER_FILES,
    LARGEST_CONFIG,
    AdapterOrigin,
    local_adapter_files,
    read_bounded,
    require_adapter_files,
)
from surogate_bench.inputs.hub_models import hub_explained
from surogate_bench.processes.logs import take_over_logs
from surogate_bench.specs import ForeignAdapter
from surogate_bench.store.object_store import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedAdapter:
    """Copies of an adapter's files, and where exactly they are from."""

    config: Path
    weights: Path
    source: str
    revision: str | None
    """Commit of an adapter of the hub."""


def fetch_adapter(adapter: ForeignAdapter, folder: Path, *, largest: int) -> FetchedAdapter:
    """Copy configuration and weights of an adapter into ``folder``, and nothing else.

    Args:
        adapter: Its entry in the sweep.
        folder: Gets the files.
        largest: Bytes that its weights may have.

    Raises:
        ConfigError: there is no such adapter, a file is missing, not a regular file, or too large.
        TransientError: the hub or the store is unavailable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    limits = limits_of(largest)
    if adapter.url is not None:
        _from_store(adapter, adapter.url, folder, limits)
        source, revision = adapter.url, None
    elif adapter.hub is not None:
        revision = _from_hub(adapter, adapter.hub, folder, limits)
        source = f"{adapter.hub}@{revision}"
    else:
        copy_adapter(adapter, local_adapter_files(adapter, Path(str(adapter.path))), folder, limits)
        source, revision = str(adapter.path), None
    return FetchedAdapter(
        config=folder / ADAPTER_CONFIG_FILE, weights=folder / ADAPTER_WEIGHTS_FILE, source=source, revision=revision
    )


def limits_of(largest: int) -> dict[str, int]:
    """Return the bytes that each file of an adapter may have, given those of its weights."""
    return {ADAPTER_CONFIG_FILE: LARGEST_CONFIG, ADAPTER_WEIGHTS_FILE: largest}


def copy_adapter(adapter: AdapterOrigin, files: dict[str, Path], folder: Path, limits: dict[str, int]) -> None:
    """Copy the files of an adapter that is on this machine.

    Args:
        adapter: For messages.
        files: From :func:`local_adapter_files`.
        folder: Gets the copies.
        limits: Bytes that each may have.

    Raises:
        ConfigError: a file is too large, or not a regular file.
    """
    for name, path in files.items():
        data = read_bounded(path, limits[name])
        if data is None:
            raise _too_large(adapter, name, path.stat().st_size, limits[name])
        (folder / name).write_bytes(data)


def _from_store(adapter: ForeignAdapter, url: str, folder: Path, limits: dict[str, int]) -> None:
    try:
        store = open_store(url, create=False)
    except ConfigError as error:  # of the store's own setting
        raise ConfigError(error.problem, field=adapter.field, value=url, remedy=error.remedy) from error
    sizes = {name: store.size(name) for name in ADAPTER_FILES}
    others = [] if None not in sizes.values() else [info.key for info in store.list("")]
    require_adapter_files(adapter, [*(name for name, size in sizes.items() if size is not None), *others])
    for name, size in sizes.items():
        data = store.get(name) if size is not None and size <= limits[name] else None
        if data is None or len(data) > limits[name]:
            raise _too_large(adapter, name, size or 0, limits[name])
        (folder / name).write_bytes(data)


def _from_hub(adapter: ForeignAdapter, name: str, folder: Path, limits: dict[str, int]) -> str:
    """Download into the hub's cache and copy from there; returns the commit."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - start-up time
    from huggingface_hub.errors import DryRunError  # noqa: PLC0415
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

    take_over_logs("huggingface_hub")
    disable_progress_bars()
    revision = adapter.revision
    with hub_explained(name, field=adapter.field, kind="adapter"):
        try:
            for file in snapshot_download(name, revision=revision, allow_patterns=list(ADAPTER_FILES), dry_run=True):
                revision = file.commit_hash
                if (file.file_size or 0) > limits[file.filename]:
                    raise _too_large(adapter, file.filename, file.file_size or 0, limits[file.filename])
        except DryRunError:
            pass  # the hub is unavailable: the cache is used, or the error says what it lacks
        snapshot = Path(snapshot_download(name, revision=revision, allow_patterns=list(ADAPTER_FILES)))
    copy_adapter(adapter, local_adapter_files(adapter, snapshot, root=snapshot.parent.parent), folder, limits)
    return snapshot.name


def _too_large(adapter: AdapterOrigin, name: str, size: int, limit: int) -> ConfigError:
    return ConfigError(
        f"{name} has {size:,} bytes, more than the {limit:,} that an adapter of this model can have at "
        "serving.max_lora_rank",
        field=adapter.field,
        value=adapter.label,
        remedy="Give the adapter itself, not a merged model; or raise serving.max_lora_rank.",
    )
