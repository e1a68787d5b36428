"""Fixtures of the orchestrator's tests."""

from pathlib import Path

import pytest
from worlds.report import MakeWorld, ReportWorld, report_sweep

from surogate_bench.store.object_store import open_store


@pytest.fixture
def report_world(tmp_path: Path) -> MakeWorld:
    """Make an empty store and a sweep; keyword arguments replace fields of the sweep."""

    def make(**changes: object) -> ReportWorld:
        store = open_store(str(tmp_path / "store"))
        return ReportWorld(store=store, sweep=report_sweep(**changes), folder=tmp_path / "work")

    return make
