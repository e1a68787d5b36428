"""The check of ``serving.extra_args``: vLLM's own parser is asked."""

import os
from pathlib import Path
from typing import Any

import pytest
from sweeps import small_sweep

from surogate_bench.errors import ConfigError, TransientError
from surogate_bench.results import CheckResult
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import CheckRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_model_server import check, main
from surogate_bench_model_server.vllm.command import Command


def request_of(folder: Path, *extra: str, **changes: Any) -> CheckRequest:
    sweep = small_sweep(serving={"extra_args": extra})
    request = CheckRequest(sweep=sweep, store=str(folder / "store"), subject="serving")
    return request.model_copy(update=changes)


@pytest.mark.e2e
def test_as_a_service_it_names_the_field_and_does_not_pass(tmp_path: Path) -> None:
    request = request_of(tmp_path, "--nonsense")
    with pytest.raises(ConfigError, match="unrecognized arguments: --nonsense") as caught:
        main._handle(request, tmp_path / "work")
    assert (caught.value.field, caught.value.value) == ("serving.extra_args", "--nonsense")
    assert read_manifest(open_store(request.store), request.layout.check("serving")) is None


def test_a_parser_that_cannot_be_asked_keeps_no_sweep_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU, vLLM for GPUs might not even be imported."""
    monkeypatch.setattr(check, "_PARSER", "no_such_module")
    request = request_of(tmp_path, "--enable-prefix-caching")
    (tmp_path / "work").mkdir()
    main._handle(request, tmp_path / "work")
    manifest = read_manifest(open_store(request.store), request.layout.check("serving"))
    assert manifest is not None
    assert "no_such_module" in (manifest.require_result(CheckResult).omitted or "")
    main._handle(request, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_parser_that_hangs_may_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_TIMEOUT_S", 0.0)
    command = Command(arguments=["python", "--model", "tiny", "--x"], environment=dict(os.environ))
    with pytest.raises(TransientError, match="did not end"):
        check.ask_parser(command, ("--x",))


def test_a_task_check_is_not_for_the_model_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not for this service"):
        main._handle(request_of(tmp_path, "--x", subject="task"), tmp_path)
