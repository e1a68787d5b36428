"""Sweeps for tests: as small as they can be, and changed section by section."""

import copy
from collections.abc import Callable
from typing import Any

from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.yaml_io import parse_sweep

MakeSweep = Callable[..., RecipeSweep]
"""Makes a sweep of a fixture's choice; keyword arguments change its sections as those of :func:`small_document` do."""

_SMALL: dict[str, Any] = {
    "name": "small",
    "model": {"builtin": "tiny-qwen3-en"},
    "data": {"builtin": "word-problems-ro", "train_size": 8, "test_size": 8},
    "training": {"max_steps": 2},
    "recipes": ["bf16"],
}
_ALTERNATIVES = ({"builtin", "hub", "path"}, {"epochs", "max_steps"})
"""Fields of a section of which exactly one is set."""


def small_document(**changes: Any) -> dict[str, Any]:
    """Make the document of a small sweep; a change to a section is merged into it, anything else is replaced.

    Args:
        changes: Values by field, as in a sweep's file: ``training={"max_steps": 40}``, ``recipes=["fp8"]``.
    """
    return changed(_SMALL, changes)


def fitting_document(**changes: Any) -> dict[str, Any]:
    """Make the document of a small sweep whose sequences fit its model; see :func:`small_document`."""
    return changed(small_document(training={"max_length": 512}, serving={"max_model_len": 512}), changes)


def small_sweep(**changes: Any) -> RecipeSweep:
    """Make a small sweep; see :func:`small_document`."""
    return parse_sweep(small_document(**changes))


def changed(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Copy a sweep's document with changes, as :func:`small_document` makes them."""
    document = copy.deepcopy(document)
    for field, value in changes.items():
        section = document.get(field)
        document[field] = _merged(section, value) if isinstance(section, dict) and isinstance(value, dict) else value
    return document


def _merged(section: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    replaced = set[str]().union(*(fields for fields in _ALTERNATIVES if fields & change.keys()))
    return {name: value for name, value in section.items() if name not in replaced} | change
