"""The object store: S3, GCS, Azure or a local folder, through obstore.

Completion rests on conditional writes (create only if absent). Some S3 servers accept the condition and ignore it, so
:meth:`ObjectStore.verify_conditional_writes` proves it once per store before anything relies on it.
"""

import builtins
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, from_url

from surogate_bench.errors import ConfigError, PermanentError, StoreRefusedError
from surogate_bench.store.environment import blamed_variable, check_environment, without_empty_variables
from surogate_bench.store.errors import as_bad_input, translated
from surogate_bench.store.location import FIELD, parse_location
from surogate_bench.store.waiting import NOTICE_AFTER, WaitingNotice
from surogate_bench.user_paths import require_folder, unwritable

_REQUEST_TIMEOUT = timedelta(seconds=30)
_PROBE_TIMEOUT = timedelta(seconds=5)
PATIENCE = timedelta(seconds=60)
"""How long a request is retried while the store is unavailable: a restart of the store must not fail an attempt of a
stage."""
_RETRIES = 1000
"""More than fit into that time, which is the effective limit."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object: key relative to the store's root, size in bytes, time of its last write."""

    key: str
    size: int
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """Objects by key. Methods raise StoreAwayError if the store is unavailable, and StoreRefusedError if it refuses."""

    url: str
    _backend: Any = field(repr=False)
    _waiting: WaitingNotice | None = field(default=None, repr=False)

    def put(self, key: str, data: bytes) -> None:
        """Write an object atomically, replacing an existing one."""
        with self._request(key, writes=True):
            obstore.put(self._backend, key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless it exists; return True to exactly one of several writers."""
        try:
            with self._request(key, writes=True):
                obstore.put(self._backend, key, data, mode="create")
        except FileExistsError:
            return False
        return True

    def get(self, key: str) -> bytes | None:
        """Read an object; None if it does not exist."""
        try:
            with self._request(key, may_be_missing=True):
                return bytes(obstore.get(self._backend, key).bytes())
        except KeyError:
            return None

    def exists(self, key: str) -> bool:
        """Return whether an object exists."""
        try:
            with self._request(key, may_be_missing=True):
                obstore.head(self._backend, key)
        except KeyError:
            return False
        except StoreRefusedError:  # the answer to HEAD has no body with a reason
            return self.get(key) is not None
        return True

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes; None if it does not exist."""
        try:
            with self._request(key, may_be_missing=True):
                return int(obstore.head(self._backend, key)["size"])
        except KeyError:
            return None

    def list(self, prefix: str) -> builtins.list[ObjectInfo]:
        """List every object under ``prefix``, sorted by key."""
        with self._request(prefix):
            found = [
                ObjectInfo(key=item["path"], size=item["size"], last_modified=item["last_modified"])
                for chunk in obstore.list(self._backend, prefix=prefix)
                for item in chunk
            ]
        return sorted(found, key=lambda info: info.key)

    def delete(self, keys: builtins.list[str]) -> None:
        """Delete objects; missing ones are ignored."""
        for key in keys:
            try:
                with self._request(key, may_be_missing=True):
                    obstore.delete(self._backend, key)
            except KeyError:
                continue

    def put_tree(self, prefix: str, folder: Path) -> None:
        """Upload every file under ``folder`` to ``prefix``."""
        for name, path in walk_files(folder):
            with self._request(f"{prefix}/{name}", writes=True):
                obstore.put(self._backend, f"{prefix}/{name}", path)

    def fetch_tree(self, prefix: str, folder: Path) -> builtins.list[Path]:
        """Download every object under ``prefix`` into ``folder``; returns the files written.

        Raises:
            PermanentError: a key would leave ``folder``.
            OSError: a file cannot be written.
        """
        written = []
        for info in self.list(prefix):
            relative = PurePosixPath(info.key).relative_to(prefix)
            if ".." in relative.parts:
                raise PermanentError(f"object {info.key!r} in {self.url} would be written outside {folder}")
            target = folder.joinpath(*relative.parts)
            if (data := self.get(info.key)) is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                written.append(target)
        return written

    def verify_conditional_writes(self) -> None:
        """Verify that the second of two conditional creations of one key is refused.

        Raises:
            ConfigError: the store refuses writes, or ignores the condition.
            StoreAwayError: it is unavailable.
        """
        key = f".probes/{uuid.uuid4().hex}"
        try:
            first, second = self.create(key, b"first"), self.create(key, b"second")
        except StoreRefusedError as error:
            raise as_bad_input(error, self.url) from error
        self.delete([key])
        if not first or second:
            raise ConfigError(
                "accepts conditional writes but ignores the condition, so two writers could both win",
                field=FIELD,
                value=self.url,
                remedy="Use a store that honours If-None-Match (versitygw: without --nometa).",
            )

    @contextmanager
    def _request(self, key: str, *, writes: bool = False, may_be_missing: bool = False) -> Iterator[None]:
        with translated(self.url, key, may_be_missing=may_be_missing):
            if self._waiting is None:
                yield
                return
            with self._waiting.watch(writes=writes):
                yield


def open_store(
    location: str, *, create: bool = True, patience: timedelta = PATIENCE, notice_after: timedelta = NOTICE_AFTER
) -> ObjectStore:
    """Open a store by URL (``s3://bucket/prefix``, ``gs://``, ``az://``, ``file:///folder``) or local folder.

    Credentials and endpoints come from the usual environment variables (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``…).

    Args:
        location: Location of the store; see :mod:`surogate_bench.store.location`.
        create: Create a local folder that does not exist. If False, a missing folder reads as an empty store, and
            nothing is written.
        patience: How long a request to a remote store is retried while it is unavailable.
        notice_after: Delay of the warning about a request that waits for a remote store.

    Raises:
        ConfigError: the location or an environment variable cannot be used, or the local folder cannot be created.
    """
    place = parse_location(location)
    if isinstance(place, str):
        return _open_remote(place, patience, notice_after)
    require_folder(place, field=FIELD)
    if not create and not place.exists():
        return ObjectStore(url=place.as_uri(), _backend=MemoryStore())
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(place, f"cannot be created: {error.strerror}", field=FIELD) from error
    return ObjectStore(url=place.as_uri(), _backend=LocalStore(place, automatic_cleanup=True, mkdir=True))


def _open_remote(url: str, patience: timedelta, notice_after: timedelta) -> ObjectStore:
    scheme = url.partition(":")[0]
    check_environment(scheme)
    try:
        with without_empty_variables(scheme):
            backend = _connect(url, timeout=_REQUEST_TIMEOUT, patience=patience)
            probe = _connect(url, timeout=_PROBE_TIMEOUT, patience=timedelta(0))
    except (BaseError, ValueError) as error:
        if blamed := blamed_variable(scheme, str(error)):
            raise blamed from error
        raise ConfigError(
            f"cannot be opened: {str(error).partition(chr(10))[0]}", field=FIELD, value=url, remedy="Check the URL."
        ) from error
    waiting = WaitingNotice(url, probe, patience=patience, after=notice_after)
    return ObjectStore(url=url, _backend=backend, _waiting=waiting)


def _connect(url: str, *, timeout: timedelta, patience: timedelta) -> Any:  # noqa: ANN401 - a class per provider
    return from_url(
        url,
        client_options={"timeout": timeout, "allow_http": True},
        retry_config={"retry_timeout": patience, "max_retries": _RETRIES if patience else 0},
    )


def walk_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (POSIX path relative to ``folder``, path) of every file under it, in sorted order."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield path.relative_to(folder).as_posix(), path
