"""A store that commit 30b2de8 wrote, before stages were identified by content, is read and continued as it is."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import CommandLine

FROZEN = Path(__file__).parents[3] / "support" / "old_store"


@pytest.fixture
def old_store(tmp_path: Path) -> Path:
    """A copy of the store."""
    return shutil.copytree(FROZEN / "store", tmp_path / "store")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capsys)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of runs and preparation, by its path."""
    found = [path for part in ("runs", "prepare") for path in folder.rglob(f"{part}/**/*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_its_status_shows_every_run_as_it_ended(call: CommandLine, old_store: Path) -> None:
    code, out, _ = call("status", FROZEN / "sweep.yaml", "--store", old_store, "--json")
    assert code == 0
    runs = {each["name"]: each for each in json.loads(out)["runs"]}
    assert {name: each["state"] for name, each in runs.items()} == dict.fromkeys(
        ("base", "bf16-s0", "qfp8-bf16-s0"), "Succeeded"
    )
    assert runs["bf16-s0"]["accuracy"] == 0.0


def test_running_its_sweep_repeats_nothing_and_reports_what_it_holds(call: CommandLine, old_store: Path) -> None:
    before = contents(old_store)
    code, out, err = call("run", FROZEN / "sweep.yaml", "--store", old_store, "--state-dir", old_store.parent / "state")
    assert code == 0, err
    assert "Training" not in out + err
    assert contents(old_store) == before
    (summary,) = old_store.rglob("report/summary.json")
    rows = {row["key"]: row for row in json.loads(summary.read_text(encoding="utf-8"))["rows"]}
    assert {name: (row["state"], row["score"]["samples"]) for name, row in rows.items()} == dict.fromkeys(
        ("base", "bf16", "qfp8-bf16"), ("succeeded", 10)
    )
    assert [rows[name]["training"]["steps"] for name in ("bf16", "qfp8-bf16")] == [6, 6]
