"""Find and remove stages and checkpoints that no sweep in a store needs any more.

A sweep that is edited gets another spec hash, and with it another folder, which refers to the stages of the old one
that are still valid. In use are, of each sweep name, the version used last and the last one with a result, and every
version that is locked. Their stages, and the stages that they refer to, are kept. The rest is garbage: superseded
versions, and checkpoints of finished training runs. A superseded version with a report is complete; it is listed, and
removed only on request.

Removal is safe while sweeps run: a version is locked before anything of it is deleted; manifests are deleted first, so
that no new references are written, and references are read once more before files are deleted.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime

from surogate_bench.layout import SWEEPS, SweepLayout, manifest_key
from surogate_bench.stages.publication import read_manifest
from surogate_bench.store.object_store import ObjectInfo, ObjectStore
from surogate_bench_orchestrator.ports import Clock
from surogate_bench_orchestrator.sweep.locks import SweepLock, sweep_lock

_MANIFEST = manifest_key("")
_CHECKPOINTS = "/train/checkpoints/"
_DELETE_BATCH = 50
"""Objects deleted between two renewals of the locks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Objects of one version of a sweep that can be removed."""

    sweep: str
    spec_hash: str
    last_used: datetime
    superseded: bool
    """False for a version in use, of which only left-over checkpoints are removed."""
    complete: bool = False
    """Whether it has a report: a result that may be of use, although the sweep was edited since."""
    objects: tuple[ObjectInfo, ...]
    kept_stages: tuple[str, ...]
    """Prefixes of stages that other sweeps refer to."""
    busy: str = ""
    """Holder of its lock; nothing of it is removed while there is one."""

    @property
    def layout(self) -> SweepLayout:
        """Return the keys of the version."""
        return SweepLayout(self.sweep, self.spec_hash)

    @property
    def size(self) -> int:
        """Return the number of bytes that removal frees."""
        return sum(info.size for info in self.objects)


def find_garbage(
    objects: Iterable[ObjectInfo], references: Collection[str], busy: Mapping[SweepLayout, str]
) -> tuple[Garbage, ...]:
    """Return what can be removed, by sweep name, the oldest version first.

    Args:
        objects: All objects of all sweeps.
        references: Prefixes of stages that versions in use refer to.
        busy: Holders of the locks of versions.
    """
    versions = group_by_version(objects)
    current = current_versions(versions)
    found = []
    for layout, infos in versions.items():
        superseded = layout not in current
        kept = tuple(sorted(prefix for prefix in references if prefix.startswith(f"{layout.root}/")))
        removable = tuple(info for info in infos if _is_garbage(info.key, layout, infos, kept, superseded=superseded))
        if removable:
            garbage = Garbage(
                sweep=layout.name,
                spec_hash=layout.spec_hash,
                last_used=_last_used(layout, infos),
                superseded=superseded,
                complete=superseded and any(info.key.startswith(f"{layout.report}/") for info in infos),
                objects=removable,
                kept_stages=kept,
                busy=busy.get(layout, ""),
            )
            found.append(garbage)
    return tuple(sorted(found, key=lambda garbage: (garbage.sweep, garbage.last_used, garbage.spec_hash)))


def list_garbage(store: ObjectStore, clock: Clock) -> tuple[Garbage, ...]:
    """Return what can be removed from a store, with the holders of locks.

    Raises:
        TransientError: the store is unavailable.
    """
    objects = store.list(f"{SWEEPS}/")
    versions = group_by_version(objects)
    holders = {layout: sweep_lock(store, layout, clock).holder() for layout in versions}
    busy = {layout: str(holder) for layout, holder in holders.items() if holder is not None}
    in_use = current_versions(versions) | busy.keys()
    return find_garbage(objects, _references(store, versions, in_use), busy)


def remove(store: ObjectStore, found: Sequence[Garbage], clock: Clock) -> tuple[Garbage, ...]:
    """Remove garbage, except for locked versions, and stages that have been referred to since they were listed.

    Returns:
        What was removed.

    Raises:
        TransientError: the store is unavailable; listing and removing again continues.
        LeaseLostError: the store answered so slowly that another process acquired the lock of a version; likewise.
    """
    with ExitStack() as held:
        free, locks = [], []
        for garbage in found:
            lock = sweep_lock(store, garbage.layout, clock)
            if lock.try_acquire():
                held.callback(lock.release)
                free.append(garbage)
                locks.append(lock)
        manifests = {info.key: store.get(info.key) for each in free for info in each.objects if _is_manifest(info.key)}
        _delete(store, list(manifests), locks)
        versions = group_by_version(store.list(f"{SWEEPS}/"))
        going = {garbage.layout for garbage in free if garbage.superseded}
        references = _references(store, versions, versions.keys() - going)
        _restore(store, manifests, references)
        removed = []
        for garbage in free:
            gone = tuple(info for info in garbage.objects if not _is_below(info.key, references))
            _delete(store, [info.key for info in gone], locks)
            removed.append(replace(garbage, objects=gone))
    return tuple(garbage for garbage in removed if garbage.objects)


def _delete(store: ObjectStore, keys: Sequence[str], locks: Iterable[SweepLock]) -> None:
    """Delete objects while every lock is held, so that no other process writes them at the same time."""
    for start in range(0, len(keys), _DELETE_BATCH):
        for lock in locks:
            lock.renew()
        store.delete(list(keys[start : start + _DELETE_BATCH]))


def _restore(store: ObjectStore, manifests: Mapping[str, bytes | None], references: Collection[str]) -> None:
    for key, data in manifests.items():
        if data is not None and _is_below(key, references):
            store.create(key, data)


def group_by_version(objects: Iterable[ObjectInfo]) -> dict[SweepLayout, list[ObjectInfo]]:
    """Group objects by the version of a sweep that they belong to."""
    versions: dict[SweepLayout, list[ObjectInfo]] = {}
    for info in objects:
        parts = info.key.split("/")
        if len(parts) > 3:  # noqa: PLR2004 - sweeps/name/hash/...
            versions.setdefault(SweepLayout(parts[1], parts[2]), []).append(info)
    return versions


def current_versions(versions: Mapping[SweepLayout, Sequence[ObjectInfo]]) -> set[SweepLayout]:
    """Return, for each name, the version used last and the last one with a result: a failed version supersedes none."""
    newest: dict[tuple[str, bool], SweepLayout] = {}
    for layout in sorted(versions, key=lambda each: (_last_used(each, versions[each]), each.spec_hash)):
        scored = any(info.key.endswith(f"/eval{_MANIFEST}") for info in versions[layout])
        newest |= {(layout.name, False): layout} | ({(layout.name, True): layout} if scored else {})
    return set(newest.values())


def _last_used(layout: SweepLayout, infos: Sequence[ObjectInfo]) -> datetime:
    """Return when the spec was written: every run of the sweep writes it again."""
    spec = [info.last_modified for info in infos if info.key == layout.spec]
    return spec[0] if spec else max(info.last_modified for info in infos)


def _is_garbage(
    key: str, layout: SweepLayout, infos: Sequence[ObjectInfo], kept: Sequence[str], *, superseded: bool
) -> bool:
    run, found, _ = key.partition(_CHECKPOINTS)
    if found and any(info.key == f"{run}/train{_MANIFEST}" for info in infos):
        return True
    if not superseded or _is_below(key, kept):
        return False
    # The description of the kept stages: without it they could not be found again.
    describes = key == layout.spec or key.startswith(f"{layout.prepare}/")
    return not (kept and describes)


def _is_below(key: str, prefixes: Collection[str]) -> bool:
    return any(key.startswith(f"{prefix}/") for prefix in prefixes)


def _is_manifest(key: str) -> bool:
    return key.endswith(_MANIFEST)


def _references(
    store: ObjectStore, versions: Mapping[SweepLayout, Sequence[ObjectInfo]], in_use: Iterable[SweepLayout]
) -> frozenset[str]:
    """Return the prefixes of the stages that versions in use refer to."""
    keys = [info.key for layout in in_use for info in versions[layout] if _is_manifest(info.key)]
    manifests = [read_manifest(store, key.removesuffix(_MANIFEST)) for key in keys]
    return frozenset(found.reused_from for found in manifests if found is not None and found.reused_from)
