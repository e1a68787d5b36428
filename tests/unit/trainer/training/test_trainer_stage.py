"""The train stage, whole: outputs, determinism, and resumption after an interruption at any micro-batch."""

import hashlib
import itertools
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from sweeps import MakeSweep
from torch import Tensor
from transformers import AutoModelForCausalLM

from surogate_bench.errors import ConfigError, ExitCode, PermanentError
from surogate_bench.processes.progress import read_progress
from surogate_bench.processes.service import Terminated
from surogate_bench.results import TrainResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import PrepareRequest, TrainRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.main import handle
from surogate_bench_trainer.model import passes as passes_module
from surogate_bench_trainer.model.passes import packed_loss
from surogate_bench_trainer.training import learner as learner_module
from surogate_bench_trainer.training import setup
from surogate_bench_trainer.training.learner import Learner

pytestmark = pytest.mark.usefixtures("restored_threads")

SHORT_HISTORY = {
    "name": "fp8-short",
    "title": "FP8",
    "weight_storage": "bf16",
    "compute": "fp8-hybrid",
    "fp8_amax_history_length": 3,
}
RECIPES = ["bf16", "fp4", SHORT_HISTORY]
RESUMABLE = {"lora": {"r": 4, "alpha": 8, "dropout": 0.1}}


@dataclass(frozen=True)
class Trained:
    manifest: Manifest
    result: TrainResult
    folder: Path

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Metrics without the times."""
        text = (self.folder / "metrics.jsonl").read_text(encoding="utf-8")
        return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in text.splitlines()]


def request_for(sweep: RecipeSweep, tmp_path: Path, recipe: str = "bf16", seed: int = 0) -> TrainRequest:
    """Prepare once per store, and ask for a run."""
    store = str(tmp_path / "store")
    (tmp_path / "prepare").mkdir(exist_ok=True)
    handle(PrepareRequest(sweep=sweep, store=store), tmp_path / "prepare")
    return TrainRequest(sweep=sweep, store=store, recipe=recipe, seed=seed, threads=1)


def train(request: TrainRequest, work_dir: Path) -> Trained:
    work_dir.mkdir(exist_ok=True)
    handle(request, work_dir)
    prefix = request.layout.train(f"{request.recipe}-s{request.seed}")
    manifest = read_manifest(open_store(request.store), prefix)
    assert manifest is not None
    return Trained(manifest, manifest.require_result(TrainResult), Path(request.store) / prefix)


def test_a_run_publishes_adapter_metrics_and_manifest(make_sweep: MakeSweep, tmp_path: Path) -> None:
    trained = train(request_for(make_sweep(), tmp_path), tmp_path / "work")
    result = trained.result
    assert set(trained.manifest.files) == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "metrics.jsonl",
    }
    steps = [line for line in trained.lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert [line["learning_rate"] for line in steps] == pytest.approx([0, 5e-3, 1e-2, 7.5e-3, 5e-3, 2.5e-3])
    assert [point.step for point in result.validation] == [2, 4, 6]
    assert result.tokens == sum(line["tokens"] for line in steps)
    assert result.steps == 6
    assert result.final_train_loss == pytest.approx(sum(line["loss"] for line in steps) / 6)
    assert result.validation[-1].loss < result.validation[0].loss
    assert (result.resumed_from_step, result.threads, result.side_by_side) == (0, 1, 1)
    assert result.peak_memory_bytes > 100 << 20
    contents = [
        (trained.folder / "adapter" / name).read_bytes()
        for name in ("adapter_config.json", "adapter_model.safetensors")
    ]
    assert result.adapter_sha256 == hashlib.sha256(b"".join(contents)).hexdigest()
    assert trained.manifest.engine == "torch"
    progress = read_progress(tmp_path / "work")
    assert progress is not None
    assert (progress.phase, progress.step, progress.total) == ("uploading", 6, 6)
    assert not (trained.folder / "checkpoints").exists() or not any((trained.folder / "checkpoints").rglob("*.json"))


def test_the_adapter_loads_with_peft_and_names_no_path_of_this_machine(
    make_sweep: MakeSweep, model_folder: Path, tmp_path: Path
) -> None:
    trained = train(request_for(make_sweep(), tmp_path), tmp_path / "work")
    folder = trained.folder / "adapter"
    text = (folder / "adapter_config.json").read_text(encoding="utf-8")
    config = json.loads(text)
    assert config["base_model_name_or_path"] == "toy-qwen3"
    assert str(model_folder.parent) not in text
    assert config["target_modules"] == sorted(config["target_modules"])
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    tokens = torch.arange(2, 40).unsqueeze(0)
    before = base(input_ids=tokens).logits
    adapted = PeftModel.from_pretrained(base, folder)
    assert not torch.allclose(adapted(input_ids=tokens).logits, before, atol=1e-2)
    saved = load_file(folder / "adapter_model.safetensors")
    loaded = {name.replace(".default", ""): tensor for name, tensor in adapted.state_dict().items() if "lora_" in name}
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in saved.items())


@pytest.mark.parametrize("recipe", ["bf16", "fp4", "fp8-short"])
def test_the_same_seed_gives_the_same_adapter_bytes_and_another_seed_others(
    make_sweep: MakeSweep, tmp_path: Path, recipe: str
) -> None:
    sweep = make_sweep(recipes=RECIPES)
    hashes = []
    for name, seed in (("first", 0), ("second", 0), ("third", 1)):
        (tmp_path / name).mkdir()
        hashes.append(train(request_for(sweep, tmp_path / name, recipe, seed), tmp_path / "work").result.adapter_sha256)
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def killing_after(passes: int) -> Callable[..., Tensor]:
    """The loss of a batch, but this process is sent SIGTERM in the given forward pass."""
    count = itertools.count(1)

    def loss(*arguments: Any) -> Tensor:
        if next(count) == passes:
            os.kill(os.getpid(), signal.SIGTERM)
        return packed_loss(*arguments)

    return loss


def replace_loss(patch: pytest.MonkeyPatch, loss: Callable[..., Tensor]) -> None:
    """Put something in place of the loss of a batch, in training and in validation."""
    patch.setattr(passes_module, "packed_loss", loss)
    patch.setattr(learner_module, "packed_loss", loss)


@pytest.fixture(scope="module")
def straight(make_sweep: MakeSweep, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """Runs that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    sweep = make_sweep(recipes=RECIPES, training=RESUMABLE)
    return {recipe: train(request_for(sweep, folder, recipe), folder / recipe) for recipe in ("fp4", "fp8-short")}


