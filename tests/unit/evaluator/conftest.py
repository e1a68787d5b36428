"""What holds for every test of the evaluator: it changes the environment of its process, and polls the server often."""

import os
from collections.abc import Iterator

import pytest

from surogate_bench_evaluator import server


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the environment after each test, and do not wait long between two looks at a server."""
    before = dict(os.environ)
    monkeypatch.setattr(server, "_POLL_S", 0.01)
    yield
    os.environ.clear()
    os.environ.update(before)
