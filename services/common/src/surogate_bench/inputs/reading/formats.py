"""Readers of JSON lines, JSON arrays, CSV and Parquet, which yield decoded records with their locations."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.reading.fields import Number
from surogate_bench.inputs.reading.text import shortened, unusable


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A decoded record: its fields, and the number (from 1) of its line or record."""

    fields: Any
    number: int
    unit: str
    """Unit of ``number``: ``line`` or ``record``."""


@dataclass(frozen=True, slots=True)
class Source:
    """The file that is read, for error messages."""

    path: Path
    split: str

    def error(self, problem: str, *, number: int, unit: str = "line", value: str | None = None) -> ConfigError:
        """Return the error for one line or record."""
        return ConfigError(
            f"{unit} {number} of {self.path} {problem}",
            field=f"data.{self.split}:{number}",
            value=None if value is None else shortened(value),
            remedy=f"Correct or remove the {unit}.",
        )


class _RepeatedKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object from its members, and refuse repeated keys, whose intended value is unknown."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return members


# Numbers stay as written. NaN is not JSON, but pandas writes it for a missing value: it is read as null.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=Number, parse_float=Number, parse_constant=lambda _: None
)
_BLANK = re.compile(r"[ \t\r\n\ufeff]*")


def json_records(text: str, source: Source) -> Iterator[RawRecord]:
    """Read one JSON object per line, or one JSON array of objects. Blank lines are skipped.

    Raises:
        ConfigError: a record is not JSON, repeats a key, or is nested too deeply. The message names its line or number.
    """
    if text.startswith("[", _skip_blanks(text, 0)):
        yield from _array(text, source)
        return
    # Only \n ends a line: other line separators, such as U+2028, are valid inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        start = _skip_blanks(line, 0)
        if start == len(line):
            continue
        if line[start:].rstrip() == "{":
            raise _unfinished(source, number)
        fields, end = _value(line, start, source, number=number, unit="line")
        if _skip_blanks(line, end) < len(line):
            raise source.error("is not JSON: text follows the object", number=number, value=line[end:])
        yield RawRecord(fields, number, "line")


def _unfinished(source: Source, number: int) -> ConfigError:
    return ConfigError(
        f"line {number} of {source.path} begins an object and does not end it",
        field=f"data.{source.split}:{number}",
        value="{",
        remedy="Write each record on a line of its own, or all records as one array: [{...}, {...}].",
    )


def _array(text: str, source: Source) -> Iterator[RawRecord]:
    position, number = _skip_blanks(text, _skip_blanks(text, 0) + 1), 0
    more = not text.startswith("]", position)
    while more:
        number += 1
        fields, position = _value(text, position, source, number=number, unit="record")
        yield RawRecord(fields, number, "record")
        position = _skip_blanks(text, position)
        more = text.startswith(",", position)
        if not more and not text.startswith("]", position):
            raise source.error("is not followed by ',' or ']'", number=number, unit="record", value=text[position:])
        position = _skip_blanks(text, position + 1)
    if number == 0:
        position = _skip_blanks(text, position + 1)
    if position < len(text):
        line = text.count("\n", 0, position) + 1
        raise source.error("is not JSON: text follows the array", number=line, value=text[position:])


def _value(text: str, start: int, source: Source, *, number: int, unit: str) -> tuple[Any, int]:
    """Decode the JSON value at ``start`` and return it with its end position."""
    try:
        return _DECODER.raw_decode(text, start)
    except _RepeatedKeyError as error:
        raise source.error(f"has the key {shortened(str(error))!r} twice", number=number, unit=unit) from error
    except RecursionError as error:
        raise source.error("is nested too deeply", number=number, unit=unit, value=text[start:]) from error
    except json.JSONDecodeError as error:
        where = "" if unit == "line" else f" (line {error.lineno})"
        raise source.error(f"is not JSON: {error.msg}{where}", number=number, unit=unit, value=text[start:]) from error


def _skip_blanks(text: str, position: int) -> int:
    found = _BLANK.match(text, position)
    return found.end() if found else position


_LONGEST_CSV_FIELD = 2**31 - 1
"""Most characters of a value; the csv module takes 131,072 by default, which the trace of one answer may exceed."""


def csv_records(text: str, source: Source) -> Iterator[RawRecord]:
    """Read comma-separated values with a header. Quoted values may contain line breaks; records are numbered by line.

    If all lines of a file end as on Windows, line breaks in values were converted as well: they are read as line feeds.

    Raises:
        ConfigError: quotes do not match, or a row has more values than the header. The message names the line.
    """
    csv.field_size_limit(_LONGEST_CSV_FIELD)
    if text.count("\r\n") == text.count("\n"):
        text = text.replace("\r\n", "\n")
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
                yield RawRecord(dict(zip(header, row, strict=False)), line, "line")
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


def parquet_records(data: bytes, source: Source, columns: tuple[str, ...]) -> Iterator[RawRecord]:
    """Read the given columns of a Parquet file. The fields of a record also name all other columns, without values.

    Raises:
        ConfigError: the file is not Parquet, or has one of the columns twice.
    """
    import pyarrow as pa  # noqa: PLC0415 - only for Parquet
    from pyarrow import parquet  # noqa: PLC0415 - as above

    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        names = list(file.schema_arrow.names)
        if repeated := next((name for name in columns if names.count(name) > 1), None):
            raise unusable(source.path, source.split, f"has the column {repeated!r} twice", "Remove or rename one.")
        empty = dict.fromkeys(names)
        number = 0
        for batch in file.iter_batches(columns=[name for name in dict.fromkeys(columns) if name in names]):
            for row in batch.to_pylist() if batch.num_columns else [{}] * batch.num_rows:
                number += 1
                yield RawRecord(empty | row, number, "record")
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the last two of texts and dates
        problem = f"is not a Parquet file that can be read: {' '.join(str(error).split())}"
        raise unusable(source.path, source.split, shortened(problem), "Write or copy it again.") from error
