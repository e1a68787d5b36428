"""The checks of gpu-check can fail, and nothing that has been measured is lost."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from surogate_bench.contract import TERMINATION_FILE
from surogate_bench.errors import ConfigError, ExitCode
from surogate_bench.machine.checks import (
    REPORT_MARKDOWN,
    Check,
    CheckReport,
    Device,
    Outcome,
    compare,
    read_report,
)
from surogate_bench.machine.hardware import Hardware
from surogate_bench.processes.service import Terminated
from surogate_bench_quantization.engines import native
from surogate_bench_quantization.engines.fp8 import emulated as emulated_fp8
from surogate_bench_quantization.engines.nvfp4 import session as nvfp4_session
from surogate_bench_quantization.formats import elements
from surogate_bench_trainer.data.batches import PackedBatch
from surogate_bench_trainer.gpu_check import formats, passes, run
from surogate_bench_trainer.gpu_check.passes import pass_checks
from surogate_bench_trainer.gpu_check.products import product_checks
from surogate_bench_trainer.gpu_check.recorder import Finding, NotRun, Recorder
from surogate_bench_trainer.gpu_check.settings import Setting, setting_for
from surogate_bench_trainer.gpu_check.speed import speed_checks
from surogate_bench_trainer.gpu_check.stage import stage_checks
from surogate_bench_trainer.model.captured_passes import CapturedPasses, padded, size_of
from surogate_bench_trainer.model.passes import PlainPasses
from surogate_bench_trainer.training.learner import Learner, StepOutcome

pytestmark = pytest.mark.usefixtures("restored_threads")

CPU = torch.device("cpu")
GPU = Device(name="H100", compute_capability=(9, 0), memory_bytes=80 << 30, driver="580.1", cuda="13.0")
PASSING = Finding(comparisons=(compare("error", 0.5, 1.0),))


def report(device: Device = GPU, *, complete: bool = False, outcomes: Sequence[Outcome] = ()) -> CheckReport:
    return CheckReport(
        started=datetime(2026, 1, 1, tzinfo=UTC),
        command="",
        commit="abc",
        device=device,
        hardware=Hardware(cpu="CPU", cores=2),
        versions={"torch": "2"},
        oracle="tables",
        checks=tuple(Check(group="g", name=f"c{n}", outcome=outcome) for n, outcome in enumerate(outcomes)),
        complete=complete,
    )


def recorder(folder: Path, **changes: Any) -> Recorder:
    return Recorder(folder, report(), **{"deadline": float("inf")} | changes)


def outcome_of(checks: Any, name: str, folder: Path) -> Check:
    """Run the one check of that name, as a run does."""
    (measure,) = [measure for found, measure in checks if found == name]
    record = recorder(folder)
    record.run("group", name, measure)
    return record.report.checks[0]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return setting_for(CPU, tmp_path)


def test_the_report_has_every_check_that_has_ended_when_the_next_one_is_interrupted(tmp_path: Path) -> None:
    def interrupted() -> Finding:
        raise Terminated

    record = recorder(tmp_path)
    record.run("engines", "first", lambda: PASSING)
    with pytest.raises(Terminated):
        record.run("engines", "second", interrupted)
    written = read_report(tmp_path)
    assert written is not None
    assert [(check.name, check.outcome) for check in written.checks] == [("first", Outcome.PASSED)]
    assert not written.complete
    assert written.exit_code == ExitCode.FAILED
    assert "**Not complete**: 1 passed" in (tmp_path / REPORT_MARKDOWN).read_text("utf-8")


def test_a_check_that_raises_has_failed_and_the_next_one_runs(tmp_path: Path) -> None:
    def broken() -> Finding:
        raise RuntimeError("an illegal memory access")

    record = recorder(tmp_path)
    record.run("g", "broken", broken)
    record.run("g", "next", lambda: PASSING)
    record.finish()
    assert [check.outcome for check in record.report.checks] == [Outcome.FAILED, Outcome.PASSED]
    assert "an illegal memory access" in record.report.checks[0].reason
    assert record.report.exit_code == ExitCode.FAILED


@pytest.mark.parametrize(
    "finding",
    [
        Finding(comparisons=(compare("error", 1.5, 1.0),)),
        Finding(comparisons=(compare("error", float("nan"), 1.0),)),
        Finding(comparisons=(compare("error", float("inf"), 1.0),)),
        Finding(comparisons=(compare("error", 1.5, 1.0),), not_run="no GPU"),
        Finding(),
    ],
    ids=["outside", "NaN", "infinite", "outside in a dry run", "nothing compared"],
)
def test_only_numbers_within_their_tolerance_pass(finding: Finding, tmp_path: Path) -> None:
    record = recorder(tmp_path)
    record.run("g", "check", lambda: finding)
    assert record.report.checks[0].outcome is Outcome.FAILED


def test_what_was_not_run_is_never_passed(tmp_path: Path) -> None:
    def impossible() -> Finding:
        raise NotRun("no GPU")

    now = iter(range(100))
    record = recorder(tmp_path, deadline=4, clock=lambda: float(next(now)))
    record.run("g", "impossible", impossible)
    record.run("g", "dry", lambda: replace(PASSING, not_run="no GPU: only the code has run"))
    record.run("g", "late", lambda: PASSING)
    assert [check.outcome for check in record.report.checks] == [Outcome.NOT_RUN] * 3
    assert record.report.checks[2].reason == "the time limit was reached"


@pytest.mark.parametrize(
    ("device", "complete", "outcomes", "code"),
    [
        (GPU, True, [Outcome.PASSED], 0),
        (GPU, True, [Outcome.PASSED, Outcome.NOT_RUN], 1),
        (GPU, True, [Outcome.PASSED, Outcome.FAILED], 1),
        (GPU, False, [Outcome.PASSED], 1),
        (GPU, True, [], 1),
        (Device(name="cpu"), True, [Outcome.PASSED, Outcome.NOT_RUN], 0),
        (Device(name="cpu"), True, [Outcome.NOT_RUN], 1),
        (Device(name="cpu"), True, [Outcome.PASSED, Outcome.FAILED], 1),
    ],
)
def test_the_exit_code_is_zero_only_if_everything_that_can_run_has_passed(
    device: Device, complete: bool, outcomes: list[Outcome], code: int
) -> None:
    assert report(device, complete=complete, outcomes=outcomes).exit_code == code


def doubled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: function(*args, **kwargs) * 2


def without_four_over_six(matrix: Tensor, **options: Any) -> Any:
    return nvfp4_session.quantize_rows(matrix, **options | {"four_over_six": False})


@pytest.mark.parametrize(
    ("owner", "attribute", "change", "check"),
    [
        (emulated_fp8.EmulatedFP8Products, "dgrad", doubled, "fp8 on emulated"),
        (emulated_fp8, "scaled_product", lambda f: lambda a, b, s: f(a, b, s * 1.01), "qfp4 on emulated"),
        (nvfp4_session, "quantize_squares", lambda _: without_four_over_six, "fp4 on emulated"),
        (nvfp4_session, "uniform_noise", lambda f: lambda x, g: f(x, g) // 2, "fp4 on emulated"),
        (native.DequantizingProducts, "fprop", doubled, "qfp8-bf16 on torch"),
        (native, "nf4_linear", lambda _: lambda linear: linear, "qbnb on bitsandbytes"),
    ],
)
def test_an_engine_that_computes_something_else_fails(
    owner: Any, attribute: str, change: Any, check: str, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome_of(product_checks(setting), check, setting.folder).outcome is Outcome.PASSED
    monkeypatch.setattr(owner, attribute, change(getattr(owner, attribute)))
    found = outcome_of(product_checks(setting), check, setting.folder)
    assert found.outcome is Outcome.FAILED
    assert not all(comparison.holds for comparison in found.comparisons)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("E4M3 codes", "cast_scaled"),
        ("E5M2 codes", "quantize_scaled"),
        ("FP8 tiles of 128x128", "dequantize_tiles"),
        ("NVFP4 to nearest, packed", "unpack_products"),
    ],
)
def test_a_number_format_with_other_values_fails(
    name: str, function: str, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(formats, function)
    monkeypatch.setattr(formats, function, lambda *args: torch.nextafter(original(*args).float(), torch.tensor(9e9)))
    assert outcome_of(formats.format_checks(setting), f"{name} on cpu", setting.folder).outcome is Outcome.FAILED


def test_a_run_with_a_broken_engine_ends_with_another_exit_code_than_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--output", str(tmp_path), "--groups", "engines"]
    assert run.run_checks(run.parse(arguments), arguments).exit_code == ExitCode.OK
    monkeypatch.setattr(elements.E4M3.__class__, "magic", property(lambda self: 1.5 * 2.0 ** (22 - self.mantissa_bits)))
    broken = run.run_checks(run.parse(arguments), arguments)
    assert broken.exit_code == ExitCode.FAILED
    failed = {check.name for check in broken.checks if check.outcome is Outcome.FAILED}
    assert {"E4M3 codes on cpu", "fp8 on emulated", "fp4 on emulated"} <= failed


def test_a_state_that_is_not_restored_fails(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fp4: state resumed, plain passes"
    assert outcome_of(pass_checks(setting), name, setting.folder).outcome is Outcome.PASSED
    monkeypatch.setattr(nvfp4_session.NVFP4Session, "load_state_dict", lambda *_: None)
    assert outcome_of(pass_checks(setting), name, setting.folder).outcome is Outcome.FAILED


def test_noise_that_repeats_fails(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fp4: new noise in every pass, plain"
    assert outcome_of(pass_checks(setting), name, setting.folder).outcome is Outcome.PASSED
    monkeypatch.setattr(
        nvfp4_session, "uniform_noise", lambda like, _: elements.uniform_noise(like, torch.Generator().manual_seed(0))
    )
    assert outcome_of(pass_checks(setting), name, setting.folder).outcome is Outcome.FAILED


class GraphsOnTheCPU(CapturedPasses):
    """Stands in for CUDA graphs: plain passes over padded streams, with an error of a given size."""

    captured, error = 2, 1.0

    def __init__(self, model: PeftModel) -> None:
        self._passes = PlainPasses(model)

    @property
    def graphs(self) -> int:
        return self.captured

    def __call__(self, batch: PackedBatch, weight: float) -> Tensor:
        return self._passes(padded(batch, size_of(batch)), weight * self.error)


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [({}, Outcome.PASSED), ({"captured": 0}, Outcome.FAILED), ({"error": 1.05}, Outcome.FAILED)],
    ids=["equal", "not captured", "other gradients"],
)
@pytest.mark.parametrize("name", ["fp8", "fp4"])
def test_graphs_that_compute_something_else_or_were_not_captured_fail(
    name: str, changes: dict[str, float], outcome: Outcome, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = passes.random_learner

    def with_graphs(*args: Any, capture: bool, **options: Any) -> Learner:
        learner = make(*args, capture=capture, **options)
        return replace(learner, passes=GraphsOnTheCPU(learner.model)) if capture else learner

    for attribute, value in changes.items():
        monkeypatch.setattr(GraphsOnTheCPU, attribute, value)
    monkeypatch.setattr(passes, "random_learner", with_graphs)
    monkeypatch.setattr(Setting, "on_gpu", property(lambda _: True))
    two_sizes = replace(setting, lengths=((100, 20, 5), (95, 25, 5), (200, 70, 30), (190, 80, 20)))
    found = outcome_of(pass_checks(two_sizes), f"{name}: captured against plain", setting.folder)
    assert found.outcome is outcome, found


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, Outcome.PASSED), (1.03, Outcome.FAILED)])
def test_a_train_stage_with_other_losses_than_the_cpu_fails(factor: float, outcome: Outcome, setting: Setting) -> None:
    record = recorder(setting.folder)

    class Reference:
        def losses(self, check: str) -> tuple[float, ...]:
            assert check == record.report.checks[0].name
            return tuple(loss * factor for loss in record.report.checks[0].losses)

    reference: Any = Reference()
    for name, measure in stage_checks(setting, reference):
        record.run("train-stage", name, measure)
    assert [check.outcome for check in record.report.checks] == [Outcome.PASSED, outcome]
    assert len(record.report.checks[0].losses) == setting.train_steps


def test_timed_steps_with_an_impossible_loss_fail(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    found = outcome_of(speed_checks(setting), "bf16", setting.folder)
    assert (found.outcome, found.reason) == (Outcome.NOT_RUN, "no GPU: only the code has run, at a small shape")
    assert found.figures["tokens/s"] > 0
    monkeypatch.setattr(Learner, "train_step", lambda *_, **__: StepOutcome(3.0, 1.0, 1e-4, 100))
    assert outcome_of(speed_checks(setting), "bf16", setting.folder).outcome is Outcome.FAILED


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_where_a_gpu_is_required_and_there_is_none_nothing_runs(tmp_path: Path) -> None:
    options = run.parse(["--output", str(tmp_path), "--require-gpu"])
    with pytest.raises(ConfigError, match="no GPU can be used"):
        run.run_checks(options, [])
    assert not (tmp_path / TERMINATION_FILE).exists()
    assert read_report(tmp_path) is None
