"""Checkpoints, metrics and signals."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from surogate_bench.processes.service import Terminated
from surogate_bench.results import MetricsLine
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_trainer.training.checkpoint import Checkpoint, delete_checkpoints, load_newest, save_checkpoint
from surogate_bench_trainer.training.interruption import HeldSignals
from surogate_bench_trainer.training.metrics import MetricsLog

PREFIX = "runs/bf16-s0/train/checkpoints"


def checkpoint(step: int) -> Checkpoint:
    tensors = {"optimizer.master": torch.arange(5.0) * step, "random.cpu": torch.arange(9, dtype=torch.uint8)}
    return Checkpoint(step=step, tensors=tensors, metrics=b'{"step":1,"loss":2.0}\n' * step, peak_memory_bytes=7)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


def test_a_checkpoint_comes_back_as_it_was_saved(store: ObjectStore) -> None:
    save_checkpoint(store, PREFIX, checkpoint(3))
    found = load_newest(store, PREFIX)
    assert found is not None
    assert (found.step, found.metrics, found.peak_memory_bytes) == (3, checkpoint(3).metrics, 7)
    assert found.tensors.keys() == checkpoint(3).tensors.keys()
    assert all(torch.equal(tensor, checkpoint(3).tensors[name]) for name, tensor in found.tensors.items())


def test_without_a_checkpoint_there_is_none(store: ObjectStore) -> None:
    assert load_newest(store, PREFIX) is None


def test_the_newest_two_are_kept_in_the_order_of_their_steps(store: ObjectStore) -> None:
    for step in (9, 10, 11):
        save_checkpoint(store, PREFIX, checkpoint(step))
    folders = {info.key.split("/")[-2] for info in store.list(PREFIX)}
    assert folders == {"step-000010", "step-000011"}
    newest = load_newest(store, PREFIX)
    assert newest is not None
    assert newest.step == 11


@pytest.mark.parametrize(
    "damage",
    ["unsealed", "truncated", "other bytes", "seal is no JSON", "no metrics"],
)
def test_a_damaged_checkpoint_is_skipped(store: ObjectStore, damage: str) -> None:
    save_checkpoint(store, PREFIX, checkpoint(1))
    save_checkpoint(store, PREFIX, checkpoint(2))
    newest = f"{PREFIX}/step-000002"
    state = store.get(f"{newest}/state.safetensors")
    assert state is not None
    if damage == "unsealed":
        store.delete([f"{newest}/complete.json"])
    elif damage == "truncated":
        store.put(f"{newest}/state.safetensors", state[:-3])
    elif damage == "other bytes":
        store.put(f"{newest}/state.safetensors", state[:-1] + b"\x55")
    elif damage == "seal is no JSON":
        store.put(f"{newest}/complete.json", b"\0" * 40)
    else:
        store.delete([f"{newest}/metrics.jsonl"])
    found = load_newest(store, PREFIX)
    assert found is not None
    assert found.step == 1


def test_nothing_is_left_after_deletion(store: ObjectStore) -> None:
    save_checkpoint(store, PREFIX, checkpoint(1))
    delete_checkpoints(store, PREFIX)
    assert store.list(PREFIX) == []


def line(step: int) -> MetricsLine:
    return MetricsLine(step=step, loss=10.0 - step, learning_rate=0.1, grad_norm=1.0, tokens=100, seconds=0.5)


def test_metrics_are_in_the_file_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.append(line(1))
    log.append(MetricsLine(step=1, eval_loss=3.0))
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [entry["step"] for entry in lines] == [1, 1]
    assert lines[1] == {"step": 1, "eval_loss": 3.0}


def test_metrics_of_an_abandoned_attempt_are_dropped(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.append(line(1))
    upto = log.content()
    log.append(line(2))
    log = MetricsLog(tmp_path, upto)
    assert (log.steps, (tmp_path / "metrics.jsonl").read_bytes()) == (1, upto)


def test_metrics_sum_up_a_run(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    assert log.recent_speed() is None
    for step in range(1, 31):
        log.append(line(step))
    log.append(MetricsLine(step=30, eval_loss=3.0))
    assert log.totals() == (3000, 15.0)
    assert log.recent_speed() == 200.0
    assert log.final_train_loss() == pytest.approx(10 - sum(range(11, 31)) / 20)
    assert [(point.step, point.loss) for point in log.validations()] == [(30, 3.0)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_until_it_is_asked_for(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with HeldSignals() as signals:
        signals.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Terminated):
            signals.check()
    assert signal.getsignal(number) is before
