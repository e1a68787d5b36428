"""Sources of records: the built-in generator, a local folder, or the Hugging Face hub."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from surogate_bench.errors import ConfigError, TransientError
from surogate_bench.inputs.data_files import SPLITS, scored_files, split_files
from surogate_bench.inputs.reading.fields import Place
from surogate_bench.processes.logs import take_over_logs
from surogate_bench.processes.service import is_transient
from surogate_bench.specs.data import DataSpec
from surogate_bench_trainer.data.reading import read_records
from surogate_bench_trainer.data.records import ReadRecord, Record
from surogate_bench_trainer.data.shapes import records_from, stated_format
from surogate_bench_trainer.embedded.word_problems import Language
from surogate_bench_trainer.embedded.word_problems import split as generated_split
from surogate_bench_trainer.prepare.dataset.splitting import (
    Splits,
    hold_out,
    require_named_fields,
    require_splits,
    resize,
    with_scorable_test,
)

_LANGUAGE: dict[str, Language] = {"word-problems-ro": "ro", "word-problems-en": "en"}

_FEWEST_SCORED = 2
"""A standard error needs two."""


def load_splits(spec: DataSpec, *, needs_test: bool = True) -> Splits:
    """Load the splits in the requested sizes: ``train``, ``validation`` and ``test``.

    Args:
        spec: Source, shapes and sizes.
        needs_test: Whether test records are scored; if not, ``test`` may be absent.

    Raises:
        ConfigError: a split is missing, empty or too small, or a record is malformed.
        TransientError: the hub cannot be reached.
    """
    if spec.builtin is not None:
        return _generated(spec, _LANGUAGE[spec.builtin])
    from_source = needs_test and spec.hold_out.test is None
    if spec.path is not None:
        found = split_files(spec.path, spec.files, needs_test=from_source)
        splits = {split: read_records(*files, spec=spec, split=split) for split, files in found.items()}
    else:
        splits = _from_hub(spec, str(spec.hub))
    require_splits(splits, spec, needs_test=from_source)
    require_named_fields(splits, spec)
    return resize(with_scorable_test(hold_out(splits, spec), needed=needs_test), spec)


def load_test(spec: DataSpec) -> list[ReadRecord]:
    """Load the test records alone, for a task that is not trained for.

    Raises:
        ConfigError: there are too few, a record is malformed, or a named field has no effect.
        TransientError: the hub cannot be reached.
    """
    if spec.builtin is not None:
        return _generated(spec, _LANGUAGE[spec.builtin])["test"]
    if spec.path is not None:
        records = read_records(*scored_files(spec.path), spec=spec, split="test")
    else:
        records = _from_hub(spec, str(spec.hub), only=("test",)).get("test", [])
    if len(records) < (needed := spec.test_size or _FEWEST_SCORED):
        raise ConfigError(
            f"has {len(records)} test records, but {needed} are needed",
            field="data.test",
            value=spec.label,
            remedy=f"Give a test split with more records, or lower data.test_size; the minimum is {_FEWEST_SCORED}.",
        )
    require_named_fields({"test": records}, spec)
    return records[: spec.test_size]


def _generated(spec: DataSpec, language: Language) -> Splits:
    sizes = {"train": spec.train_size, "validation": spec.validation_size, "test": spec.test_size}
    return {
        name: [
            Record(problem.question, problem.answer)
            for problem in generated_split(name, language=language, size=size, seed=spec.seed)  # type: ignore[arg-type]
        ]
        for name, size in sizes.items()
    }


def _from_hub(spec: DataSpec, name: str, *, only: Collection[str] = SPLITS) -> Splits:
    import datasets  # noqa: PLC0415 - only for hub data
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as FILE_FORMATS  # noqa: PLC0415

    if name in FILE_FORMATS:  # load_dataset would read files of this format in the current folder
        raise _unusable(name, "is the name of a file format, not of a data set", f"Write OWNER/NAME. {_OR_LOCAL}")
    take_over_logs("datasets", "huggingface_hub")
    datasets.disable_progress_bars()
    with _translate_hub_errors(name):
        # With this prefix only the hub is searched, not the current folder.
        loaded: Any = datasets.load_dataset(f"hf://datasets/{name}", spec.config, revision=spec.revision)
    found = _hub_splits(loaded, spec)
    return {split: _hub_records(rows, spec, split) for split, rows in found.items() if split in only}


def _hub_splits(loaded: Mapping[str, Any], spec: DataSpec) -> dict[str, Any]:
    """Return the data set's splits by our names.

    Raises:
        ConfigError: it lacks one that the sweep names.
    """
    named = spec.splits.model_dump(exclude_none=True)
    for of, name in named.items():
        if name not in loaded:
            raise ConfigError(
                "the data set has no such split",
                field=f"data.splits.{of}",
                value=name,
                remedy=f"Choose one of {', '.join(map(str, loaded))}.",
            )
    return {split: loaded[name] for split in SPLITS if (name := named.get(split, split)) in loaded}


def _hub_records(rows: Iterable[Any], spec: DataSpec, split: str) -> list[ReadRecord]:
    numbered = ((fields, Place(f"data.{split}:{number}")) for number, fields in enumerate(rows, start=1))
    return records_from(numbered, spec, stated_format(spec, split))


@contextmanager
def _translate_hub_errors(name: str) -> Iterator[None]:
    """Translate the errors of loading a data set from the hub.

    Raises:
        ConfigError: the data set does not exist or cannot be used.
        TransientError: the hub cannot be reached.
    """
    from datasets.exceptions import DatasetNotFoundError, DatasetsError  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled  # noqa: PLC0415

    try:
        yield
    except DatasetNotFoundError as error:
        raise _unusable(name, f"cannot be loaded: {error}", _FIND_IT) from error
    except (ConnectionError, OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise TransientError(
            f"data.hub: {name} cannot be loaded, because the hub cannot be reached: {error}. "
            "Check the network, or give a local folder as data.path"
        ) from error
    except FileNotFoundError as error:  # several classes, not all of them derived from DatasetsError
        raise _unusable(name, "has no data files that can be read", f"{_WITH_FILES} {_OR_LOCAL}") from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise _unusable(
            name, "is a loading script, which the datasets library no longer runs", f"{_CONVERTED} {_OR_LOCAL}"
        ) from error
    except (ValueError, DatasetsError) as error:
        if is_transient(error):  # a full disk while the files are converted, for example
            raise
        raise _unusable(name, f"cannot be loaded: {_one_line(error)}", _FIND_IT) from error


_OR_LOCAL = "Or download it and give its folder as data.path."
_FIND_IT = (
    "Check the name, data.config and data.revision, or give a local folder as data.path; a gated data set needs "
    "HF_TOKEN."
)
_WITH_FILES = "Choose a data set with JSON, CSV or Parquet files."
_CONVERTED = "Use a copy in Parquet format: many data sets have one, selected by data.revision: refs/convert/parquet."


def _unusable(name: str, problem: str, remedy: str) -> ConfigError:
    return ConfigError(problem, field="data.hub", value=name, remedy=remedy)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
