"""The decoded records of one file in any supported format."""

from collections.abc import Iterator
from pathlib import Path

from surogate_bench.inputs.data_files import COMPRESSED
from surogate_bench.inputs.reading.detection import columns
from surogate_bench.inputs.reading.formats import RawRecord, Source, csv_records, json_records, parquet_records
from surogate_bench.inputs.reading.text import decoded, read_bytes
from surogate_bench.specs.data import DataSpec


def raw_records(path: Path, spec: DataSpec, split: str) -> Iterator[RawRecord]:
    """Read a file in one of :data:`surogate_bench.inputs.data_files.FORMATS`, compressed or not.

    ``.jsonl`` and ``.json`` are read in the same way: both may hold one object per line, or one array.

    Args:
        path: The file.
        spec: Provides the names of fields; those of no shape are not read from Parquet.
        split: Name of the split, for error messages.

    Raises:
        ConfigError: the file cannot be read, or a record is malformed (the message names its line or number).
    """
    source = Source(path, split)
    data = read_bytes(path, split)
    suffix = Path(path.name.removesuffix(COMPRESSED)).suffix
    if suffix == ".parquet":
        return parquet_records(data, source, columns(spec))
    text = decoded(data, path, split)
    return csv_records(text, source) if suffix == ".csv" else json_records(text, source)
