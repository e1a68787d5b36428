"""The trainers in configs/trainers: how they translate a request, without the software that they start."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from sweeps import small_sweep

from surogate_bench.recipes import RECIPES

TRAINERS = Path(__file__).parents[3] / "configs" / "trainers"
NAMES = ["surogate_sft", "trl_sft", "unsloth_sft"]


def script(name: str) -> ModuleType:
    """Import a script, which must not import what it starts until it trains."""
    specification = importlib.util.spec_from_file_location(name, TRAINERS / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def request_of(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Make a request; keyword arguments change the sweep's training."""

    def make(trained_under: str | None = None, **training: Any) -> dict[str, Any]:
        lines = [{"prompt": "a", "completion": "b", "input_ids": [5, 6, 7, 0], "loss_mask": [0, 0, 1, 1]}] * 2
        for split in ("train", "validation"):
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        sweep = small_sweep(training={"max_steps": 30, **training})
        return {
            "version": 1, "run": "other-s3", "model": "/model", "train": str(tmp_path / "train.jsonl"),
            "validation": str(tmp_path / "validation.jsonl"), "output": str(tmp_path / "output"), "seed": 3,
            "threads": 2, "steps": 30, "samples_per_step": 13.4, "end_of_text": "<end>",
            "training": sweep.training.model_dump(mode="json"), "trained_under": trained_under,
        }  # fmt: skip

    return make


def test_every_shipped_trainer_is_tested_here() -> None:
    assert sorted(path.stem for path in TRAINERS.glob("*.py")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_trainer_is_a_script_that_imports_its_software_only_to_train(name: str) -> None:
    before = set(sys.modules)
    script(name)
    assert not {"torch", "trl", "unsloth", "surogate", "transformers"} & (set(sys.modules) - before)


def test_trl_gets_the_settings_of_the_sweep_and_as_many_samples_a_step_as_recipes_take(
    request_of: Callable[..., dict[str, Any]],
) -> None:
    trl_sft = script("trl_sft")
    request = request_of(gradient_accumulation_steps=2, learning_rate=0.004, lr_scheduler="cosine", warmup_steps=7)
    found = trl_sft.arguments_of(request, cuda=False)
    assert (found["max_steps"], found["per_device_train_batch_size"], found["gradient_accumulation_steps"]) == (
        30,
        7,
        2,
    )
    assert (found["learning_rate"], found["lr_scheduler_type"], found["warmup_steps"]) == (0.004, "cosine", 7)
    assert (found["seed"], found["data_seed"], found["use_cpu"]) == (3, 3, True)
    config = pytest.importorskip("trl").SFTConfig(**found)
    assert (config.max_length, config.packing) == (2048, False)
    lora = trl_sft.lora_of(request)
    assert (lora["r"], lora["lora_alpha"], len(lora["target_modules"])) == (16, 32, 7)
    assert trl_sft.columns_of(request["train"])["labels"] == [[-100, -100, 7, 0]] * 2


def test_trl_logs_become_metrics_with_tokens_and_seconds_of_the_step(tmp_path: Path) -> None:
    metrics = script("trl_sft").MetricsFile(tmp_path / "metrics.jsonl")
    for step, total in ((1, 100), (2, 250)):
        metrics.begin_step()
        metrics.end_step()
        metrics.log(step, {"loss": 1.5, "learning_rate": 0.1, "grad_norm": 2.0, "num_tokens": float(total), "epoch": 1})
    metrics.log(2, {"eval_loss": 1.25, "eval_runtime": 3})
    metrics.log(2, {"train_runtime": 9.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.pop("seconds", 0) >= 0 for line in lines] == [True] * 3
    assert lines == [
        {"step": 1, "loss": 1.5, "learning_rate": 0.1, "grad_norm": 2.0, "tokens": 100},
        {"step": 2, "loss": 1.5, "learning_rate": 0.1, "grad_norm": 2.0, "tokens": 150},
        {"step": 2, "eval_loss": 1.25},
    ]


def test_unsloth_loads_4_bits_for_qbnb_alone(request_of: Callable[..., dict[str, Any]]) -> None:
    unsloth_sft = script("unsloth_sft")
    for under, is_quantized in ((None, False), ("bf16", False), ("qbnb", True)):
        assert unsloth_sft.model_arguments(request_of(under)) == {
            "model_name": "/model", "max_seq_length": 2048, "load_in_4bit": is_quantized,
        }  # fmt: skip
    with pytest.raises(ValueError, match="trained_under is fp8"):
        unsloth_sft.model_arguments(request_of("fp8"))
    assert unsloth_sft.lora_arguments(request_of())["random_state"] == 3


def test_surogate_gets_yaml_of_the_sweep_for_every_built_in_recipe(
    request_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    surogate_sft = script("surogate_sft")
    assert {recipe.name for recipe in RECIPES} <= set(surogate_sft.PRECISIONS)
    request = request_of("qbnb", weight_decay=0.25, warmup_steps=4)
    found = yaml.safe_load(yaml.safe_dump(surogate_sft.settings_of(request, tmp_path)))
    assert (found["recipe"], found["qlora_bnb"], found["lora_rank"], found["max_steps"]) == ("bf16", True, 16, 30)
    assert (found["weight_decay"], found["warmup_steps"], found["train_seed"]) == (0.25, 4, 3)
    assert found["datasets"][0]["path"] == request["train"]
    with pytest.raises(ValueError, match="trained_under is own"):
        surogate_sft.settings_of(request_of("own"), tmp_path)


def test_surogate_masks_the_position_before_a_token_that_counts(request_of: Callable[..., dict[str, Any]]) -> None:
    documents = list(script("surogate_sft").documents_of(request_of()["train"]))
    assert documents == [{"tokens": [5, 6, 7, 0], "mask": [0, 1, 1, 0]}] * 2


def test_surogates_log_becomes_metrics() -> None:
    log = [
        {
            "log": "step",
            "step": 0,
            "epoch": 0.1,
            "step_tokens": 200,
            "duration_ms": 50,
            "norm": 0.5,
            "loss": 2.0,
            "lr": 0.1,
        },
        {"log": "gpu", "step": 0, "power": 300},
        {"log": "eval", "step": 1, "eval_tokens": 90, "duration_ms": 5, "loss": 1.75},
    ]
    assert list(script("surogate_sft").metrics_of(log)) == [
        {"step": 1, "loss": 2.0, "learning_rate": 0.1, "grad_norm": 0.5, "tokens": 200, "seconds": 0.05},
        {"step": 1, "eval_loss": 1.75},
    ]
