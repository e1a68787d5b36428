"""Reading of one split's files in any supported format."""

from pathlib import Path

from surogate_bench.inputs.reading.fields import Place
from surogate_bench.inputs.reading.raw_records import raw_records
from surogate_bench.specs.data import DataSpec
from surogate_bench_trainer.data.records import ReadRecord
from surogate_bench_trainer.data.shapes import records_from, stated_format


def read_records(*paths: Path, spec: DataSpec, split: str) -> list[ReadRecord]:
    """Read files in :data:`surogate_bench.inputs.data_files.FORMATS`, compressed or not, one after another.

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
        for record in raw_records(path, spec, split)
    )
    return records_from(raw, spec, stated_format(spec, split))
