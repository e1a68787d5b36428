"""Which files of a local folder hold the splits of a data set."""

from pathlib import Path

from surogate_bench.errors import ConfigError

SPLITS = ("train", "validation", "test")
REQUIRED_SPLITS = ("train", "test")
FORMATS = (".jsonl", ".json", ".csv", ".parquet")
COMPRESSED = ".gz"
"""Each format may also be compressed by gzip: ``train.jsonl.gz``."""


def split_files(folder: Path) -> dict[str, Path]:
    """Find the file of each split: ``train``, ``test`` and, where there is one, ``validation``.

    Raises:
        ConfigError: there is no such folder, a split has several files, or train or test has none.
    """
    if not folder.is_dir():
        raise ConfigError(
            "there is no such folder", field="data.path", value=str(folder), remedy=f"Correct the path. {_EXPECTED}"
        )
    found: dict[str, Path] = {}
    for split in SPLITS:
        candidates = [folder / f"{split}{suffix}{gz}" for suffix in FORMATS for gz in ("", COMPRESSED)]
        present = [path for path in candidates if path.is_file()]
        if len(present) > 1:
            raise ConfigError(
                f"has {len(present)} files for the {split} split: {', '.join(path.name for path in present)}",
                field="data.path",
                value=str(folder),
                remedy="Keep one of them.",
            )
        if not present and split in REQUIRED_SPLITS:
            raise ConfigError(
                f"has no {split} file, such as {split}.jsonl",
                field="data.path",
                value=str(folder),
                remedy=f"Correct the path. {_EXPECTED}",
            )
        if present:
            found[split] = present[0]
    return found


_EXPECTED = (
    "A data folder has train.jsonl, test.jsonl and maybe validation.jsonl; .json, .csv and .parquet, and .gz of each, "
    "are read as well."
)
