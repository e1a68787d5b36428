"""Digests of local inputs: SHA-256 that depends on names and bytes, never on a path or a time.

A digest of a folder is made of the digests of those of its files that decide a result (:func:`model_files`,
:func:`task_files`, and :func:`surogate_bench.inputs.data_files.split_files` for data), so a README or a checkpoint of
another framework next to them changes nothing.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from surogate_bench.errors import ConfigError
from surogate_bench.files import sha256_of

Digests = dict[str, str]
"""SHA-256 in hex by file name."""

_SETTINGS = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")
"""Configuration, tokenizer and chat templates of a model."""
_WEIGHTS = (".safetensors", ".bin")
"""Suffixes in the order in which transformers and vLLM prefer them: files with a later one are not read."""
_INCLUDE = re.compile(r"^include:\s*(\S+)", re.MULTILINE)
_OUTPUT_TYPE = re.compile(r"^output_type:\s*[\"']?(\w+)", re.MULTILINE)
_FUNCTION = re.compile(r"!function\s+([\w.]+)")
"""A function of a module next to the YAML file, as lm-eval's loader reads it: ``!function utils.doc_to_text``."""


def digests_of(files: Mapping[str, Path]) -> Digests:
    """Digest each file; symbolic links are followed."""
    return {name: sha256_of(path) for name, path in files.items()}


def combined(digests: Mapping[str, str]) -> str:
    """Combine the digests of several files, in any order, into one SHA-256 (hex)."""
    canonical = json.dumps(dict(digests), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def model_files(folder: Path) -> dict[str, Path]:
    """Find the files of a model in transformers format that decide what is loaded: weights, settings, tokenizer.

    Weights are the safetensors files, or, where there are none, the ``.bin`` files.
    """
    here = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}
    weights = next((suffix for suffix in _WEIGHTS if any(_has(name, (suffix,)) for name in here)), "")
    return {name: path for name, path in here.items() if _has(name, (*_SETTINGS, *([weights] if weights else [])))}


def has_weights(folder: Path) -> bool:
    """Return whether a folder has weights that transformers and vLLM load."""
    return any(_has(path.name, _WEIGHTS) for path in folder.iterdir() if path.is_file())


def task_files(task: Path) -> dict[str, Path]:
    """Find an lm-eval task's file, the files it includes, and the Python modules next to them that they name.

    Args:
        task: The task's YAML. Names are relative to its folder.
    """
    found: dict[str, Path] = {}
    pending = [task]
    while pending:
        path = pending.pop()
        name = os.path.relpath(path, task.parent)
        if name in found or not path.is_file():
            continue
        found[name] = path
        if path.suffix != ".py":
            text = path.read_text(encoding="utf-8", errors="replace")
            pending += [path.parent / included.strip("'\"") for included in _INCLUDE.findall(text)]
            pending += [path.parent / f"{module.partition('.')[0]}.py" for module in _FUNCTION.findall(text)]
    return dict(sorted(found.items()))


MULTIPLE_CHOICE = "multiple_choice"
"""Output type of the tasks of lm-eval that choose an answer."""


def output_type(task: Path) -> str | None:
    """Read an lm-eval task's output_type from its file or those it includes, without lm-eval.

    Args:
        task: The task's YAML.

    Returns:
        The output type; None if no file states it.
    """
    pending, known = [task], set[Path]()
    while pending:
        path = pending.pop()
        if path in known or not path.is_file():
            continue
        known.add(path)
        text = path.read_text(encoding="utf-8", errors="replace")
        if stated := _OUTPUT_TYPE.search(text):
            return stated[1]
        pending += [path.parent / included.strip("'\"") for included in _INCLUDE.findall(text)]
    return None


def require_same(recorded: Mapping[str, str], files: Mapping[str, Path], *, field: str, folder: Path) -> None:
    """Check that local files have not changed since they were recorded.

    Args:
        recorded: The recorded digests.
        files: The current files.
        field: Setting that names the folder, for the message.
        folder: The folder of the files, for the message.

    Raises:
        ConfigError: a file was changed, added or removed; names the first, with both digests shortened.
    """
    now = digests_of(files)
    differing = sorted(name for name in recorded.keys() | now.keys() if recorded.get(name) != now.get(name))
    if not differing:
        return
    first, more = differing[0], len(differing) - 1
    also = f" (and {more} more {'file' if more == 1 else 'files'})" if more else ""
    raise ConfigError(
        f"{first}{also} {_difference(recorded.get(first), now.get(first))}",
        field=field,
        value=str(folder),
        remedy="Results of the old and the new content would be mixed: restore it, or give the sweep another name.",
    )


def _difference(before: str | None, now: str | None) -> str:
    if before is None:
        return "was added since this sweep was prepared"
    if now is None:
        return "was removed since this sweep was prepared"
    return f"was changed since this sweep was prepared (sha256 {before[:12]} then, {now[:12]} now)"


def _has(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)
