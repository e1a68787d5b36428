"""Cells of CSV files."""

from collections.abc import Sequence

_SPREADSHEET_TRIGGERS = ("=", "+", "-", "@", "\t", "\r")


def inert(text: str) -> str:
    """Keep a spreadsheet from taking a title or a reason for a formula."""
    return f"'{text}" if text.startswith(_SPREADSHEET_TRIGGERS) else text


def flag(value: bool) -> str:
    """Return ``true`` or an empty cell."""
    return "true" if value else ""


def numbers(seeds: Sequence[int]) -> str:
    """Return numbers separated by blanks."""
    return " ".join(map(str, seeds))
