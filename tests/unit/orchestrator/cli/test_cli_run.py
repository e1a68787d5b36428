"""``surogate-bench run`` with services that take no time: results, failures, interruption, and starting again."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import CommandLine, Result, write_sweep
from files_below import files_below, texts_below
from waiting import PATIENCE_S, has_ended, until

from surogate_bench.contract import TASK_DIR_VARIABLE
from surogate_bench_orchestrator.runtimes.local import runtime, supervised
from surogate_bench_orchestrator.sweep import runner

FAKE_SERVICE = Path(__file__).parents[3] / "contract" / "fake_service.py"


@dataclass
class Workplace:
    """A folder with a sweep, and the command line on it."""

    folder: Path
    environment: dict[str, str]
    command_line: CommandLine
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    @property
    def sweep(self) -> Path:
        return self.folder / "sweep.yaml"

    def write(self, behaviours: Mapping[str, str] | None = None, **changes: Any) -> None:
        write_sweep(self.sweep, description=json.dumps(dict(behaviours or {})), max_attempts=2, **changes)

    def arguments(self, command: str, *more: str) -> list[str]:
        folders = ["--store", str(self.folder / "results"), "--state-dir", str(self.folder / "state")]
        return [command, str(self.sweep), *folders, *more]

    def __call__(self, command: str, *more: str) -> Result:
        """Run a command in this folder."""
        return self.command_line(*self.arguments(command, *more))

    def start(self, *more: str) -> "subprocess.Popen[str]":
        """Run a sweep in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "surogate_bench_orchestrator", *self.arguments("run", *more)],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def clear(self) -> None:
        """End what a failed test left."""
        for process in self.started:
            with process:
                process.kill()
        for task in self.processes():
            task.kill()

    def release(self) -> None:
        """Let tasks continue that are held."""
        Path(self.environment["SUROGATE_BENCH_TEST_RELEASE"]).touch()

    def manifests(self) -> dict[str, str]:
        """When each finished stage was made."""
        paths = files_below(self.folder / "results", "manifest.json")
        return {str(path.parent): json.loads(path.read_bytes())["created"] for path in paths}

    def progress(self) -> list[str]:
        """What the tasks report."""
        return texts_below(self.folder / "state", "progress.json")

    def processes(self) -> list[psutil.Process]:
        """Tasks of this sweep that run."""
        found = []
        for process in psutil.process_iter():
            try:
                mark = process.environ().get(TASK_DIR_VARIABLE, "")
            except (psutil.Error, OSError):
                continue
            if mark.startswith(str(self.folder)) and not has_ended(process):
                found.append(process)
        return found


@pytest.fixture
def workplace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workplace]:
    """A folder whose services are fakes: modules found before the real ones."""
    modules = tmp_path / "modules"
    for service in ("trainer", "model_server", "evaluator"):
        package = modules / f"surogate_bench_{service}"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(
            f"import runpy\nrunpy.run_path({str(FAKE_SERVICE)!r}, run_name='__main__')"
        )
    monkeypatch.setattr(runner, "POLL_S", 0.05)
    monkeypatch.setattr(runtime, "_LEFTOVER_GRACE_S", 0.5)
    monkeypatch.setattr(supervised, "_BACKOFF_S", (0.1,))
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.setenv("SUROGATE_BENCH_TEST_RELEASE", str(tmp_path / "release"))
    made = Workplace(tmp_path, dict(os.environ), CommandLine(monkeypatch, capsys))
    made.write()
    yield made
    made.clear()


def test_a_sweep_runs_to_the_end_shows_its_table_and_leaves_nothing_running(workplace: Workplace) -> None:
    code, out, err = workplace("run")
    assert (code, err) == (0, "")
    assert "prepare: Done" in out
    assert "bf16-s0: Succeeded" in out
    assert "Base model" in out
    report = Path(out.rpartition("Report: ")[2].strip())
    assert report.name == "report.html"
    assert report.is_file()
    assert workplace.processes() == []


def test_logs_shows_what_a_run_wrote_stage_by_stage(workplace: Workplace) -> None:
    workplace("run")
    logs = sorted((workplace.folder / "state").rglob("*bf16-s0-train*/log.txt"))
    logs[0].write_text("one\ntwo\n")
    arguments = workplace.arguments("logs")
    arguments.insert(2, "bf16-s0")
    code, out, _ = workplace.command_line(*arguments, "--stage", "train", "--tail", 1)
    assert (code, out) == (0, "==> bf16-s0 (train) <==\ntwo\n")


def test_a_finished_sweep_ends_at_once_with_the_same_table_and_repeats_nothing(workplace: Workplace) -> None:
    _, first, _ = workplace("run")
    before = workplace.manifests()
    code, second, _ = workplace("run")
    assert code == 0
    assert "Training" not in second
    assert second.strip() in first
    assert workplace.manifests() == before
    assert len(before) == 5


