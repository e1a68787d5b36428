"""The command line with unusual streams, folders, stores and variables."""

import os
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from command_line import CommandLine, write_sweep
from stand_ins.s3 import CREDENTIALS, Bucket, serving

from surogate_bench.store.object_store import open_store
from surogate_bench_orchestrator.cli.commands import gc as gc_command
from surogate_bench_orchestrator.cli.targets.local import sweep as local_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "sweep.yaml")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """The command line in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capsys)


def shell(command: str, folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a shell command, in which $SB stands for the command line."""
    program = f'"{sys.executable}" -m surogate_bench_orchestrator'
    return subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {command.replace('$SB', program)}"],
        cwd=folder, env=os.environ | variables, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "code", "expected"),
    [
        ("$SB status sweep.yaml >&-", 2, "standard output: is closed, and results are written there. Redirect it"),
        ("$SB validate sweep.yaml >&-", 2, "standard output: is closed"),
        ("$SB --help >&-", 2, "standard output: is closed"),
        ("$SB status sweep.yaml > /dev/full", 1, "standard output: No space left on device"),
        ("$SB --help > /dev/full", 1, "standard output: No space left on device"),
        (
            "(until [ -e closed ]; do sleep 0.1; done; $SB render sweep.yaml) | (exec <&-; touch closed)",
            1,
            "standard output: its reader has ended",
        ),
        ("mkdir gone; cd gone; rmdir ../gone; $SB status ../sweep.yaml", 2, "current folder: has been deleted"),
        (
            "mkdir gone; cd gone; rmdir ../gone; $SB init --yes --model a/b --data c/d",
            2,
            "current folder: has been deleted",
        ),
        ("$SB status nowhere.yaml 2>&-", 2, ""),
        ("$SB status sweep.yaml <&-", 0, ""),
    ],
)
def test_a_stream_or_folder_that_is_gone_is_reported_in_one_line(
    sweep: Path, command: str, code: int, expected: str
) -> None:
    ended = shell(command, sweep.parent)
    assert ended.returncode == code, ended.stderr
    if expected:
        assert ended.stderr.startswith(f"surogate-bench: {expected}")
        assert ended.stderr.count("\n") == 1
    else:
        assert ended.stderr == ""


def test_a_terminal_without_accents_gets_the_table_all_the_same(tmp_path: Path) -> None:
    write_sweep(tmp_path / "é.yaml", name="small", description="Întrebare")
    ended = shell("$SB status é.yaml && $SB validate é.yaml", tmp_path, PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert r"\xe9.yaml is valid" in ended.stdout


@pytest.mark.parametrize("name", ["My José", "a#b", "a%20b", "a?b", "it's"])
def test_a_command_that_only_shows_a_sweep_works_in_a_folder_of_any_name_and_leaves_nothing(
    tmp_path: Path, call: CommandLine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    path = write_sweep(folder / "my sweep.yaml")
    monkeypatch.chdir(folder)
    for arguments in (("status", path), ("render", path), ("validate", path), ("status", path, "--store", "./r#1/")):
        code, _, err = call(*arguments)
        assert (code, err) == (0, "")
    assert [entry.name for entry in folder.iterdir()] == ["my sweep.yaml"]


@pytest.mark.parametrize("command", ["run", "status", "report", "gc"])
@pytest.mark.parametrize(
    ("status", "code", "expected", "remedy"),
    [
        (403, "RequestTimeTooSkewed", "cannot be used: this machine's clock differs", "Set the clock"),
        (404, "NoSuchBucket", "cannot be used: there is no such bucket", "Create the bucket"),
        (503, "SlowDown", "cannot be reached: the store answers 503", "AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_store_that_refuses_or_is_unavailable_is_bad_input_for_every_command(
    sweep: Path,
    call: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    status: int,
    code: str,
    expected: str,
    remedy: str,
) -> None:
    without_retries = partial(open_store, patience=timedelta(0))
    for module in (local_sweep, gc_command):
        monkeypatch.setattr(module, "open_store", without_retries)
    with serving(Bucket(refusal=(status, code))) as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        of_sweep = [] if command == "gc" else [sweep]
        exit_code, out, err = call(command, *of_sweep, "--store", "s3://bucket/results")
    assert (exit_code, out) == (2, "")
    assert err.startswith(f"surogate-bench: store: {expected}")
    assert f"{code}: Words of {code}" in err
    assert remedy in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "status", "report"])
@pytest.mark.parametrize(
    ("store", "variables", "expected"),
    [
        ("s3://", {}, "store: names no bucket"),
        ("s3://bucket//a//b", {}, "store: has an empty part"),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "127.0.0.1:9000"}, "AWS_ENDPOINT_URL: is not an address (got '127.0.0"),
        ("sweep.yaml", {}, "store: is a file, not a folder"),
        ("sweep.yaml/x", {}, "store: cannot be a folder: "),
        ("", {}, "store: is empty"),
        ("x" * 300, {}, "store: cannot be used: File name too long"),
        ("~nosuchuser/x", {}, "store: there is no user nosuchuser"),
    ],
)  # fmt: skip
def test_a_store_that_cannot_be_opened_is_bad_input_in_one_line(
    sweep: Path,
    call: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    store: str,
    variables: dict[str, str],
    expected: str,
) -> None:
    for name, value in (CREDENTIALS | variables).items():
        monkeypatch.setenv(name, value)
    code, out, err = call(command, sweep, "--store", store)
    assert (code, out) == (2, "")
    assert err.startswith(f"surogate-bench: {expected}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "status", "render"])
@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("sweep.yaml", "is a file, not a folder"),
        ("sweep.yaml/x", "cannot be a folder"),
        ("~nosuchuser/x", "there is no user nosuchuser"),
        ("x" * 300, "cannot be used: File name too long"),
    ],
)
def test_a_state_folder_that_cannot_be_is_bad_input(
    sweep: Path, call: CommandLine, command: str, folder: str, expected: str
) -> None:
    code, out, err = call(command, sweep, "--state-dir", folder)
    assert (code, out) == (2, "")
    assert err.startswith(f"surogate-bench: state-dir: {expected}")


def test_an_endpoint_of_the_hub_that_is_none_stops_a_run_before_it_starts(
    tmp_path: Path, call: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    path = write_sweep(tmp_path / "hub.yaml", model={"hub": "owner/model"})
    code, out, err = call("run", path)
    assert (code, out) == (2, "")
    assert err.startswith("surogate-bench: HF_ENDPOINT: is not an address (got 'huggingface.co')")
