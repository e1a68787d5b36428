"""Files in folders that other processes change meanwhile."""

import os
from pathlib import Path


def files_below(root: Path, pattern: str) -> list[Path]:
    """Return the files whose path ends in a pattern, sorted; folders that vanish meanwhile have none.

    ``Path.rglob`` raises in that case.
    """
    paths = (Path(folder) / name for folder, _, names in os.walk(root) for name in names)
    return sorted(path for path in paths if path.match(pattern))


def texts_below(root: Path, pattern: str) -> list[str]:
    """Return the texts of these files, without those that vanish meanwhile."""
    texts = []
    for path in files_below(root, pattern):
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
    return texts
