"""Where records come from: generated, a local folder, or the Hugging Face hub."""

from pathlib import Path
from typing import Any

from surogate_bench.errors import ConfigError, TransientError
from surogate_bench.logs import take_over_logs
from surogate_bench.specs.data import DataSpec
from surogate_bench.word_problems import Language, split
from surogate_bench_trainer.data.records import Record, read_records, record_from

Splits = dict[str, list[Record]]
"""``train``, ``validation`` and ``test``."""

_LANGUAGE: dict[str, Language] = {"word-problems-ro": "ro", "word-problems-en": "en"}


def load_splits(spec: DataSpec) -> Splits:
    """Get the three splits at the sizes the sweep asks for.

    Raises:
        ConfigError: a split is missing, empty or too small, or a record is malformed.
        TransientError: the hub cannot be reached.
    """
    if spec.builtin is not None:
        return _generated(spec, _LANGUAGE[spec.builtin])
    if spec.path is not None:
        return _cut(_from_folder(spec, spec.path), spec)
    return _cut(_from_hub(spec), spec)


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
    if not folder.is_dir():
        raise ConfigError(
            "there is no such folder",
            field="data.path",
            value=str(folder),
            remedy="Give a folder with train.jsonl and test.jsonl.",
        )
    names = ["train", "test"] + ["validation"] * (folder / "validation.jsonl").exists()
    return {name: read_records(folder / f"{name}.jsonl", spec=spec, split=name) for name in names}


def _from_hub(spec: DataSpec) -> Splits:
    import datasets  # noqa: PLC0415 - only for hub data
    from datasets.exceptions import DatasetNotFoundError  # noqa: PLC0415
    from huggingface_hub.errors import OfflineModeIsEnabled  # noqa: PLC0415

    take_over_logs("datasets", "huggingface_hub")
    datasets.disable_progress_bars()
    try:
        loaded: Any = datasets.load_dataset(spec.hub, spec.config, revision=spec.revision)
    except (DatasetNotFoundError, ValueError) as error:
        raise ConfigError(
            f"cannot be loaded: {error}",
            field="data.hub",
            value=spec.hub,
            remedy="Check the name, data.config and data.revision, or give a local folder as data.path; a gated data "
            "set needs HF_TOKEN.",
        ) from error
    except (ConnectionError, OfflineModeIsEnabled) as error:
        raise TransientError(
            f"data.hub: {spec.hub} cannot be loaded, because the hub cannot be reached: {error}. "
            "Check the network, or give a local folder as data.path"
        ) from error
    return {
        name: [
            record_from(fields, spec=spec, where=f"data.{name}:{number}")
            for number, fields in enumerate(loaded[name], start=1)
        ]
        for name in ("train", "validation", "test")
        if name in loaded
    }


def _cut(splits: Splits, spec: DataSpec) -> Splits:
    """Take validation from the end of train where there is no such split, then cut all to size."""
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
    for name, size, there in (("train", spec.train_size, train), ("test", spec.test_size, splits["test"])):
        if size is not None and size > len(there):
            raise ConfigError(
                f"asks for more records than the {len(there)} there are",
                field=f"data.{name}_size",
                value=size,
                remedy="Lower it or leave it out.",
            )
    return {
        "train": train[: spec.train_size],
        "validation": validation[: spec.validation_size],
        "test": splits["test"][: spec.test_size],
    }
