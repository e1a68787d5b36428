"""Reading of one split's files in any supported format."""

from collections.abc import Iterator
from pathlib import Path

from surogate_bench.data_files import COMPRESSED
from surogate_bench.specs.data import DataSpec
from surogate_bench_trainer.data.fields import Place
from surogate_bench_trainer.data.formats import RawRecord, Source, csv_records, json_records, parquet_records
from surogate_bench_trainer.data.records import ReadRecord
from surogate_bench_trainer.data.shapes import columns, records_from, stated_format
from surogate_bench_trainer.data.text import decoded, read_bytes


def read_records(*paths: Path, spec: DataSpec, split: str) -> list[ReadRecord]:
    """Read files in :data:`surogate_bench.data_files.FORMATS`, compressed or not, one after another.

    ``.jsonl`` and ``.json`` are read in the same way: both may hold one object per line, or one array.

    Args:
        paths: The files.
        spec: Provides format and names of fields.
        split: Name of the split.

    Raises:
        ConfigError: a file cannot be read, or a record is malformed (the message names its line or number).
    """
    raw = (
        (record.fields, Place(f"data.{split}:{record.number}", f"{record.unit} {record.number} of {path}"))
        for path in paths
        for record in _raw_records(Source(path, split), spec)
    )
    return records_from(raw, spec, stated_format(spec, split))


def _raw_records(source: Source, spec: DataSpec) -> Iterator[RawRecord]:
    data = read_bytes(source.path, source.split)
    suffix = Path(source.path.name.removesuffix(COMPRESSED)).suffix
    if suffix == ".parquet":
        return parquet_records(data, source, columns(spec))
    text = decoded(data, source.path, source.split)
    return csv_records(text, source) if suffix == ".csv" else json_records(text, source)
