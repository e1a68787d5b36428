"""TRL trains a row of a real sweep beside BF16, with the shipped script; a trainer that fails costs no other row."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeps import small_document
from waiting import PATIENCE_S

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

TRL = Path(__file__).parents[2] / "configs" / "trainers" / "trl_sft.py"
SPEC = small_document(
    name="others",
    data={"train_size": 64, "validation_size": 16, "test_size": 20, "prompt": "Întrebare: {question}\nRăspuns:"},
    training={
        "max_steps": 12, "max_length": 512, "micro_batch_size": 2, "gradient_accumulation_steps": 1, "warmup_steps": 2,
        "learning_rate": 4e-3, "eval_steps": 6,
    },
    serving={"max_lora_rank": 16, "max_model_len": 512, "kv_cache_gib": 0.5, "start_timeout_s": PATIENCE_S},
    evaluation={"num_concurrent": 20, "max_gen_toks": 32, "max_empty_fraction": 1.0},
)  # fmt: skip


def run(folder: Path, trainers: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SPEC | {"trainers": trainers}), encoding="utf-8")
    return subprocess.run(
        [
            sys.executable, "-m", "surogate_bench_orchestrator", "run", str(folder / "sweep.yaml"),
            "--store", str(folder / "results"), "--state-dir", str(folder / "state"), "--json",
        ],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def rows_of(folder: Path) -> dict[str, Any]:
    (found,) = (folder / "results").glob("sweeps/others/*/report/summary.json")
    return {row["key"]: row for row in json.loads(found.read_text(encoding="utf-8"))["rows"]}


def test_trl_trains_a_row_whose_loss_is_nearly_that_of_bf16_and_a_trainer_that_fails_is_a_failed_row(
    tmp_path: Path,
) -> None:
    trainers = [
        {"name": "trl", "command": ["{python}", str(TRL), "{request}"], "trained_under": "bf16"},
        {"name": "broken", "command": ["{python}", "-c", "raise SystemExit('no such kernel')"]},
    ]
    ended = run(tmp_path, trainers)
    runs = {each["name"]: each for each in json.loads(ended.stdout)["runs"]}
    assert {name: each["state"] for name, each in runs.items()} == {
        "base": "Succeeded", "bf16-s0": "Succeeded", "trl-s0": "Succeeded", "broken-s0": "Failed",
    }, ended.stderr  # fmt: skip
    assert "ended with exit code 1.\nThe last lines of its output:\nno such kernel" in runs["broken-s0"]["message"]
    rows = rows_of(tmp_path)
    assert list(rows) == ["base", "bf16", "trl", "broken"]
    ours, theirs = rows["bf16"]["training"], rows["trl"]["training"]
    assert theirs["steps"] == ours["steps"] == 12
    assert theirs["tokens"] == pytest.approx(ours["tokens"], rel=0.2)
    assert theirs["served_validation_loss"] == pytest.approx(theirs["last_validation_loss"], rel=0.02)
    assert theirs["served_validation_loss"] == pytest.approx(ours["served_validation_loss"], rel=0.1)
    assert rows["trl"]["versus_reference"]["seeds"] == [0]
    assert rows["trl"]["score"]["samples"] == 20


def test_a_trainer_whose_script_does_not_exist_ends_the_sweep_before_anything_is_trained(tmp_path: Path) -> None:
    ended = run(tmp_path, [{"name": "trl", "command": ["{python}", "./trl_sft.py"]}])
    assert ended.returncode == 2
    assert "trainers.trl.command: there is no such file" in ended.stderr
    assert not list((tmp_path / "results").glob("sweeps/others/*/runs"))
