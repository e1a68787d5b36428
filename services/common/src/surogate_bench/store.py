"""The object store: S3, GCS, Azure or a local folder, through obstore.

Completion rests on conditional writes (create only if absent). Some S3 servers accept the condition and ignore it, so
:meth:`ObjectStore.verify_conditional_writes` proves it once per store before anything relies on it.
"""

import builtins
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, MemoryStore, from_url

from surogate_bench.errors import ConfigError, PermanentError, TransientError

_REQUEST_TIMEOUT = timedelta(seconds=30)
PATIENCE = timedelta(seconds=60)
"""How long a request is repeated while the store is away: a restart of it must cost no attempt of a stage."""
_RETRIES = 1000
"""More than fit into that time, which alone decides."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object: key relative to the store's root, size in bytes, time of its last write."""

    key: str
    size: int
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """Objects by key. Every method raises TransientError when the store is away and PermanentError when it refuses."""

    url: str
    _backend: Any = field(repr=False)

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing what was there; a reader sees the old or the new one, never a mixture."""
        with _translated(self.url, key):
            obstore.put(self._backend, key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless it exists; of several writers exactly one gets True."""
        try:
            with _translated(self.url, key):
                obstore.put(self._backend, key, data, mode="create")
        except FileExistsError:
            return False
        return True

    def get(self, key: str) -> bytes | None:
        """Read an object; None where there is none."""
        try:
            with _translated(self.url, key):
                return bytes(obstore.get(self._backend, key).bytes())
        except KeyError:
            return None

    def exists(self, key: str) -> bool:
        """Say whether there is such an object."""
        try:
            with _translated(self.url, key):
                obstore.head(self._backend, key)
        except KeyError:
            return False
        return True

    def list(self, prefix: str) -> builtins.list[ObjectInfo]:
        """List every object under ``prefix``, sorted by key."""
        with _translated(self.url, prefix):
            found = [
                ObjectInfo(key=item["path"], size=item["size"], last_modified=item["last_modified"])
                for chunk in obstore.list(self._backend, prefix=prefix)
                for item in chunk
            ]
        return sorted(found, key=lambda info: info.key)

    def delete(self, keys: builtins.list[str]) -> None:
        """Delete objects; those already gone are no error."""
        for key in keys:
            try:
                with _translated(self.url, key):
                    obstore.delete(self._backend, key)
            except KeyError:
                continue

    def put_tree(self, prefix: str, folder: Path) -> None:
        """Upload every file under ``folder`` to ``prefix``."""
        for name, path in walk_files(folder):
            with _translated(self.url, prefix):
                obstore.put(self._backend, f"{prefix}/{name}", path)

    def fetch_tree(self, prefix: str, folder: Path) -> builtins.list[Path]:
        """Download every object under ``prefix`` into ``folder``; returns the files written.

        Raises:
            PermanentError: a key would leave ``folder``.
        """
        written = []
        for info in self.list(prefix):
            relative = PurePosixPath(info.key).relative_to(prefix)
            if ".." in relative.parts:
                raise PermanentError(f"object {info.key!r} in {self.url} would be written outside {folder}")
            target = folder.joinpath(*relative.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with _translated(self.url, info.key), target.open("wb") as out:
                for chunk in obstore.get(self._backend, info.key).stream():
                    out.write(chunk)
            written.append(target)
        return written

    def verify_conditional_writes(self) -> None:
        """Prove that the second of two creates of one key is refused.

        Raises:
            ConfigError: the store cannot be written, or ignores the condition.
        """
        key = f".probes/{uuid.uuid4().hex}"
        try:
            first, second = self.create(key, b"first"), self.create(key, b"second")
        except KeyError as error:  # S3's answer where the bucket is missing, and some servers' for an unknown key
            raise ConfigError(
                f"there is no such bucket, or no such access key ({_words_of(error)})",
                field="store",
                value=self.url,
                remedy="Make the bucket, or correct the URL or the credentials.",
            ) from error
        except PermanentError as error:
            raise ConfigError(
                f"cannot be written: {error}",
                field="store",
                value=self.url,
                remedy="Check that it exists and the rights to write.",
            ) from error
        self.delete([key])
        if not first or second:
            raise ConfigError(
                "accepts conditional writes but ignores the condition, so two writers could both win",
                field="store",
                value=self.url,
                remedy="Use a store that honours If-None-Match (versitygw: without --nometa).",
            )


_S3_MESSAGE = re.compile(r"<Message>([^<]+)</Message>")


def _words_of(error: BaseException) -> str:
    """What the server said."""
    text = str(error.__cause__ or error).strip()
    found = _S3_MESSAGE.search(text)
    return found.group(1) if found else text.partition("\n")[0]


class _translated:  # noqa: N801 - reads as a verb where it is used
    """Turn obstore's errors into ours; a missing key becomes KeyError and an existing one FileExistsError."""

    def __init__(self, url: str, key: str) -> None:
        self._where = f"{key!r} in {url}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (NotFoundError, FileNotFoundError)):
            raise KeyError(self._where) from error
        if isinstance(error, (AlreadyExistsError, FileExistsError)):
            raise FileExistsError(self._where) from error
        if isinstance(error, (PermissionDeniedError, UnauthenticatedError, PermissionError)):
            raise PermanentError(f"access to {self._where} was denied") from error
        if isinstance(error, OSError):
            raise PermanentError(f"{self._where}: {error.strerror or error}") from error
        if isinstance(error, BaseError):
            message = str(error).split("\n", maxsplit=1)[0]
            if "No space left" in str(error) or "Permission denied" in str(error) or "Not a directory" in str(error):
                raise PermanentError(f"{self._where}: {message}") from error
            raise TransientError(f"{self._where}: {message}") from error


def open_store(location: str, *, create: bool = True, patience: timedelta = PATIENCE) -> ObjectStore:
    """Open a store by URL (``s3://bucket/prefix``, ``gs://``, ``az://``, ``file:///folder``) or local folder.

    Credentials and endpoints come from the usual environment variables (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``…).

    Args:
        location: Where it is.
        create: Make a local folder that is not there. False is for looking only: a missing folder looks like an empty
            store, and nothing is written anywhere.
        patience: How long a request to a remote store is repeated while that is away.

    Raises:
        ConfigError: the scheme is unknown or the local folder cannot be made.
    """
    scheme = urlparse(location).scheme
    if scheme in {"", "file"}:
        folder = Path(urlparse(location).path if scheme else location).expanduser().resolve()
        if not create and not folder.exists():
            return ObjectStore(url=folder.as_uri(), _backend=MemoryStore())
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot be created: {error.strerror}",
                field="store",
                value=str(folder),
                remedy="Choose a folder you may write.",
            ) from error
        return ObjectStore(url=folder.as_uri(), _backend=LocalStore(folder, automatic_cleanup=True, mkdir=True))
    if scheme not in {"s3", "gs", "az"}:
        raise ConfigError(
            "has an unknown scheme",
            field="store",
            value=location,
            remedy="Use s3://, gs://, az://, file:// or a folder.",
        )
    return ObjectStore(url=location, _backend=_remote(location, patience))


def _remote(location: str, patience: timedelta) -> Any:  # noqa: ANN401 - obstore has one class per provider
    try:
        return from_url(
            location,
            client_options={"timeout": _REQUEST_TIMEOUT, "allow_http": True},
            retry_config={"retry_timeout": patience, "max_retries": _RETRIES},
        )
    except (BaseError, ValueError) as error:
        raise ConfigError(
            f"cannot be opened: {error}", field="store", value=location, remedy="Check the URL."
        ) from error


def walk_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (POSIX path relative to ``folder``, path) of every file under it, in sorted order."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield path.relative_to(folder).as_posix(), path
