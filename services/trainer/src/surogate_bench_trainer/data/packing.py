"""Which samples share a row: best-fit decreasing, the heuristic that TRL's packing uses too."""

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put samples into as few rows as a greedy rule finds: longest first, each into the fullest row that has room.

    Equal lengths keep their order, so the outcome depends on nothing but the arguments.

    Args:
        lengths: Tokens of each sample, all between 1 and ``capacity``.
        capacity: Tokens a row holds.

    Returns:
        Rows of sample indices; every index appears exactly once.

    Raises:
        ValueError: a sample is longer than a row.
    """
    if max(lengths, default=0) > capacity:
        raise ValueError(f"a sample of {max(lengths)} tokens does not fit a row of {capacity}")
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
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
