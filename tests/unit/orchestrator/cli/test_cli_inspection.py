"""``surogate-bench validate --deep``: how samples are marked, where times come from, what is left behind."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, write_sweep
from finished_stages import manifest_of, publish
from rich.console import Console
from sweeps import small_sweep
from waiting import PATIENCE_S, until

from surogate_bench.errors import ExitCode
from surogate_bench.machine.hardware import Hardware
from surogate_bench.results import PrepareResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.inspection import Inspection, LengthBin, Lengths, SeedSchedule, TextPart, TrainedTokens
from surogate_bench.stages.manifest import result_of
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_orchestrator.cli.commands.inspection.estimates import disk_needs, recipe_needs
from surogate_bench_orchestrator.cli.commands.inspection.framed import Marks, marked, print_framed
from surogate_bench_orchestrator.cli.commands.inspection.page import show_inspection
from surogate_bench_orchestrator.cli.commands.inspection.speeds import Here, Measured, measured_speeds
from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.runtimes.local.machine import Allotment

EMBEDDED = Path(__file__).parents[4] / "configs" / "sweeps" / "embedded.yaml"
PARTS = (TextPart(text="2?\nA:", counts=False), TextPart(text=" 5\x1b[2J[red]\n#### 5<|im_end|>", counts=True))
HERE = Here(hardware=Hardware(), allotment=Allotment(slots=1, side_by_side=1, threads=1))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capsys)


def printed(*, parts: tuple[TextPart, ...] = PARTS, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=20, **options)
    marks = Marks.of(console)
    print_framed(console, marked(parts, marks), marks)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_counts_is_between_marks_and_control_characters_are_escaped() -> None:
    assert printed() == "│ 2?\n│ A:⟦ 5\\x1b[2J[red]\n│ #### 5<|im_end|>⟧\n"


def test_what_counts_is_also_coloured_on_a_terminal_unless_colours_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    green = "\x1b[1;32m"
    assert f"A:{green}⟦ 5" in printed(force_terminal=True).replace("\x1b[0m", "")
    assert "\x1b[1;32m" not in printed(force_terminal=True, no_color=True)


def test_long_lines_are_wrapped_inside_the_frame_and_long_parts_are_shortened() -> None:
    lines = printed(parts=(TextPart(text="ab " * 1000, counts=False),)).splitlines()
    assert all(line.startswith("│ ") and len(line) <= 20 for line in lines)
    assert "(1,800 characters left out)" in " ".join(" ".join(line.removeprefix("│ ") for line in lines).split())


def test_lengths_of_one_token_and_a_single_run_are_no_ranges_and_no_plurals() -> None:
    tokens = TrainedTokens(tokens=22, counted=11)
    bins = (LengthBin(first=7, last=7, samples=2), LengthBin(first=8, last=8, samples=1))
    inspection = Inspection(
        prepared=PrepareResult(data={}, model_source="tiny", model_in_store=False),
        configuration={},
        samples=(),
        tasks=(),
        lengths=Lengths(samples=3, minimum=7, median=7, p95=8, maximum=8, limit=9, bins=bins),
        epoch=tokens,
        schedules=(SeedSchedule(seed=0, rows=1, row_fill=0.9, steps_per_epoch=1, steps=1, total=tokens),),
        model_bytes=1,
        data_bytes=1,
        lora_parameters=1,
    )
    console, sweep = Console(file=io.StringIO(), width=80), small_sweep()
    show_inspection(
        inspection,
        sweep,
        recipe_needs(sweep, inspection, {}),
        disk_needs(sweep, inspection, side_by_side=1),
        console,
    )
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert "7  ████████████████████████████████████████ 2" in lines
    assert any(line.startswith("Adapters: ") and line.endswith(" (1 training run)") for line in lines)


def finished(store: ObjectStore, sweep: RecipeSweep, folder: Path, **result: Any) -> PrepareResult:
    """Publish the preparation and all training runs of a sweep."""
    planned = plan(sweep, store.url)
    store.put(planned.layout.spec, sweep.model_dump_json().encode())
    publish(store, planned.prepare, folder)
    for task in planned.training_order:
        publish(store, task, folder, **result)
    prepared = result_of(manifest_of(planned.prepare.request), PrepareResult)
    assert prepared is not None
    return prepared


def speeds(
    tmp_path: Path, here: Here = HERE, result: dict[str, Any] | None = None, gpus: int = 1, **changes: Any
) -> dict[str, Measured]:
    """Measure a sweep, and return what holds for another one, which differs from it."""
    store = open_store(str(tmp_path / "store"))
    earlier = small_sweep(name="earlier", recipes=["bf16", "fp8"], training={"epochs": 2, "gpus": gpus})
    prepared = finished(store, earlier, tmp_path / "work", **(result or {}))
    sweep = small_sweep(name="next", **({"recipes": ["bf16", "fp4"], "training": {"max_steps": 9}} | changes))
    return dict(measured_speeds(store, sweep, prepared, here))


def test_a_speed_is_that_of_a_finished_training_of_the_same_recipe_however_long_it_was(tmp_path: Path) -> None:
    found = speeds(tmp_path, result={"tokens_per_second": 250.0, "peak_memory_bytes": 7})
    assert list(found) == ["bf16"]
    assert (found["bf16"].tokens_per_second, found["bf16"].peak_memory_bytes) == (250.0, 7)
    assert found["bf16"].run == "bf16-s0"
    assert found["bf16"].sweep.startswith("earlier/")


def test_a_speed_of_several_processes_holds_for_as_many_that_share_the_threads(tmp_path: Path) -> None:
    here = Here(hardware=Hardware(), allotment=Allotment(slots=2, side_by_side=1, threads=7))
    result = {"processes": 2, "threads": 3, "tokens_per_second": 250.0}
    found = speeds(tmp_path, here, result, gpus=2, training={"max_steps": 9, "gpus": 2})
    assert found["bf16"].tokens_per_second == 250.0


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"max_steps": 9, "lora": {"r": 4}}},
        {"training": {"max_steps": 9, "micro_batch_size": 3}},
        {"training": {"max_steps": 9, "gpus": 2}},
        {"engine": "emulated"},
        {"model": {"builtin": "smollm2-135m"}},
        {"here": Here(hardware=Hardware(cpu="other"), allotment=HERE.allotment)},
        {"here": Here(hardware=HERE.hardware, allotment=Allotment(slots=2, side_by_side=2, threads=1))},
        {"here": Here(hardware=HERE.hardware, allotment=Allotment(slots=1, side_by_side=1, threads=2))},
    ],
)
def test_no_speed_is_taken_from_a_training_that_costs_other_time(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert speeds(tmp_path, **changes) == {}


def test_the_file_alone_is_described_for_programs_too(call: CommandLine, tmp_path: Path) -> None:
    code, out, _ = call("validate", write_sweep(tmp_path / "sweep.yaml"), "--json", "--seed", 3, "--seed", 4)
    assert code == 0
    assert json.loads(out).keys() == {"sweep", "spec_hash", "runs"}
    assert json.loads(out)["runs"] == 2


@pytest.mark.e2e
def test_the_embedded_sweep_is_described_and_nothing_is_left_behind(call: CommandLine, tmp_path: Path) -> None:
    code, out, err = call("validate", "--deep", EMBEDDED)
    assert (code, err.split()[-1]) == (0, "…")
    assert "Răspuns:⟦ Irina are 5*7=35 de biscuiți." in out
    assert "#### 51<|endoftext|>⟧" in out
    assert "None is longer than training.max_length (512)" in out
    code, out, _ = call("validate", "--deep", EMBEDDED, "--json", "--seed", 0, "--seed", 1)
    described = json.loads(out)
    assert [(each["seed"], each["steps"]) for each in described["schedules"]] == [(0, 300), (1, 300)]
    assert [each["recipe"] for each in described["recipes"]][:2] == ["bf16", "fp8"]
    assert all(each["train_seconds"] is None for each in described["recipes"])
    assert not list(tmp_path.iterdir())


@pytest.mark.e2e
def test_what_the_trainer_refuses_is_one_message_and_bad_input(call: CommandLine, tmp_path: Path) -> None:
    path = write_sweep(tmp_path / "sweep.yaml", training={"max_length": 20, "max_steps": 2})
    code, out, err = call("validate", "--deep", path)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("Error: training.max_length: 8 of 8 train samples are longer")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.e2e
def test_an_interrupted_inspection_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "surogate_bench_orchestrator", "validate", "--deep", str(EMBEDDED)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, env=dict(os.environ)) as process:
        until(lambda: list(tmp_path.glob(".surogate-bench-validate-*/*/request.json")), "its request")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.INTERRUPTED
    assert b"interrupted" in err
    assert not list(tmp_path.iterdir())
