"""Reading of one split's file in any supported format."""

from collections.abc import Iterator
from pathlib import Path

from surogate_bench.data_files import COMPRESSED
from surogate_bench.specs.data import DataSpec
from surogate_bench_trainer.data.formats import RawRecord, Source, csv_records, json_records, parquet_records
from surogate_bench_trainer.data.records import Record, record_from
from surogate_bench_trainer.data.text import decoded, read_bytes


def read_records(path: Path, *, spec: DataSpec, split: str) -> list[Record]:
    """Read a file in one of :data:`surogate_bench.data_files.FORMATS`, compressed or not.

    ``.jsonl`` and ``.json`` are read in the same way: both may hold one object per line, or one array.

    Raises:
        ConfigError: the file cannot be read, or a record is malformed (the message names its line or number).
    """
    source = Source(path, split)
    return [
        record_from(
            raw.fields,
            spec=spec,
            where=f"data.{split}:{raw.number}",
            place=f"{raw.unit} {raw.number} of {path}",
        )
        for raw in _raw_records(source, spec)
    ]


def _raw_records(source: Source, spec: DataSpec) -> Iterator[RawRecord]:
    data = read_bytes(source.path, source.split)
    suffix = Path(source.path.name.removesuffix(COMPRESSED)).suffix
    if suffix == ".parquet":
        return parquet_records(data, source, (spec.question_field, spec.answer_field))
    text = decoded(data, source.path, source.split)
    return csv_records(text, source) if suffix == ".csv" else json_records(text, source)
