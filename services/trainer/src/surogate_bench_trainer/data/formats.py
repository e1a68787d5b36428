"""JSON lines, JSON arrays, CSV and Parquet as decoded records, each with the place where it was found."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surogate_bench.errors import ConfigError
from surogate_bench_trainer.data.text import shortened, unusable


@dataclass(frozen=True, slots=True)
class Raw:
    """One decoded record: its fields, and the number (from 1) of the line or record it was found at."""

    fields: Any
    number: int
    unit: str
    """What is counted: ``line`` or ``record``."""


@dataclass(frozen=True, slots=True)
class Source:
    """The file that is read, for messages."""

    path: Path
    split: str

    def error(self, problem: str, *, number: int, unit: str = "line", value: str | None = None) -> ConfigError:
        """Make the error for one line or record."""
        return ConfigError(
            f"{unit} {number} of {self.path} {problem}",
            field=f"data.{self.split}:{number}",
            value=None if value is None else shortened(value),
            remedy=f"Correct or remove the {unit}.",
        )


class _RepeatedKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members, none of which may be repeated: which one is meant would be a guess."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return made


# Numbers stay as they are written; NaN, which is no JSON but what pandas writes for a missing value, is null.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=str, parse_float=str, parse_constant=lambda _: None)
_BLANK = re.compile(r"[ \t\r\n\ufeff]*")


def json_records(text: str, source: Source) -> Iterator[Raw]:
    """Read one JSON object a line, or one JSON array of objects. Blank lines are skipped.

    Raises:
        ConfigError: something is not JSON, repeats a key, or is nested too deeply; names its line.
    """
    if text.startswith("[", _after_blanks(text, 0)):
        yield from _array(text, source)
        return
    # Only \n ends a line: others, such as U+2028, may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        start = _after_blanks(line, 0)
        if start == len(line):
            continue
        fields, end = _value(line, start, source, number=number, unit="line")
        if _after_blanks(line, end) < len(line):
            raise source.error("is not JSON: it goes on after the object", number=number, value=line[end:])
        yield Raw(fields, number, "line")


def _array(text: str, source: Source) -> Iterator[Raw]:
    position, number = _after_blanks(text, _after_blanks(text, 0) + 1), 0
    more = not text.startswith("]", position)
    while more:
        number += 1
        fields, position = _value(text, position, source, number=number, unit="record")
        yield Raw(fields, number, "record")
        position = _after_blanks(text, position)
        more = text.startswith(",", position)
        if not more and not text.startswith("]", position):
            raise source.error("is not followed by ',' or ']'", number=number, unit="record", value=text[position:])
        position = _after_blanks(text, position + 1)
    if number == 0:
        position = _after_blanks(text, position + 1)
    if position < len(text):
        line = text.count("\n", 0, position) + 1
        raise source.error("is not JSON: it goes on after the array", number=line, value=text[position:])


def _value(text: str, start: int, source: Source, *, number: int, unit: str) -> tuple[Any, int]:
    """Decode the JSON value at ``start``; returns it, and where it ends."""
    try:
        return _DECODER.raw_decode(text, start)
    except _RepeatedKeyError as error:
        raise source.error(f"has the key {shortened(str(error))!r} twice", number=number, unit=unit) from error
    except RecursionError as error:
        raise source.error("is nested too deeply", number=number, unit=unit, value=text[start:]) from error
    except json.JSONDecodeError as error:
        where = "" if unit == "line" else f" (line {error.lineno})"
        raise source.error(f"is not JSON: {error.msg}{where}", number=number, unit=unit, value=text[start:]) from error


def _after_blanks(text: str, position: int) -> int:
    found = _BLANK.match(text, position)
    return found.end() if found else position


def csv_records(text: str, source: Source) -> Iterator[Raw]:
    """Read comma-separated values with a header; a quoted value may have line breaks. Numbers are those of lines.

    Raises:
        ConfigError: quotes do not match, or a row has more values than the header; names its line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for row in reader:
            if row and header is None:
                header = _header(row, source, line)
            elif row and header is not None:
                if len(row) > len(header):
                    raise source.error(f"has {len(row)} values under {len(header)} columns", number=line, value=row[-1])
                yield Raw(dict(zip(header, row, strict=False)), line, "line")
            line = reader.line_num + 1
    except csv.Error as error:
        raise source.error(f"is not CSV: {error}", number=line) from error


def _header(row: list[str], source: Source, line: int) -> list[str]:
    names = [name.strip() for name in row]
    if len(names) == 1 and (separator := next((mark for mark in ";\t" if mark in names[0]), None)):
        raise ConfigError(
            f"line {line} of {source.path} has its columns separated by {separator!r}",
            field=f"data.{source.split}:{line}",
            value=shortened(names[0]),
            remedy="Separate them by commas.",
        )
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise source.error(f"has the column {repeated!r} twice", number=line)
    return names


def parquet_records(data: bytes, source: Source, wanted: tuple[str, ...]) -> Iterator[Raw]:
    """Read the wanted columns of a Parquet file; of the others only the names.

    Raises:
        ConfigError: it is not Parquet, or has a wanted column twice.
    """
    import pyarrow as pa  # noqa: PLC0415 - only for Parquet
    from pyarrow import parquet  # noqa: PLC0415

    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        names = list(file.schema_arrow.names)
        if repeated := next((name for name in wanted if names.count(name) > 1), None):
            raise unusable(source.path, source.split, f"has the column {repeated!r} twice", "Remove or rename one.")
        empty = dict.fromkeys(names)
        number = 0
        for batch in file.iter_batches(columns=[name for name in dict.fromkeys(wanted) if name in names]):
            for row in batch.to_pylist() if batch.num_columns else [{}] * batch.num_rows:
                number += 1
                yield Raw(empty | row, number, "record")
    except (pa.ArrowException, OSError) as error:
        problem = f"is not a Parquet file that can be read: {' '.join(str(error).split())}"
        raise unusable(source.path, source.split, shortened(problem), "Write or copy it again.") from error
