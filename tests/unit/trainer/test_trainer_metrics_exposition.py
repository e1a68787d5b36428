"""What a training run exports, read from the files that it writes."""

import mmap
from pathlib import Path

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from sweeps import MakeSweep

from surogate_bench.contract import METRICS_FILE
from surogate_bench.processes.progress import Progress, read_progress, write_progress
from surogate_bench.results import MetricsLine
from surogate_bench.stages.requests import PrepareRequest, TrainRequest
from surogate_bench_trainer.main import _metrics, handle
from surogate_bench_trainer.metrics_exposition import TrainingExposition
from surogate_bench_trainer.training.metrics import MetricsLog
from surogate_bench_trainer.training.progress import ProgressReporter, memory_in_use


@pytest.fixture
def request_(make_sweep: MakeSweep, tmp_path: Path) -> TrainRequest:
    return TrainRequest(sweep=make_sweep(), store=str(tmp_path / "store"), recipe="bf16", seed=0, threads=1)


def read(exposition: TrainingExposition) -> dict[str, float]:
    """Values by short name."""
    values = {}
    for made in text_string_to_metric_families(exposition().decode()):
        (sample,) = made.samples
        assert sample.labels["recipe"] == "bf16"
        assert sample.labels["seed"] == "0"
        assert sample.labels["sweep"]
        values[sample.name.removeprefix("surogate_bench_train_")] = sample.value
    return values


def line(step: int, loss: float, rate: float = 0.1) -> MetricsLine:
    return MetricsLine(step=step, loss=loss, learning_rate=rate, grad_norm=1.0, tokens=100, seconds=0.5)


def test_before_the_first_step_only_known_values_are_exported(request_: TrainRequest, tmp_path: Path) -> None:
    exposition = TrainingExposition(request_, tmp_path)
    assert read(exposition) == {"step": 0, "tokens_total": 0}
    write_progress(tmp_path, Progress(phase="loading", memory_bytes=1000))
    assert read(exposition) == {"step": 0, "tokens_total": 0, "memory_bytes": 1000}


def test_steps_and_validations_are_exported_as_they_are_written(request_: TrainRequest, tmp_path: Path) -> None:
    exposition = TrainingExposition(request_, tmp_path)
    log = MetricsLog(tmp_path)
    log.append(line(1, 2.5))
    log.append(line(2, 2.25, 0.2))
    write_progress(tmp_path, Progress(phase="training", step=2, total=9, tokens_per_second=200.0, memory_bytes=7))
    expected = {
        "step": 2, "steps": 9, "loss": 2.25, "learning_rate": 0.2, "tokens_per_second": 200, "tokens_total": 200,
        "memory_bytes": 7,
    }  # fmt: skip
    assert read(exposition) == expected
    log.append(MetricsLine(step=2, eval_loss=3.5))
    assert read(exposition) == expected | {"validation_loss": 3.5}
    log.append(line(3, 1.0))
    assert read(exposition) == expected | {
        "validation_loss": 3.5, "step": 3, "loss": 1.0, "learning_rate": 0.1, "tokens_total": 300,
    }  # fmt: skip


def test_a_partially_written_line_is_read_when_it_is_complete(request_: TrainRequest, tmp_path: Path) -> None:
    exposition = TrainingExposition(request_, tmp_path)
    text = line(1, 2.5).model_dump_json(exclude_none=True)
    file = tmp_path / METRICS_FILE
    MetricsLog(tmp_path)
    file.write_text(text[:20])
    assert "loss" not in read(exposition)
    file.write_text(text + "\n")
    assert read(exposition)["loss"] == 2.5


def test_a_run_that_resumes_from_a_checkpoint_counts_every_token_once(request_: TrainRequest, tmp_path: Path) -> None:
    exposition = TrainingExposition(request_, tmp_path)
    log = MetricsLog(tmp_path)
    log.append(line(1, 2.5))
    checkpoint = log.content()
    log.append(line(2, 2.25))
    assert read(exposition)["tokens_total"] == 200
    MetricsLog(tmp_path, checkpoint)
    assert read(exposition) == {"step": 1, "loss": 2.5, "learning_rate": 0.1, "tokens_total": 100}


def test_a_real_run_leaves_its_last_step_and_its_memory(request_: TrainRequest, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    (tmp_path / "prepare").mkdir()
    (tmp_path / "work").mkdir()
    prepare = PrepareRequest(sweep=request_.sweep, store=request_.store)
    assert _metrics(prepare, tmp_path / "prepare") == ()
    handle(prepare, tmp_path / "prepare")
    try:
        handle(request_, tmp_path / "work")
    finally:
        torch.set_num_threads(threads)
    (exposition,) = _metrics(request_, tmp_path / "work")
    assert isinstance(exposition, TrainingExposition)
    shown = read(exposition)
    assert set(shown) == {
        "step", "steps", "loss", "validation_loss", "learning_rate", "tokens_total", "memory_bytes",
    }  # fmt: skip
    assert shown["step"] == shown["steps"] == 6
    assert shown["memory_bytes"] > 100 << 20


def test_every_report_holds_the_memory_in_use(tmp_path: Path) -> None:
    ProgressReporter(tmp_path, lambda: 4096)(Progress(phase="loading"))
    assert read_progress(tmp_path) == Progress(phase="loading", memory_bytes=4096)
    before = memory_in_use(torch.device("cpu"))
    with mmap.mmap(-1, 64 << 20) as pages:  # an allocator might give memory that was in use before
        pages.write(b"1" * len(pages))
        assert memory_in_use(torch.device("cpu")) - before > 32 << 20
