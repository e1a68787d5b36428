"""Layers that vLLM multiplies as one matrix, and for which it has one format."""

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby

MULTIPLIED_AS_ONE = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""``packed_modules_mapping`` of vLLM's models."""
_FAMILY = {name: family for family in MULTIPLIED_AS_ONE for name in family}


def fused_groups(layers: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Group the full names of layers that vLLM multiplies as one; each group is in vLLM's order."""

    def key(name: str) -> tuple[str, tuple[str, ...]]:
        parent, _, last = name.rpartition(".")
        return parent, _FAMILY.get(last, (last,))

    for _, names in groupby(sorted(layers, key=lambda name: (*key(name), _place(name))), key=key):
        yield tuple(names)


def divided_group(layers: Collection[str], among: Iterable[str]) -> tuple[str, ...]:
    """Return the first group of which some layers are in ``layers`` and some are not; empty if there is none.

    Args:
        layers: Full names of layers that have a format of their own.
        among: Full names of all layers.
    """
    return next((group for group in fused_groups(among) if 0 < len(set(group) & set(layers)) < len(group)), ())


def _place(name: str) -> int:
    last = name.rpartition(".")[2]
    return _FAMILY.get(last, (last,)).index(last)
