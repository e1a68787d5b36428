"""One orchestrator at a time per sweep and store.

On a local store the kernel keeps the lock (``flock``) and releases it when its holder dies. On a remote store it is a
lease: numbered objects made with conditional creates, of which the highest counts. A lease that its holder has not
renewed in time is succeeded by the next number, which exactly one can create; the old holder finds that at its next
renewal and stops. Clocks of machines that share a store may differ by less than the lease's life.
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

from surogate_bench.errors import ConfigError, PermanentError, TransientError
from surogate_bench.layout import SweepLayout
from surogate_bench.model_source import local_folder
from surogate_bench.store import ObjectStore
from surogate_bench_orchestrator.ports import Clock

LEASE_LIFE_S = 120.0
_RENEW_EVERY_S = 20.0
_ASK_EVERY_S = 0.5
_LOCKS = ".locks"


class SweepBusyError(TransientError):
    """Another process works on the sweep."""


class LeaseLostError(PermanentError):
    """A lease had expired, and another process took it."""


class Holder(BaseModel):
    """Who holds a sweep."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    since: datetime = Field(default_factory=lambda: datetime.now(UTC))
    token: str = Field(default_factory=lambda: uuid.uuid4().hex)
    title: str = ""
    """What it calls itself; empty for a process that works for itself."""
    expires: float = 0.0
    """Of a lease: seconds since 1970."""

    def __str__(self) -> str:
        who = self.title or f"process {self.pid}"
        return f"{who} on {self.host} since {self.since:%Y-%m-%d %H:%M:%S} UTC"


class SweepLock(Protocol):
    """Held or not."""

    def try_acquire(self) -> bool:
        """Take it if nobody has it."""
        ...

    def holder(self) -> Holder | None:
        """Who has it now; None if nobody has, or it is not known who."""
        ...

    def renew(self) -> None:
        """Keep it; call this often."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...


@contextmanager
def hold(
    lock: SweepLock, clock: Clock, *, wait: bool, tell: Callable[[str], None], check: Callable[[], None]
) -> Iterator[None]:
    """Hold a sweep's lock.

    Args:
        lock: What to hold.
        clock: For waiting.
        wait: Wait for another holder to finish, as long as that takes.
        tell: Called once with who holds it, before waiting.
        check: Called while waiting; raises to give up.

    Raises:
        SweepBusyError: another process holds it, and ``wait`` is False.
    """
    told = False
    while not lock.try_acquire():
        message = f"this sweep is being worked on by {lock.holder() or 'another process'}"
        if told and not wait:
            raise SweepBusyError(f"{message}; leave out --no-wait to wait for it")
        if wait and not told:
            tell(f"{message}; waiting for it to finish")
        told = True  # asked twice before refusing: somebody who only looks holds it for a moment
        check()
        clock.sleep(_ASK_EVERY_S)
    try:
        yield
    finally:
        lock.release()


def sweep_lock(store: ObjectStore, layout: SweepLayout, clock: Clock) -> SweepLock:
    """Choose the lock that suits a store."""
    folder = local_folder(store)
    return FileLock(folder / f"{_lock_key(layout)}.lock") if folder else Lease(store, _lock_key(layout), clock)


def resource_lease(store: ObjectStore, layout: SweepLayout, clock: Clock, *, uid: str, title: str) -> SweepLock:
    """Lock for a sweep that is a resource in a cluster, whichever replica of its controller works on it.

    Args:
        store: Where its results go.
        layout: Of the sweep.
        clock: For renewals.
        uid: Of the resource. A replica that goes on where another was killed takes the lease over at once.
        title: What others are told of the holder.
    """
    return Lease(store, _lock_key(layout), clock, token=uid, title=title)


def _lock_key(layout: SweepLayout) -> str:
    return f"{_LOCKS}/{layout.name}-{layout.spec_hash}"


class FileLock:
    """Lock on a local file; the file says who holds it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """See :class:`SweepLock`.

        Raises:
            ConfigError: the file cannot be made.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(
                f"cannot be written: {error.strerror}",
                field="store",
                value=str(self._path.parent.parent),
                remedy="Choose a folder you may write.",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, Holder().model_dump_json().encode())
        self._descriptor = descriptor
        return True

    def holder(self) -> Holder | None:
        """See :class:`SweepLock`."""
        try:
            with self._path.open("rb") as file:
                if self._descriptor is None and _is_free(file.fileno()):
                    return None
                return Holder.model_validate_json(file.read())
        except (OSError, ValidationError):
            return None

    def renew(self) -> None:
        """Nothing to do: the kernel keeps it."""

    def release(self) -> None:
        """See :class:`SweepLock`."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_free(descriptor: int) -> bool:
    """Take a shared lock, which an exclusive one refuses; closing the file gives it back."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Lease:
    """Lease on an object store.

    Args:
        store: Where it lies.
        prefix: Of its objects.
        clock: For renewals.
        token: Whoever comes with the token of the holder has the lease, too; None for one that nobody else has.
        title: What others are told of the holder.
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

    def try_acquire(self) -> bool:
        """See :class:`SweepLock`."""
        keys = self._keys()
        current = self._read(keys[-1]) if keys else None
        mine = Holder.model_validate({**self._identity, "expires": time.time() + LEASE_LIFE_S})
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

    def holder(self) -> Holder | None:
        """See :class:`SweepLock`."""
        keys = self._keys()
        current = self._read(keys[-1]) if keys else None
        return current if current and current.expires > time.time() else None

    def renew(self) -> None:
        """See :class:`SweepLock`.

        Raises:
            LeaseLostError: it expired and another process took it.
        """
        if self._mine is None or self._clock.now() - self._renewed < _RENEW_EVERY_S:
            return
        key, holder = self._mine
        if self._keys()[-1:] != [key]:
            self._mine = None
            raise LeaseLostError(f"the sweep was taken over by {self.holder()}: this process had not renewed its lease")
        self._put(key, holder, expires=time.time() + LEASE_LIFE_S)
        self._renewed = self._clock.now()

    def release(self) -> None:
        """See :class:`SweepLock`; the object stays, expired, so that numbers never go back."""
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
