"""Packing of samples into rows by best fit, in the given order."""

from bisect import bisect_left, insort
from collections.abc import Iterable


def pack(lengths: Iterable[int], capacity: int) -> list[list[int]]:
    """Pack samples into rows: each into the fullest row with enough space, or else into a new one.

    Sorting by decreasing length (best-fit decreasing, as in TRL) needs about 1 % fewer rows, but puts samples of equal
    length into the same rows. In random order every row is a mixture.

    Args:
        lengths: Tokens of each sample, at least 1.
        capacity: Most tokens of a row.

    Returns:
        Rows of sample indices. Every index appears exactly once.

    Raises:
        ValueError: a sample is longer than a row.
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for index, length in enumerate(lengths):
        if length > capacity:
            raise ValueError(f"a sample of {length} tokens does not fit a row of {capacity}")
        fit = bisect_left(free, (length, -1))
        if fit < len(free):
            left, row = free.pop(fit)
            rows[row].append(index)
        else:
            left, row = capacity, len(rows)
            rows.append([index])
        if left > length:
            insort(free, (left - length, row))
    return rows
