"""Conversations from data set to report: SmolLM2-135M, its own chat template, real vLLM and lm-eval."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from sweeps import small_document
from waiting import PATIENCE_S

from surogate_bench.inputs.content import combined, digests_of, model_files
from surogate_bench.specs import load_sweep
from surogate_bench.stages.identity import BUILTIN_MODELS
from surogate_bench.stages.model_source import locate_model
from surogate_bench.stages.requests import PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.embedded.word_problems import split

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

SPEC = small_document(
    name="chat",
    model={"builtin": "smollm2-135m"},
    training={
        "max_steps": 2, "max_length": 512, "micro_batch_size": 1, "gradient_accumulation_steps": 1, "warmup_steps": 1,
    },
    serving={"max_lora_rank": 16, "max_model_len": 512, "kv_cache_gib": 0.5, "start_timeout_s": PATIENCE_S},
    evaluation={"chat_template": True, "max_gen_toks": 16, "max_empty_fraction": 1.0},
)  # fmt: skip
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"


def talk(question: str, answer: str) -> dict[str, Any]:
    said = (("human", "Hello"), ("gpt", "What is it?"), ("human", question), ("gpt", answer))
    return {"conversations": [{"from": role, "value": text} for role, text in said]}


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(f"results/sweeps/chat/*/{pattern}")
    return found


def require_converted_model(folder: Path) -> None:
    """Require that preparation has converted the model, which is not in safetensors format, into the store.

    Results of versions that knew it by its name alone stay valid while its content is the recorded one. If packages of
    later versions convert it otherwise, remove the comparison and leave the entry: results are then computed again.
    """
    sweep, store = load_sweep(folder / "sweep.yaml"), open_store(str(folder / "results"))
    published = one(folder, "prepare/model")
    layout = PrepareRequest(sweep=sweep, store=store.url).layout
    located = locate_model(sweep.model, store=store, layout=layout, cache=folder / "unused")
    assert Path(located.name_or_path) == published
    result = json.loads(one(folder, "prepare/manifest.json").read_text(encoding="utf-8"))["result"]
    assert result["model_in_store"]
    assert result["inputs"]["model"] == digests_of(model_files(published))
    assert combined(result["inputs"]["model"]) == BUILTIN_MODELS["smollm2-135m"]
    with safe_open(published / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118 - not a dict


def test_conversations_are_trained_on_and_scored_by_the_models_own_template(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    problems = {name: split(name, language="en", size=size, seed=0) for name, size in (("train", 12), ("test", 3))}
    rows = {
        "train": [talk(problem.question, problem.answer) for problem in problems["train"]],
        "test": [{"question": problem.question, "answer": problem.answer} for problem in problems["test"]],
    }
    for name, records in rows.items():
        (data / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    source = {"path": str(data), "hold_out": {"validation": 2}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SPEC | {"data": source}), encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable, "-m", "surogate_bench_orchestrator", "run", str(tmp_path / "sweep.yaml"),
            "--store", str(tmp_path / "results"), "--state-dir", str(tmp_path / "state"), "--json",
        ],
        cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    require_converted_model(tmp_path)
    lines = one(tmp_path, "prepare/data/train.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 10
    for line in map(json.loads, lines):
        assert line["text"].startswith(f"{SYSTEM}<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nWhat is it?")
        first, second = (line["text"][start:end] for start, end in line["counted"])
        assert first == "What is it?<|im_end|>\n"
        assert second.removesuffix("<|im_end|>\n") in {problem.answer for problem in problems["train"]}
    result = json.loads(one(tmp_path, "runs/bf16-s0/eval/manifest.json").read_text(encoding="utf-8"))["result"]
    assert result["scored"]["chat_template"]
    assert result["samples"] == 3
    summary = one(tmp_path, "report/summary.json").read_text(encoding="utf-8")
    assert "rendered by the chat template" in json.loads(summary)["evaluated_on"]
