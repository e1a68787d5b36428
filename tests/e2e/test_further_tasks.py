"""Shipped tasks beside lm-eval's own command on the same server: equal requests, equal numbers to the last digit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stand_ins.completions import Completions, completing
from sweeps import small_sweep
from transformers import AutoTokenizer
from waiting import PATIENCE_S

from surogate_bench.contract import task_file
from surogate_bench.results import EvalResult, PrepareResult
from surogate_bench.stages.model_source import local_model_folder
from surogate_bench.stages.publication import new_manifest, publish_stage, read_result
from surogate_bench.stages.requests import CheckRequest, EvaluateRequest, PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.embedded.word_problems import split

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

RECORDS = 12
PROBLEMS = tuple(split("test", language="en", size=RECORDS, seed=0))
ENTRY = {"data": {"builtin": "word-problems-en", "test_size": RECORDS}}
SWEEP = small_sweep(
    name="further",
    serving={"start_timeout_s": PATIENCE_S},
    evaluation={
        "tasks": ["ro_gsm8k", {"name": "en_gsm8k", **ENTRY}, {"name": "word_problem_choice", **ENTRY}],
        "num_concurrent": 4,
        "max_gen_toks": 64,
    },
)
ANSWERS = {problem.question: problem.answer for problem in PROBLEMS}


def answer(prompt: str) -> str:
    """Every second question is answered with its reference, the others with a bare number."""
    question = prompt.rpartition("Question: ")[2].removesuffix("\nAnswer:")
    return f" {ANSWERS[question]}" if list(ANSWERS).index(question) % 2 else " 7"


def by_the_evaluator(request: CheckRequest | EvaluateRequest, folder: Path) -> None:
    work_dir = folder / request.kind
    work_dir.mkdir()
    (work_dir / "request.json").write_text(request.model_dump_json())
    command = [sys.executable, "-m", "surogate_bench_evaluator", str(work_dir / "request.json")]
    done = subprocess.run([*command, "--work-dir", str(work_dir)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def by_the_command(server: Completions, task: Path, tokenizer: str, folder: Path) -> dict[str, Any]:
    arguments = {
        "model": "base", "base_url": f"{server.url}/v1/completions", "tokenizer": tokenizer, "num_concurrent": "4",
        "tokenizer_backend": "huggingface", "max_length": "4096", "max_retries": "1",
        "tokenized_requests": str(task.stem == "word_problem_choice"),
    }  # fmt: skip
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"),
        *("--model_args", ",".join(f"{key}={value}" for key, value in arguments.items())),
        *("--include_path", str(task.parent), "--tasks", task.stem, "--output_path", str(folder / "by-hand")),
        *("--gen_kwargs", "max_gen_toks=64"),
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (found,) = (folder / "by-hand").rglob("results_*.json")
    results: dict[str, Any] = json.loads(found.read_text())["results"][task.stem]
    return results


@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        ("en_gsm8k", ("exact_match,strict-match", "exact_match,flexible-extract")),
        ("word_problem_choice", ("acc,none", "acc_norm,none")),
    ],
)
def test_scores_are_those_of_lm_evals_own_command(tmp_path: Path, task: str, metrics: tuple[str, str]) -> None:
    model = local_model_folder(SWEEP.model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    store = open_store(str(tmp_path / "store"))
    common: dict[str, Any] = {"sweep": SWEEP, "store": store.url, "task": task}
    data = tmp_path / "prepared" / "data" / task_file(task)
    data.parent.mkdir(parents=True)
    data.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in ANSWERS.items()))
    prepare = PrepareRequest(sweep=SWEEP, store=store.url)
    result = PrepareResult(data={}, model_source="tiny", model_in_store=False)
    publish_stage(store, prepare.layout.prepare, data.parents[1], new_manifest(prepare, result))
    with completing(answer) as server:
        server.tokens_of = lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"])
        by_the_evaluator(CheckRequest(subject="task", **common), tmp_path)
        by_the_evaluator(EvaluateRequest(run="base", server_url=server.url, **common), tmp_path)
        ours = server.take()
        theirs_results = by_the_command(server, tmp_path / "evaluate" / "task" / f"{task}.yaml", str(model), tmp_path)
        theirs = server.take()
    asked = [
        sorted(json.dumps(body | {"add_special_tokens": 0}, sort_keys=True) for body in each) for each in (ours, theirs)
    ]
    assert asked[0] == asked[1]
    assert len(ours) == RECORDS * (4 if task == "word_problem_choice" else 1)
    scored = read_result(store, prepare.layout.eval("base", task=task), EvalResult)
    assert scored is not None
    assert [scored.strict.accuracy, scored.flexible.accuracy] == [theirs_results[metric] for metric in metrics]
    assert scored.strict.stderr == theirs_results[metrics[0].replace(",", "_stderr,")]
