"""One orchestrator at a time per sweep and store.

On a local store the kernel holds the lock (``flock``) and releases it when its holder dies. On a remote store it is a
lease: numbered objects made by conditional creation, of which the highest counts. A lease that its holder has not
renewed in time is succeeded by the next number, which exactly one process can create; the old holder notices at its
next renewal and stops. Clocks of machines that share a store may differ by less than the duration of a lease.
"""

import fcntl
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import override

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.layout import SweepLayout
from surogate_bench.stages.model_source import local_folder
from surogate_bench.store.object_store import ObjectStore
from surogate_bench.user_paths import unwritable
from surogate_bench_orchestrator.ports import Clock

LEASE_DURATION_S = 120.0
_RENEW_EVERY_S = 20.0
_RETRY_EVERY_S = 0.5
_LOCKS = ".locks"


class SweepBusyError(TransientError):
    """Another process holds the lock of the sweep."""


class LeaseLostError(PermanentError):
    """The lease expired, and another process acquired it."""


class Holder(BaseModel):
    """The process that holds the lock of a sweep."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    since: datetime = Field(default_factory=lambda: datetime.now(UTC))
    token: str = Field(default_factory=lambda: uuid.uuid4().hex)
    title: str = ""
    """Name to show; empty for a command that a user has started."""
    expires: float = 0.0
    """When a lease expires, in seconds since 1970; 0 for a lock file."""

    def __str__(self) -> str:
        who = self.title or f"process {self.pid}"
        return f"{who} on {self.host} since {self.since:%Y-%m-%d %H:%M:%S} UTC"


class SweepLock(Protocol):
    """The lock of a sweep."""

    def try_acquire(self) -> bool:
        """Acquire the lock if no other process holds it; return whether this process holds it."""
        ...

    def holder(self) -> Holder | None:
        """Return the current holder; None if there is none, or if it is not known."""
        ...

    def renew(self) -> None:
        """Renew it; call this often."""
        ...

    def release(self) -> None:
        """Release it."""
        ...


@contextmanager
def hold(
    lock: SweepLock, clock: Clock, *, wait: bool, notify: Callable[[str], None], check: Callable[[], None]
) -> Iterator[None]:
    """Hold the lock of a sweep for the duration of a with block.

    Args:
        lock: The lock.
        clock: For waiting.
        wait: Wait until another holder has released it, as long as that takes.
        notify: Called once before waiting, with a message that names the holder.
        check: Called while waiting; raises to give up.

    Raises:
        SweepBusyError: another process holds it, and ``wait`` is false.
    """
    retried = False
    while not lock.try_acquire():
        message = f"this sweep is in use by {lock.holder() or 'another process'}"
        if retried and not wait:
            raise SweepBusyError(f"{message}; leave out --no-wait to wait for it")
        if wait and not retried:
            notify(f"{message}; waiting for it to finish")
        retried = True  # one retry before failing: a process that only reads the holder locks the file for a moment
        check()
        clock.sleep(_RETRY_EVERY_S)
    try:
        yield
    finally:
        lock.release()


def sweep_lock(store: ObjectStore, layout: SweepLayout, clock: Clock) -> SweepLock:
    """Return the lock of a sweep, of the kind that the store requires."""
    folder = local_folder(store)
    return FileLock(folder / f"{_lock_key(layout)}.lock") if folder else Lease(store, _lock_key(layout), clock)


def resource_lease(store: ObjectStore, layout: SweepLayout, clock: Clock, *, uid: str, title: str) -> SweepLock:
    """Return the lock of a sweep that is a resource in a cluster, for any replica of its controller.

    Args:
        store: Holds its results.
        layout: Its keys in the store.
        clock: For renewals.
        uid: The resource's uid. A replica that continues where another was killed acquires the lease at once.
        title: Name of the holder, for messages of other processes.
    """
    return Lease(store, _lock_key(layout), clock, token=uid, title=title)


def _lock_key(layout: SweepLayout) -> str:
    return f"{_LOCKS}/{layout.name}-{layout.spec_hash}"


class FileLock(SweepLock):
    """Lock on a local file, which names the holder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @override
    def try_acquire(self) -> bool:
        """Acquire the lock if no other process holds it; return whether this process holds it.

        Raises:
            ConfigError: the file cannot be made.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise unwritable(self._path.parent.parent, f"cannot be written: {error.strerror}", field="store") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, Holder().model_dump_json().encode())
        self._descriptor = descriptor
        return True

    @override
    def holder(self) -> Holder | None:
        try:
            with self._path.open("rb") as file:
                if self._descriptor is None and _is_free(file.fileno()):
                    return None
                return Holder.model_validate_json(file.read())
        except (OSError, ValidationError):
            return None

    @override
    def renew(self) -> None:
        pass  # the kernel holds it

    @override
    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_free(descriptor: int) -> bool:
    """Try to get a shared lock, which an exclusive one prevents; closing the file releases it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Lease(SweepLock):
    """Lease on an object store.

    Args:
        store: Holds its objects.
        prefix: Prefix of their keys.
        clock: For renewals.
        token: Identifies the holder: processes with the same token hold the lease together. None for a new one.
        title: Name of the holder, for messages of other processes.
    """

    def __init__(
        self, store: ObjectStore, prefix: str, clock: Clock, *, token: str | None = None, title: str = ""
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._clock = clock
        self._identity = {"title": title} | ({"token": token} if token else {})
        self._mine: tuple[str, Holder] | None = None
        self._renewed = 0.0

    @override
    def try_acquire(self) -> bool:
        keys = self._keys()
        current = self._read(keys[-1]) if keys else None
        mine = Holder.model_validate({**self._identity, "expires": time.time() + LEASE_DURATION_S})
        if current is not None and current.expires > time.time():
            if current.token != mine.token:
                return False
            self._put(keys[-1], mine, expires=mine.expires)
            self._mine, self._renewed = (keys[-1], mine), self._clock.now()
            return True
        number = int(keys[-1].rpartition("/")[2].removesuffix(".json")) + 1 if keys else 0
        key = f"{self._prefix}/{number:08d}.json"
        if not self._store.create(key, mine.model_dump_json().encode()):
            return False
        self._mine, self._renewed = (key, mine), self._clock.now()
        self._store.delete(keys)
        return True

    @override
    def holder(self) -> Holder | None:
        keys = self._keys()
        current = self._read(keys[-1]) if keys else None
        return current if current and current.expires > time.time() else None

    @override
    def renew(self) -> None:
        """Renew it; call this often.

        Raises:
            LeaseLostError: it expired, and another process acquired it.
        """
        if self._mine is None or self._clock.now() - self._renewed < _RENEW_EVERY_S:
            return
        key, holder = self._mine
        if self._keys()[-1:] != [key]:
            self._mine = None
            raise LeaseLostError(f"the sweep was taken over by {self.holder()}: the lease of this process had expired")
        self._put(key, holder, expires=time.time() + LEASE_DURATION_S)
        self._renewed = self._clock.now()

    @override
    def release(self) -> None:
        """Release it; the object stays, expired, so that numbers never decrease."""
        if self._mine is not None:
            key, holder = self._mine
            self._mine = None
            if self._keys()[-1:] == [key]:
                self._put(key, holder, expires=0.0)

    def _put(self, key: str, holder: Holder, *, expires: float) -> None:
        self._store.put(key, holder.model_copy(update={"expires": expires}).model_dump_json().encode())

    def _keys(self) -> list[str]:
        return [info.key for info in self._store.list(f"{self._prefix}/")]

    def _read(self, key: str) -> Holder | None:
        raw = self._store.get(key)
        try:
            return None if raw is None else Holder.model_validate_json(raw)
        except ValidationError:
            return None
