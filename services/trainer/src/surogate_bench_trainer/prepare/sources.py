"""Sources of records: the built-in generator, a local folder, or the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from surogate_bench.data_files import SPLITS, split_files
from surogate_bench.errors import ConfigError, TransientError
from surogate_bench.logs import take_over_logs
from surogate_bench.service import is_transient
from surogate_bench.specs.data import DataSpec
from surogate_bench_trainer.data.reading import read_records
from surogate_bench_trainer.data.records import Record, record_from
from surogate_bench_trainer.embedded.word_problems import Language, split

Splits = dict[str, list[Record]]
"""``train``, ``validation`` and ``test``."""

_LANGUAGE: dict[str, Language] = {"word-problems-ro": "ro", "word-problems-en": "en"}


def load_splits(spec: DataSpec) -> Splits:
    """Load the three splits in the requested sizes.

    Raises:
        ConfigError: a split is missing, empty or too small, or a record is malformed.
        TransientError: the hub cannot be reached.
    """
    if spec.builtin is not None:
        return _generated(spec, _LANGUAGE[spec.builtin])
    if spec.path is not None:
        return _resize(_from_folder(spec, spec.path), spec)
    return _resize(_from_hub(spec, str(spec.hub)), spec)


def _generated(spec: DataSpec, language: Language) -> Splits:
    sizes = {"train": spec.train_size, "validation": spec.validation_size, "test": spec.test_size}
    return {
        name: [
            Record(problem.question, problem.answer)
            for problem in split(name, language=language, size=size, seed=spec.seed)  # type: ignore[arg-type]
        ]
        for name, size in sizes.items()
    }


def _from_folder(spec: DataSpec, folder: Path) -> Splits:
    return {split: read_records(path, spec=spec, split=split) for split, path in split_files(folder).items()}


def _from_hub(spec: DataSpec, name: str) -> Splits:
    import datasets  # noqa: PLC0415 - only for hub data
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as FILE_FORMATS  # noqa: PLC0415

    if name in FILE_FORMATS:  # load_dataset would read files of this format in the current folder
        raise _unusable(name, "is the name of a file format, not of a data set", f"Write OWNER/NAME. {_OR_LOCAL}")
    take_over_logs("datasets", "huggingface_hub")
    datasets.disable_progress_bars()
    with _translate_hub_errors(name):
        # With this prefix only the hub is searched, not the current folder.
        loaded: Any = datasets.load_dataset(f"hf://datasets/{name}", spec.config, revision=spec.revision)
    return {
        split: [
            record_from(fields, spec=spec, where=f"data.{split}:{number}")
            for number, fields in enumerate(loaded[split], start=1)
        ]
        for split in SPLITS
        if split in loaded
    }


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


def _resize(splits: Splits, spec: DataSpec) -> Splits:
    """Take a missing validation split from the end of train, then reduce all splits to the requested sizes."""
    for name in ("train", "test"):
        if not splits.get(name):
            raise ConfigError(
                f"the data set has no {name} records",
                field="data",
                value=spec.label,
                remedy="A data set needs a train and a test split.",
            )
    train, validation = splits["train"], splits.get("validation", [])
    if not validation:
        if len(train) <= spec.validation_size:
            raise ConfigError(
                f"leaves nothing to train on: the data set has {len(train)} training records and no validation split",
                field="data.validation_size",
                value=spec.validation_size,
                remedy="Lower it, or add a validation split.",
            )
        train, validation = train[: -spec.validation_size], train[-spec.validation_size :]
    for name, size, available in (("train", spec.train_size, train), ("test", spec.test_size, splits["test"])):
        if size is not None and size > len(available):
            raise ConfigError(
                f"is larger than the number of available records, {len(available)}",
                field=f"data.{name}_size",
                value=size,
                remedy="Lower it or leave it out.",
            )
    return {
        "train": train[: spec.train_size],
        "validation": validation[: spec.validation_size],
        "test": splits["test"][: spec.test_size],
    }