@pytest.mark.parametrize(
    ("recipe", "passes"),
    [("fp4", 1), ("fp4", 5), ("fp4", 12), *(("fp8-short", passes) for passes in (2, 3, 4, 7, 8, 9, 15, 19))],
)
def test_a_run_stopped_in_any_micro_batch_resumes_bit_for_bit(
    make_sweep: MakeSweep,
    straight: dict[str, Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    passes: int,
) -> None:
    request = request_for(make_sweep(recipes=RECIPES, training=RESUMABLE), tmp_path, recipe)
    with monkeypatch.context() as patch:
        replace_loss(patch, killing_after(passes))
        with pytest.raises(Terminated):
            train(request, tmp_path / "work")
    resumed = train(request, tmp_path / "work-2")
    assert resumed.result.adapter_sha256 == straight[recipe].result.adapter_sha256
    assert resumed.lines == straight[recipe].lines
    assert resumed.result.validation == straight[recipe].result.validation
    assert (resumed.result.resumed_from_step > 0) == (passes >= 2)


def test_a_finished_run_is_not_repeated_and_its_checkpoints_are_deleted(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for(make_sweep(), tmp_path)
    first = train(request, tmp_path / "work")
    store = open_store(request.store)
    left_over = f"{request.layout.train('bf16-s0')}/checkpoints/step-000004/complete.json"
    store.put(left_over, b"{}")
    monkeypatch.setattr(setup, "load_base", None)  # would fail if it were needed
    again = train(request, tmp_path / "work")
    assert again.manifest == first.manifest
    assert not store.exists(left_over)


def test_a_diverging_run_fails_naming_the_step(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for(make_sweep(), tmp_path)
    passes = 0

    def poisoned(*arguments: Any) -> Tensor:
        nonlocal passes
        passes += 1
        return packed_loss(*arguments) * (float("nan") if passes == 4 else 1.0)

    replace_loss(monkeypatch, poisoned)
    with pytest.raises(PermanentError, match=r"step 2: training diverged: loss nan.*learning_rate"):
        train(request, tmp_path / "work")


def test_a_validation_that_is_not_finite_fails_naming_the_step(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for(make_sweep(), tmp_path)
    monkeypatch.setattr(Learner, "validate", lambda *_, **__: float("inf"))
    with pytest.raises(PermanentError, match="step 2: the validation loss is inf"):
        train(request, tmp_path / "work")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), None], ids=["gpu", "cpu"])
def test_running_out_of_memory_names_the_settings_to_lower(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError | None
) -> None:
    request = request_for(make_sweep(), tmp_path)

    def exhausted(*_: Any) -> Tensor:
        if error is not None:
            raise error
        return torch.empty(1 << 50)

    replace_loss(monkeypatch, exhausted)
    with pytest.raises(PermanentError, match=r"memory ran out.*micro_batch_size"):
        train(request, tmp_path / "work")


def test_other_runtime_errors_are_not_disguised(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for(make_sweep(), tmp_path)

    def broken(*_: Any) -> Tensor:
        raise RuntimeError("something else")

    replace_loss(monkeypatch, broken)
    with pytest.raises(RuntimeError, match="something else"):
        train(request, tmp_path / "work")


def test_an_unknown_recipe_is_refused(make_sweep: MakeSweep, tmp_path: Path) -> None:
    request = request_for(make_sweep(), tmp_path).model_copy(update={"recipe": "fp2"})
    with pytest.raises(ConfigError, match="bf16, fp8, fp4"):
        handle(request, tmp_path / "work")


def test_training_before_preparing_is_an_error(make_sweep: MakeSweep, tmp_path: Path) -> None:
    request = TrainRequest(sweep=make_sweep(), store=str(tmp_path / "store"), recipe="bf16", seed=0)
    (tmp_path / "work").mkdir()
    with pytest.raises(PermanentError, match=r"prepare.*not finished"):
        handle(request, tmp_path / "work")


def test_a_model_that_cannot_be_loaded_is_a_configuration_error(
    make_sweep: MakeSweep, model_folder: Path, tmp_path: Path
) -> None:
    request = request_for(make_sweep(), tmp_path)
    weights = model_folder / "model.safetensors"
    kept = weights.read_bytes()
    weights.unlink()
    try:
        with pytest.raises(ConfigError, match="was removed since this sweep was prepared") as caught:
            train(request, tmp_path / "work")
    finally:
        weights.write_bytes(kept)
    assert caught.value.exit_code == ExitCode.BAD_INPUT


def test_loss_on_all_counts_the_prompt_too(make_sweep: MakeSweep, tmp_path: Path) -> None:
    losses = []
    for loss_on in ("completion", "all"):
        sweep = make_sweep(training={"loss_on": loss_on, "max_steps": 1, "warmup_steps": 0})
        (tmp_path / loss_on).mkdir()
        losses.append(train(request_for(sweep, tmp_path / loss_on), tmp_path / f"{loss_on}-work").lines[0]["loss"])
    assert losses[0] != losses[1]


def test_micro_batches_of_one_step_add_up_to_the_same_step(make_sweep: MakeSweep, tmp_path: Path) -> None:
    found = []
    for size, count in ((1, 4), (4, 1)):
        sizes = {"micro_batch_size": size, "gradient_accumulation_steps": count, "max_steps": 2}
        (tmp_path / str(size)).mkdir()
        request = request_for(make_sweep(training=sizes), tmp_path / str(size))
        found.append(train(request, tmp_path / f"work-{size}").lines)
    for first, second in zip(*found, strict=True):
        for name in first.keys() & {"loss", "grad_norm", "eval_loss"}:
            assert first[name] == pytest.approx(second[name], rel=2e-2)
        assert first.get("tokens") == second.get("tokens")


def test_a_request_for_another_service_is_refused(make_sweep: MakeSweep, tmp_path: Path) -> None:
    from surogate_bench.stages.requests import EvaluateRequest

    request = EvaluateRequest(sweep=make_sweep(), store=str(tmp_path), run="base", server_url="http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="not for the trainer"):
        handle(request, tmp_path)
