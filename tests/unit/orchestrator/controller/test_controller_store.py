"""The controller's connection to the object store."""

import os
from pathlib import Path

import pytest

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.controller.sweep.store_connection import NOT_USABLE, StoreConnection
from surogate_bench_orchestrator.runtimes.kubernetes.settings import StoreSettings


def test_a_usable_store_is_opened(tmp_path: Path) -> None:
    connection = StoreConnection(StoreSettings(url=str(tmp_path)))
    assert not connection.is_checked
    connection.check()
    assert connection.is_checked
    assert connection.failure is None
    assert connection.store is not None


@pytest.mark.parametrize("error", [TransientError("no route"), PermanentError("denied")])
def test_a_store_that_cannot_be_used_is_a_failure_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: ObjectStore) -> None:
        raise error

    connection = StoreConnection(StoreSettings(url=str(tmp_path)))
    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "verify_conditional_writes", fail)
        connection.check()
    assert connection.is_checked
    assert connection.store is None
    assert connection.failure is not None
    assert connection.failure.reason == NOT_USABLE
    assert str(error.args[0]) in connection.failure.message
    connection.check()
    assert (connection.store is not None, connection.failure) == (True, None)


def test_credentials_are_read_from_the_secret_at_each_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_KEY", "old")
    mounted = tmp_path / "secret"
    mounted.mkdir()
    settings = StoreSettings(url=str(tmp_path / "store"), secret="bench-store", credentials=mounted)
    connection = StoreConnection(settings)
    connection.check()
    assert connection.failure is not None
    assert "Secret: does not exist, or is empty (got 'bench-store')" in connection.failure.message
    (mounted / "STORE_KEY").write_text("new")
    connection.check()
    assert connection.store is not None
    assert os.environ["STORE_KEY"] == "new"
