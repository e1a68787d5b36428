"""Adapters that plain transformers and PEFT trained stand in a real sweep beside a recipe."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from sweeps import small_document
from transformers import AutoModelForCausalLM, AutoTokenizer
from waiting import PATIENCE_S

import surogate_bench
from surogate_bench_trainer.embedded.word_problems import split

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

BASE = Path(surogate_bench.__file__).parent / "builtin_models" / "tiny-qwen3-en"
PROMPT = "Întrebare: {question}\nRăspuns:"
SPEC = small_document(
    name="foreign",
    data={"train_size": 32, "validation_size": 8, "test_size": 20, "prompt": PROMPT},
    training={
        "max_steps": 4, "max_length": 512, "micro_batch_size": 2, "gradient_accumulation_steps": 1, "warmup_steps": 1,
    },
    serving={"max_lora_rank": 16, "max_model_len": 512, "kv_cache_gib": 0.5, "start_timeout_s": PATIENCE_S},
    evaluation={"num_concurrent": 20, "max_gen_toks": 32, "max_empty_fraction": 1.0},
)  # fmt: skip


def train_with_peft(folder: Path, *, steps: int = 40, **settings: Any) -> Path:
    """Train as anybody would: fp32, AdamW, one padded batch of word problems a step, loss on every token."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    config = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | settings
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), LoraConfig(**config))
    optimizer = torch.optim.AdamW((each for each in model.parameters() if each.requires_grad), lr=4e-3)
    problems = split("train", language="ro", size=8 * steps, seed=0)
    for start in range(0, len(problems), 8):
        texts = [
            f"{PROMPT.format(question=each.question)} {each.answer}{tokenizer.eos_token}"
            for each in problems[start : start + 8]
        ]
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def manifest(folder: Path, stage: str) -> dict[str, Any]:
    (found,) = (folder / "results").glob(f"sweeps/foreign/*/{stage}/manifest.json")
    loaded: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return loaded


def answers(folder: Path, run: str) -> list[str]:
    (found,) = (folder / "results").glob(f"sweeps/foreign/*/runs/{run}/eval/samples.jsonl")
    return [json.loads(line)["response"] for line in found.read_text(encoding="utf-8").splitlines()]


def test_an_adapter_that_peft_trained_is_scored_beside_bf16_and_one_with_dora_is_refused(tmp_path: Path) -> None:
    patterns = {"rank_pattern": {"v_proj": 4}, "alpha_pattern": {r".*layers\.0\..*": 8}}
    train_with_peft(tmp_path / "rslora", use_rslora=True, **patterns)
    train_with_peft(tmp_path / "dora", steps=1, use_dora=True)
    adapters = [{"name": name, "path": name} for name in ("rslora", "dora")]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SPEC | {"adapters": adapters}), encoding="utf-8")
    ended = subprocess.run(
        [
            sys.executable, "-m", "surogate_bench_orchestrator", "run", str(tmp_path / "sweep.yaml"),
            "--store", str(tmp_path / "results"), "--state-dir", str(tmp_path / "state"), "--json",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    runs = {run["name"]: run for run in json.loads(ended.stdout)["runs"]}
    assert {name: run["state"] for name, run in runs.items()} == {
        "base": "Succeeded", "bf16-s0": "Succeeded", "rslora": "Succeeded", "dora": "Failed",
    }, ended.stderr  # fmt: skip
    assert "use_dora in adapter_config.json: uses DoRA" in runs["dora"]["message"]
    imported = manifest(tmp_path, "runs/rslora/train")
    assert (imported["stage"], imported["result"]["ranks"]) == ("import", [4, 8])
    (found,) = (tmp_path / "results").glob("sweeps/foreign/*/report/summary.json")
    rows = {row["key"]: row for row in json.loads(found.read_text(encoding="utf-8"))["rows"]}
    assert list(rows) == ["base", "bf16", "rslora", "dora"]
    assert rows["rslora"]["versus_reference"]["seeds"] == [0]
    assert rows["dora"]["state"] == "failed"
    by_peft = answers_of_peft(tmp_path / "rslora")
    assert alike(answers(tmp_path, "rslora"), by_peft) >= 15  # bf16 ties apart: 18 of 20 when it was written, base 2
    assert alike(answers(tmp_path, "base"), by_peft) <= 5


def alike(served: list[str], by_peft: list[str]) -> int:
    """Count equal answers; the server stops at the task's stop strings."""
    return sum(longer.startswith(answer) for answer, longer in zip(served, by_peft, strict=True))


def answers_of_peft(adapter: Path) -> list[str]:
    """Greedy answers to the test questions by transformers and PEFT, in bf16."""
    from peft import PeftModel

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.bfloat16), str(adapter))
    found = []
    for problem in split("test", language="ro", size=20, seed=0):
        prompt = tokenizer(PROMPT.format(question=problem.question), return_tensors="pt")
        generated = model.generate(**prompt, max_new_tokens=32, do_sample=False)
        found.append(tokenizer.decode(generated[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
    return found
