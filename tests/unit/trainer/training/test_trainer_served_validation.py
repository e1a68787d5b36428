"""The validation loss on the served base: bf16 weights and products, whatever the recipe trained with."""

import gc
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from sweeps import MakeSweep
from torch import Tensor

from surogate_bench.processes.service import Terminated
from surogate_bench.results import TrainResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.model_source import locate_model
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import PrepareRequest, TrainRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_quantization.linear import QuantizedLinear
from surogate_bench_trainer.data.records import read_prepared
from surogate_bench_trainer.main import handle
from surogate_bench_trainer.training import run as run_module
from surogate_bench_trainer.training import served_validation
from surogate_bench_trainer.training.served_validation import served_validation_loss
from surogate_bench_trainer.training.setup import build_data, load_base

pytestmark = pytest.mark.usefixtures("restored_threads")

CPU = torch.device("cpu")


def request_for(sweep: RecipeSweep, folder: Path, recipe: str) -> TrainRequest:
    (folder / "prepare").mkdir(parents=True, exist_ok=True)
    handle(PrepareRequest(sweep=sweep, store=str(folder / "store")), folder / "prepare")
    return TrainRequest(sweep=sweep, store=str(folder / "store"), recipe=recipe, seed=0, threads=1)


def train(request: TrainRequest, work_dir: Path) -> TrainResult:
    work_dir.mkdir(exist_ok=True)
    handle(request, work_dir)
    manifest = read_manifest(open_store(request.store), request.layout.train(f"{request.recipe}-s0"))
    assert manifest is not None
    return manifest.require_result(TrainResult)


def computed_anew(request: TrainRequest, work_dir: Path) -> float | None:
    """The loss of the published adapter, from the files of the store."""
    sweep = request.sweep
    location = locate_model(sweep.model, store=open_store(request.store), layout=request.layout, cache=work_dir)
    _, tokenizer = load_base(location, CPU)
    data = work_dir / "prepared" / "data"
    splits = {name: read_prepared(data / f"{name}.jsonl") for name in ("train", "validation")}
    validation = build_data(splits, tokenizer, sweep, seed=0, device=CPU).validation
    adapter = Path(request.store) / request.layout.train(f"{request.recipe}-s0") / "adapter"
    return served_validation_loss(location, adapter, validation, CPU)


def test_the_served_validation_loss_of_bf16_is_the_last_validation_loss_bit_for_bit(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    request = request_for(make_sweep(), tmp_path, "bf16")
    result = train(request, tmp_path / "work")
    assert result.served_validation_loss == result.validation[-1].loss
    assert computed_anew(request, tmp_path / "work") == result.validation[-1].loss


@pytest.mark.parametrize("recipe", ["fp8", "fp4", "qbnb", "qfp8-bf16", "qfp4"])
def test_the_served_validation_loss_of_other_recipes_is_that_of_the_published_adapter_on_bf16(
    make_sweep: MakeSweep, tmp_path: Path, recipe: str
) -> None:
    request = request_for(make_sweep(recipes=["bf16", recipe]), tmp_path, recipe)
    result = train(request, tmp_path / "work")
    assert result.served_validation_loss is not None
    assert result.served_validation_loss != result.validation[-1].loss
    assert result.served_validation_loss == pytest.approx(result.validation[-1].loss, rel=0.2)
    assert computed_anew(request, tmp_path / "work") == result.served_validation_loss


def test_the_trained_model_is_released_and_its_peak_memory_taken_before_the_base_is_loaded_again(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for(make_sweep(), tmp_path, "fp8")
    order: list[str] = []
    peak, load = run_module._Run.peak_memory, served_validation.load_base

    def peak_memory(self: Any) -> int:
        order.append("peak memory")
        return peak(self)

    def loading(*arguments: Any) -> Any:
        assert not [found for found in gc.get_objects() if type(found) is QuantizedLinear]
        order.append("load")
        return load(*arguments)

    monkeypatch.setattr(run_module._Run, "peak_memory", peak_memory)
    monkeypatch.setattr(served_validation, "load_base", loading)
    train(request, tmp_path / "work")
    assert order[-2:] == ["peak memory", "load"]


def test_a_run_stopped_in_the_served_validation_repeats_no_step_and_gives_the_same_result(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train(request_for(make_sweep(), tmp_path / "straight", "fp4"), tmp_path / "straight" / "work")
    request = request_for(make_sweep(), tmp_path / "stopped", "fp4")
    validate = served_validation.validation_loss

    def stopped(*arguments: Any, **keywords: Any) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(served_validation, "validation_loss", stopped)
        with pytest.raises(Terminated):
            train(request, tmp_path / "stopped" / "work")
    resumed = train(request, tmp_path / "stopped" / "work-2")
    assert resumed.resumed_from_step == resumed.steps == straight.steps
    assert resumed.adapter_sha256 == straight.adapter_sha256
    assert resumed.validation == straight.validation
    assert resumed.served_validation_loss == straight.served_validation_loss


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), None], ids=["gpu", "cpu"])
def test_a_finished_training_is_kept_if_the_served_validation_runs_out_of_memory(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError | None
) -> None:
    def exhausted(*_: Any, **__: Any) -> Tensor:
        if error is not None:
            raise error
        return torch.empty(1 << 50)

    monkeypatch.setattr(served_validation, "validation_loss", exhausted)
    assert train(request_for(make_sweep(), tmp_path, "fp8"), tmp_path / "work").served_validation_loss is None


def test_results_of_earlier_versions_are_read_without_a_served_validation_loss(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    document = train(request_for(make_sweep(), tmp_path, "bf16"), tmp_path / "work").model_dump(mode="json")
    del document["served_validation_loss"]
    assert TrainResult.model_validate(document).served_validation_loss is None
