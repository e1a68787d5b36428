"""Which samples share a row: best fit, in the order given."""

from bisect import bisect_left, insort
from collections.abc import Iterable


def pack(lengths: Iterable[int], capacity: int) -> list[list[int]]:
    """Put samples into rows: each into the fullest row so far that has room for it, or else into a new one.

    Taking the longest first (best-fit decreasing, as TRL does) needs about 1 % fewer rows, but then samples of one
    length end up together, row after row; in a drawn order every row is a mixture.

    Args:
        lengths: Tokens of each sample, at least 1.
        capacity: Tokens a row holds.

    Returns:
        Rows of sample indices; every index appears exactly once.

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
