"""Location of a store: a local folder, or a bucket and a prefix.

A location is a folder or a URL. Characters of a URL's path may be percent-encoded (``%20``), and those that are
unambiguous without encoding (blanks, ``#``, ``?``, letters with accents) may be written literally: a store's URL has no
query and no fragment. :func:`canonical_url` returns one URL for all spellings of a location.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from surogate_bench.errors import ConfigError
from surogate_bench.user_paths import expand_home, require_current_folder

FIELD = "store"
REMOTE_SCHEMES = ("s3", "gs", "az")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_UNFINISHED = re.compile(rf"(?:{'|'.join((*REMOTE_SCHEMES, 'file'))}):", re.IGNORECASE)
_SAFE = "/~!$&'()*+,;=:@"
"""Characters that a path keeps when it becomes part of a URL, besides letters, digits and ``-._``."""


def parse_location(location: str) -> Path | str:
    """Read a location: an absolute local folder, or the canonical URL of a remote store.

    Raises:
        ConfigError: it is empty, has an unknown scheme, or names no folder or bucket.
    """
    if not location.strip():
        raise _refused("is empty", location, "Give a folder, or s3://bucket/prefix, gs://… or az://….")
    url = _URL.fullmatch(location)
    if url is None:
        if _UNFINISHED.match(location):
            scheme = location.partition(":")[0].lower()
            example = "file:///folder" if scheme == "file" else f"{scheme}://bucket/prefix"
            raise _refused("is an incomplete URL", location, f"Write {example}.")
        return _absolute(location)
    scheme = url["scheme"].lower()
    if scheme == "file":
        return folder_of(location)
    if scheme not in REMOTE_SCHEMES:
        raise _refused("has an unknown scheme", location, "Use s3://, gs://, az://, file:// or a folder.")
    return canonical_url(scheme, url["rest"], location)


def folder_of(url: str) -> Path:
    """Return the folder of a ``file://`` URL.

    Raises:
        ConfigError: it names another machine, or no absolute path.
    """
    host, slash, path = url.partition("://")[2].partition("/")
    if host not in {"", "localhost"} or not slash:
        raise _refused(
            f"names a machine, {host!r}, and no folder" if host else "names no folder",
            url,
            "Write file:///folder with three slashes and the whole path, or give the folder itself.",
        )
    return _absolute(os.fsdecode(unquote_to_bytes(os.fsencode(slash + path))))


def canonical_url(scheme: str, rest: str, location: str) -> str:
    """Return the canonical form of a remote store's URL, the same for each spelling of a prefix.

    Args:
        scheme: ``s3``, ``gs`` or ``az``.
        rest: What follows ``://``.
        location: The complete location, as the user wrote it.

    Raises:
        ConfigError: there is no bucket, or the prefix has parts that no key can have.
    """
    bucket, _, prefix = rest.partition("/")
    example = f"Write {scheme}://bucket or {scheme}://bucket/prefix."
    if not bucket:
        raise _refused("names no bucket", location, example)
    if not re.fullmatch(r"[A-Za-z0-9$][A-Za-z0-9._-]*", bucket):
        raise _refused(f"has {bucket!r} where the bucket's name belongs", location, example)
    try:
        parts = unquote_to_bytes(prefix.encode()).decode().removesuffix("/").split("/") if prefix else []
    except UnicodeError as error:
        raise _refused("is not UTF-8", location, "Correct the characters after %.") from error
    if any(part in {"", ".", ".."} for part in parts) and parts != [""]:
        raise _refused("has an empty part, '.' or '..' in its prefix", location, example)
    if any(ord(character) < ord(" ") or ord(character) == 127 for part in parts for character in part):  # noqa: PLR2004 - DEL
        raise _refused("has a control character in its prefix", location, example)
    return f"{scheme}://" + "/".join([bucket, *(quote(part, safe=_SAFE) for part in parts if part)])


def _absolute(text: str) -> Path:
    path = expand_home(text, field=FIELD)
    if not path.is_absolute():
        path = require_current_folder() / path
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError in Python 3.11 and 3.12
        raise _refused(
            f"cannot be resolved: {getattr(error, 'strerror', None) or error}", text, "Choose another folder."
        ) from error


def _refused(problem: str, location: str, remedy: str) -> ConfigError:
    return ConfigError(problem, field=FIELD, value=location, remedy=remedy)
