"""Sizes: files and functions stay short enough to be read at once."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

MAX_LINES = {"services": 300, "tests": 400}
MEDIAN_LINES = 8
P95_LINES = 30


def modules(folder: str) -> list[Path]:
    return [file for file in sorted((ROOT / folder).rglob("*.py")) if "build" not in file.parts]


def function_lengths(module: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.end_lineno - node.lineno + 1


@pytest.mark.parametrize(("folder", "limit"), MAX_LINES.items())
def test_no_module_is_longer_than_its_limit(folder: str, limit: int) -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text("utf-8").splitlines()) for file in modules(folder)}
    assert lengths
    assert not {file: lines for file, lines in lengths.items() if lines > limit}


def test_functions_of_the_services_are_short() -> None:
    lengths = [length for module in modules("services") for length in function_lengths(module)]
    assert statistics.median(lengths) <= MEDIAN_LINES
    assert statistics.quantiles(lengths, n=20)[-1] <= P95_LINES