def test_a_finished_sweep_that_is_run_again_is_the_one_in_use(workplace: Workplace) -> None:
    workplace("run")
    (first,) = (workplace.folder / "results").rglob("spec.json")
    workplace.write(seeds=[1])
    workplace("run")
    workplace.write()
    workplace("run")
    _, out, _ = workplace.command_line("gc", "--store", workplace.folder / "results", "--json")
    found = json.loads(out)["found"]
    assert first.parent.name not in {each["spec_hash"] for each in found}


def test_json_goes_to_standard_output_alone_and_progress_to_standard_error(workplace: Workplace) -> None:
    code, out, err = workplace("run", "--json")
    document = json.loads(out)
    assert code == 0
    assert {run["name"]: run["state"] for run in document["runs"]} == {"base": "Succeeded", "bf16-s0": "Succeeded"}
    assert document["runs"][1]["accuracy"] == 0.5
    assert document["finished"]
    assert "bf16-s0: Succeeded" in err


def test_what_preparation_warns_of_is_on_the_terminal_in_json_and_in_the_report(workplace: Workplace) -> None:
    workplace.write({"prepare prepare": "warns"})
    warning = "All 4 test questions are in the training split too."
    code, out, _ = workplace("run")
    assert code == 0
    assert f"prepare: Done  Warning: {warning}" in out, "while it runs"
    assert f"\nWarning: {warning}\n" in out, "under the table"
    assert f"\nWarning: {warning}\n" in workplace("run")[1], "of a finished sweep"
    assert json.loads(workplace("run", "--json")[1])["warnings"] == [warning]
    (page,) = (workplace.folder / "results").rglob("report.html")
    assert warning in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("changed", ["data/train.jsonl", "model/config.json"])
def test_data_or_a_model_that_was_replaced_is_refused_before_the_old_table_is_shown(
    workplace: Workplace, changed: str
) -> None:
    for name in ("data/train.jsonl", "data/test.jsonl", "model/config.json"):
        path = workplace.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    workplace.write(model={"path": "model"}, data={"path": "data"})
    code, table, _ = workplace("run")
    assert code == 0
    (workplace.folder / changed).write_text('{"other": 1}')
    code, out, err = workplace("run")
    assert (code, out) == (2, "")
    assert f"{Path(changed).name} was changed since this sweep was prepared (sha256 44136fa355b3 then, " in err
    assert "restore it, or give the sweep another name" in err
    (workplace.folder / changed).write_text("{}")
    code, out, _ = workplace("run")
    assert code == 0
    assert out in table
    (workplace.folder / changed).parent.rename(workplace.folder / "moved")
    assert workplace("run")[0] == 2
    assert workplace("report")[0] == 0, "results can be read without what they were made from"


def test_one_failing_run_does_not_stop_the_others_and_the_next_start_tries_only_it(workplace: Workplace) -> None:
    workplace.write({"train fp8-s0": "crash"}, recipes=["bf16", "fp8"])
    code, out, err = workplace("run")
    assert code == 1
    assert "bf16-s0: Succeeded" in out
    assert "fp8-s0: Failed" in out
    assert "exit code 7" in out
    log = Path(err.partition("Log of ")[2].partition(": ")[2].split("\n")[0])
    assert log.read_text().count("train fp8-s0") == 2
    before = workplace.manifests()
    code, out, _ = workplace("run")
    assert code == 1
    assert "fp8-s0: Failed" in out
    assert "bf16-s0: Training" not in out
    assert workplace.manifests() == before
    assert log.read_text().count("train fp8-s0") == 4


def test_a_recipe_that_cannot_run_here_is_skipped_with_its_reason(workplace: Workplace) -> None:
    workplace.write({"train bf16-s0": "unsupported"})
    code, out, _ = workplace("run")
    assert code == 1
    assert "bf16-s0: Skipped" in out
    assert "no engine" in out


def require_bad_input_before_training(code: int, out: str, err: str) -> None:
    assert code == 2
    assert "data.path: is wrong (got '/nowhere'). Correct it." in err
    assert "Training" not in out
    assert "model server" not in out
    assert (out.count("is wrong"), err.count("is wrong")) == (1, 1), "not once more for every run"


def test_bad_data_found_by_preparation_is_bad_input_and_nothing_else_starts(workplace: Workplace) -> None:
    workplace.write({"prepare prepare": "bad-input"})
    require_bad_input_before_training(*workplace("run"))
    assert workplace.manifests() == {}


def test_a_task_that_its_check_refuses_is_bad_input_before_anything_is_trained(workplace: Workplace) -> None:
    workplace.write({"check task": "bad-input"})
    require_bad_input_before_training(*workplace("run"))
    assert [Path(folder).name for folder in workplace.manifests()] == ["prepare"]


def test_arguments_that_vllms_parser_refuses_are_bad_input_before_anything_is_trained(workplace: Workplace) -> None:
    workplace.write({"check serving": "bad-input"}, serving={"extra_args": ["--nonsense"]})
    code, out, err = workplace("run")
    assert code == 2
    assert "data.path: is wrong (got '/nowhere'). Correct it." in err
    assert "Training" not in out


