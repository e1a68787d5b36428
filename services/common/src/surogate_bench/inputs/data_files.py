"""Which local files hold the splits of a data set."""

import os
from collections.abc import Mapping
from pathlib import Path

from surogate_bench.errors import ConfigError
from surogate_bench.specs.data import SplitFiles

SPLITS = ("train", "validation", "test")
FORMATS = (".jsonl", ".json", ".csv", ".parquet")
COMPRESSED = ".gz"
"""Each format may also be compressed by gzip: ``train.jsonl.gz``."""


def split_files(
    path: Path, listed: SplitFiles | None = None, *, needs_test: bool = True
) -> dict[str, tuple[Path, ...]]:
    """Find the files of each split: ``train``, and those of ``test`` and ``validation`` that there are.

    Args:
        path: ``data.path``: a folder, or one file with training records.
        listed: Files that the sweep lists; those of other splits are named after the split.
        needs_test: Whether a test split must come from the files.

    Raises:
        ConfigError: there is no such folder or file, a split has several files that the sweep does not list, or a
            required split has none.
    """
    if path.is_file():
        if listed is not None and listed != SplitFiles():
            raise ConfigError(
                "has no effect, as data.path is a single file",
                field="data.files",
                value=listed.model_dump(exclude_defaults=True),
                remedy="Set data.path to the folder of the files.",
            )
        return _single(path, needs_test=needs_test)
    if not path.is_dir():
        raise _error("there is no such folder or file", path, f"Correct the path. {_EXPECTED}")
    patterns: Mapping[str, tuple[str, ...]] = (listed or SplitFiles()).model_dump()
    found = {split: _matching(path, split, patterns[split]) or _named_after(path, split) for split in SPLITS}
    for split in ("train", "test") if needs_test else ("train",):
        if not found[split]:
            raise _error(f"has no {split} file, such as {split}.jsonl", path, f"Correct the path. {_EXPECTED}")
    _require_one_split_each(found)
    return {split: files for split, files in found.items() if files}


def scored_files(path: Path) -> tuple[Path, ...]:
    """Find the files of a task's own questions: a single file, or those of ``test`` in a folder.

    Raises:
        ConfigError: there are none.
    """
    if path.is_file():
        if not _is_readable(path):
            raise _error("is a file of an unknown format", path, f"Rename or convert it to {', '.join(FORMATS)}.")
        return (path,)
    if not path.is_dir():
        raise _error("there is no such folder or file", path, "Correct the path.")
    if not (found := _named_after(path, "test", otherwise="give the file itself")):
        raise _error("has no test file, such as test.jsonl", path, "Correct the path, or give the file itself.")
    return found


def _require_one_split_each(found: Mapping[str, tuple[Path, ...]]) -> None:
    """Check that no file belongs to two splits: what is trained on must not be scored.

    Raises:
        ConfigError: one does.
    """
    split_of: dict[Path, str] = {}
    for split, files in found.items():
        for path in files:
            if (other := split_of.setdefault(path, split)) != split:
                raise ConfigError(
                    f"is in the {other} split and in the {split} split",
                    field=f"data.files.{split}",
                    value=path.name,
                    remedy="List files as data.files so that each is in one split.",
                )


def _single(path: Path, *, needs_test: bool) -> dict[str, tuple[Path, ...]]:
    if not _is_readable(path):
        raise _error("is a file of an unknown format", path, f"Rename or convert it. {_EXPECTED}")
    if needs_test:
        raise _error(
            "is a single file, so there is no test split",
            path,
            "Set data.hold_out.test to a share or number of its records, or give a folder with several files.",
        )
    return {"train": (path,)}


def _named_after(folder: Path, split: str, *, otherwise: str = "") -> tuple[Path, ...]:
    candidates = [folder / f"{split}{suffix}{gz}" for suffix in FORMATS for gz in ("", COMPRESSED)]
    present = tuple(path for path in candidates if path.is_file())
    if not present and (other := next((path for path in candidates if os.path.lexists(path)), None)):
        raise _error(f"{other.name} is not a file, or a link to one that exists", folder, "Correct it.")
    if len(present) > 1:
        raise _error(
            f"has {len(present)} files for the {split} split: {', '.join(path.name for path in present)}",
            folder,
            f"Keep one of them, or {otherwise or f'list them as data.files.{split}'}.",
        )
    return present


def _matching(folder: Path, split: str, patterns: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the files that match patterns, each once, in the order of the patterns and of their names."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        try:
            named = folder / pattern  # a file of this name is meant, whatever the name would match as a pattern
            paths = [named] if named.is_file() else sorted(folder.glob(pattern))
            matching = [path for path in paths if path.is_file() and _is_readable(path)]
        except (ValueError, IndexError, OSError) as error:  # IndexError: the pattern "." before Python 3.13
            raise ConfigError(
                f"is not a pattern of files: {error}",
                field=f"data.files.{split}",
                value=pattern,
                remedy="Use names, * within a name, and ** only as a whole folder, such as chat/**/*.jsonl.",
            ) from error
        if not matching:
            raise ConfigError(
                f"matches no {', '.join(FORMATS)} file in {folder}",
                field=f"data.files.{split}",
                value=pattern,
                remedy=f"Correct it. The folder has {_content(folder)}.",
            )
        found |= dict.fromkeys(matching)
    return tuple(found)


def _is_readable(path: Path) -> bool:
    return Path(path.name.removesuffix(COMPRESSED)).suffix in FORMATS


def _content(folder: Path, *, shown: int = 8) -> str:
    names = sorted(path.name for path in folder.iterdir())
    rest = len(names) - shown
    return (", ".join(names[:shown]) or "no files") + (f" and {rest} more" if rest > 0 else "")


def _error(problem: str, path: Path, remedy: str) -> ConfigError:
    return ConfigError(problem, field="data.path", value=str(path), remedy=remedy)


_EXPECTED = (
    "A data folder has train.jsonl, test.jsonl and optionally validation.jsonl; .json, .csv and .parquet, and .gz of "
    "each, are read as well. Files with other names are listed as data.files."
)
