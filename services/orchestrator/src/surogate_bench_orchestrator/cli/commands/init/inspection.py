"""What a sweep's local model and data contain, read by the same code as for training."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.data_files import split_files
from surogate_bench.inputs.model_limits import stated_positions
from surogate_bench.inputs.reading.detection import FINAL_ANSWER, REQUIRED_ROLES, SCORED_FORMATS, detect_format, fits
from surogate_bench.inputs.reading.fields import as_text
from surogate_bench.inputs.reading.raw_records import raw_records
from surogate_bench.specs import DataSpec, RecipeSweep
from surogate_bench.specs.data import DataFormat, FieldNames, RequestedFormat
from surogate_bench.stages.model_source import local_model_folder
from surogate_bench_orchestrator.cli.commands.init.answers import DataFacts, Facts

_LARGEST = 2**30
"""Bytes of files that are read; a larger data set is written into the sweep as it is named."""


def facts_of(sweep: RecipeSweep) -> Facts:
    """Return what the local model and data of a sweep contain.

    Raises:
        ConfigError: they are missing or malformed.
    """
    folder = local_model_folder(sweep.model)
    data = None if sweep.data.path is None else _data_facts(sweep.data, sweep.data.path)
    return Facts(positions=None if folder is None else stated_positions(folder), data=data)


def require_shape(facts: DataFacts, label: str, stated: RequestedFormat = "auto") -> None:
    """Check that there are training records, and that their fields fit a shape, which is the stated one if any is.

    Raises:
        ConfigError: there are none, or they fit none.
    """
    if facts.records == 0:
        raise ConfigError("has no training records", field="data.path", value=label, remedy="Give files with records.")
    if facts.shape is None:
        lacking = "fit no shape" if stated == "auto" else f"lack fields of data.format {stated}"
        raise ConfigError(
            f"the records {lacking}: they have {', '.join(facts.fields) or 'no fields'}",
            field="data.fields",
            value=label,
            remedy="Name their fields, for example --field question=NAME --field answer=NAME. docs/data.md has all "
            "shapes.",
        )


@dataclass(frozen=True, slots=True)
class _Split:
    """What the records of a split have in common."""

    records: int
    shape: DataFormat | None
    fields: tuple[str, ...]
    has_answers: bool


def _data_facts(spec: DataSpec, path: Path) -> DataFacts | None:
    """Return what local files contain; None if they are too large, or their format cannot be read here."""
    files = split_files(path, spec.files, needs_test=False)
    if sum(each.stat().st_size for each in {*files["train"], *files.get("test", ())}) > _LARGEST:
        return None
    try:
        train = _read(files["train"], spec, "train")
        renamed = _spelled_otherwise(train.fields, spec) if train.shape is None else {}
        if renamed:
            spec = spec.model_copy(update={"fields": FieldNames.model_validate(renamed)})
            train = _read(files["train"], spec, "train")
        test = _read(files["test"], spec, "test") if "test" in files else train
    except ImportError:  # of the library that reads Parquet
        return None
    return DataFacts(
        splits=frozenset(files),
        records=train.records,
        shape=train.shape,
        fields=train.fields,
        renamed=renamed if train.shape else {},
        has_answers=test.has_answers,
    )


def _read(files: Iterable[Path], spec: DataSpec, split: str) -> _Split:
    shape: DataFormat | None = None
    names: tuple[str, ...] = ()
    count, answered = 0, True
    for record in (each.fields for path in files for each in raw_records(path, spec, split)):
        if count == 0:
            shape, names = _shape(record, spec, split), tuple(map(str, record)) if isinstance(record, dict) else ()
        count += 1
        answered = answered and _has_answer(record, shape, spec)
    return _Split(count, shape, names, answered)


def _shape(record: object, spec: DataSpec, split: str) -> DataFormat | None:
    """Return the stated or detected shape of a record; None if it lacks required fields."""
    stated = None if spec.format == "auto" or split == "test" else spec.format
    shape = stated or detect_format(record, spec)
    return shape if isinstance(record, dict) and fits(shape, record, spec) else None


def _has_answer(record: object, shape: DataFormat | None, spec: DataSpec) -> bool:
    if shape not in SCORED_FORMATS or not isinstance(record, dict):
        return False
    answer = as_text(record.get(spec.name_of(REQUIRED_ROLES[shape][-1])))
    return answer is not None and FINAL_ANSWER.search(answer) is not None


def _spelled_otherwise(names: Iterable[str], spec: DataSpec) -> Mapping[str, str]:
    """Return fields that differ from the usual names only in capitals and spaces, by role."""
    if spec.named_shapes:
        return {}
    roles = FieldNames.model_fields.keys()
    return {role: name for name in names if (role := name.strip().lower()) in roles and name != role}
