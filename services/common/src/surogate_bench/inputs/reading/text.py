"""Decoding of data files, with error messages for files that are not UTF-8."""

import gzip
import zlib
from pathlib import Path

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.data_files import COMPRESSED

_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_OTHER_CONTENT = (
    (b"\x1f\x8b", "contains gzip data", "Name it {name}.gz."),
    (b"PAR1", "contains Parquet data", "Name it {split}.parquet."),
    (b"PK\x03\x04", "is a zip archive", "Unpack it."),
)
_LFS_POINTER = b"version https://git-lfs"
_MAX_SHOWN = 120


def shortened(text: str) -> str:
    """Shorten a text to at most 120 characters for an error message."""
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def read_bytes(path: Path, split: str) -> bytes:
    """Read a data file, and decompress it if its name ends in ``.gz``.

    Raises:
        ConfigError: the file cannot be read, is a pointer of Git LFS, or is not complete gzip data.
    """
    try:
        data = path.read_bytes()
        if data.startswith(_LFS_POINTER):
            raise unusable(path, split, "is a Git LFS pointer, not the data itself", "Fetch the data: git lfs pull")
        return gzip.decompress(data) if path.suffix == COMPRESSED else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise unusable(path, split, f"is not complete gzip data: {error}", "Copy or compress it again.") from error
    except OSError as error:
        raise unusable(
            path, split, f"cannot be read: {error.strerror}", "Correct the path or its permissions."
        ) from error


def decoded(data: bytes, path: Path, split: str) -> str:
    """Decode UTF-8 with or without a byte-order mark.

    Raises:
        ConfigError: the data is not UTF-8. The message names the likely format and the line.
    """
    for start, problem, remedy in _OTHER_CONTENT:
        if data.startswith(start) and path.suffix == COMPRESSED:
            raise unusable(path, split, f"{problem} when decompressed", "Decompress it, and name it by its content.")
        if data.startswith(start):
            raise unusable(path, split, problem, remedy.format(name=path.name, split=split))
    if data.startswith(_UTF_16_MARKS) or b"\0" in data[:4]:
        encoding = "UTF-32" if b"\0\0" in data[:4] else "UTF-16"
        raise unusable(path, split, f"appears to be {encoding}, not UTF-8", _convert(encoding, path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        begin, end = data.rfind(b"\n", 0, error.start) + 1, data.find(b"\n", error.start)
        whole = data[begin : end if end >= 0 else None]
        raise ConfigError(
            f"line {line} of {path} has the byte 0x{data[error.start]:02X}, which is not valid UTF-8; the encoding "
            "may be ISO-8859-2, Windows-1252 or another 8-bit encoding",
            field=f"data.{split}:{line}",
            value=shortened(whole.decode("ascii", errors="backslashreplace")),
            remedy=_convert("ISO-8859-2", path),
        ) from error


def unusable(path: Path, split: str, problem: str, remedy: str) -> ConfigError:
    """Return the error for a file that cannot be used at all."""
    return ConfigError(problem, field=f"data.{split}", value=str(path), remedy=remedy)


def _convert(encoding: str, path: Path) -> str:
    return f"Convert it with its own encoding, for example: iconv -f {encoding} -t UTF-8 {path.name} > converted"