def test_a_store_from_before_there_were_checks_is_continued_without_training_again(workplace: Workplace) -> None:
    workplace("run")
    before = workplace.manifests()
    (check,) = (Path(folder) for folder in before if "checks" in folder)
    (evaluated,) = (Path(folder) for folder in before if folder.endswith("bf16-s0/eval"))
    shutil.rmtree(check.parent)
    assert workplace("run")[0] == 0
    assert not check.exists(), "a finished sweep is finished"
    shutil.rmtree(evaluated)
    code, out, _ = workplace("run")
    assert code == 0
    assert "task check: Done" in out
    assert "Training" not in out
    after = workplace.manifests()
    assert {folder for folder in after if after[folder] != before[folder]} == {str(check), str(evaluated)}


def test_a_server_that_does_not_start_fails_the_evaluations_and_keeps_the_adapters(workplace: Workplace) -> None:
    workplace.write({"serve serve": "bad-input"})
    code, out, _ = workplace("run")
    assert code == 1
    assert "the model server failed" in out
    assert len(workplace.manifests()) == 3


def test_a_crash_of_a_trainer_is_survived(workplace: Workplace) -> None:
    workplace.write({"train bf16-s0": "killed-once"})
    code, out, _ = workplace("run")
    assert code == 0
    assert "killed by SIGKILL" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_and_the_next_start_goes_on(workplace: Workplace, number: signal.Signals) -> None:
    workplace.write({"train bf16-s0": "hang"})
    running = workplace.start()
    until(lambda: "hang" in "".join(workplace.progress()), "training starts")
    running.send_signal(number)
    _, err = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130
    assert "interrupted" in err
    assert workplace.processes() == []
    before = workplace.manifests()
    status = json.loads(workplace("status", "--json")[1])
    assert {run["name"]: run["state"] for run in status["runs"]} == {"base": "Pending", "bf16-s0": "Pending"}
    assert before.items() <= workplace.manifests().items()


def test_children_of_a_killed_orchestrator_end_and_the_next_start_finishes(workplace: Workplace) -> None:
    workplace.write({"train bf16-s0": "held"})
    running = workplace.start()
    until(lambda: "held" in "".join(workplace.progress()), "training starts")
    running.kill()
    running.communicate(timeout=PATIENCE_S)
    until(lambda: not workplace.processes(), "orphans end")
    workplace.release()
    code, _, _ = workplace("run")
    assert code == 0
    assert workplace.processes() == []


def test_what_ignores_its_parents_death_is_killed_by_the_next_start(workplace: Workplace) -> None:
    workplace.write({"train bf16-s0": "stubborn-once"})
    running = workplace.start()
    until(lambda: "stubborn" in "".join(workplace.progress()), "training starts")
    running.kill()
    running.communicate(timeout=PATIENCE_S)
    assert workplace.processes()
    code, out, _ = workplace("run")
    assert code == 0
    assert "an earlier run had left running" in out
    assert workplace.processes() == []


def test_the_second_of_two_waits_names_the_holder_and_shows_the_same(workplace: Workplace) -> None:
    workplace.write({"train bf16-s0": "held"})
    first = workplace.start()
    until(workplace.processes, "the sweep starts")
    code, _, err = workplace("run", "--no-wait")
    assert code == 1
    assert f"process {first.pid} on" in err
    assert json.loads(workplace("status", "--json")[1])["held_by"].startswith(f"process {first.pid} ")
    second = workplace.start()
    assert second.stderr is not None
    line = second.stderr.readline()
    assert f"process {first.pid} on" in line
    assert "waiting" in line
    workplace.release()
    out, err = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0, err
    assert out.strip() in first.communicate(timeout=PATIENCE_S)[0]
    assert first.returncode == 0
    assert json.loads(workplace("status", "--json")[1])["held_by"] is None


def test_status_shows_a_running_sweep_from_another_process(workplace: Workplace) -> None:
    workplace.write({"train bf16-s0": "hang"})
    running = workplace.start()
    try:
        until(lambda: "Training" in workplace("status")[1], "training is shown")
    finally:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=PATIENCE_S)


def test_report_copies_what_is_finished_and_refuses_when_nothing_is(workplace: Workplace) -> None:
    code, _, err = workplace("report")
    assert code == 1
    assert "no run of sweep small has finished" in err
    workplace.write({"train bf16-s0": "crash"})
    workplace("run")
    code, out, _ = workplace("report", "--output", str(workplace.folder / "copy"))
    assert code == 0
    assert "Base model" in out
    assert "exit code 7" in out
    assert {"report.html", "summary.csv", "summary.json", "summary.md"} <= {
        path.name for path in (workplace.folder / "copy").iterdir()
    }


def test_an_unwritable_state_folder_is_bad_input(workplace: Workplace) -> None:
    (workplace.folder / "state").touch()
    code, _, err = workplace("run")
    assert code == 2
    assert "state-dir" in err


def test_a_full_disk_is_bad_input_before_anything_starts(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 5 << 20})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    code, out, err = workplace("run")
    assert code == 2
    assert "5 MiB free" in err
    assert out == ""
