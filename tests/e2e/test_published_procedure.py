"""The published procedure, literally: lm-eval's own gsm8k, by this evaluator and by lm-eval's command."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from stand_ins.completions import Completions, completing
from stand_ins.hub import Hub, Repository, serving
from sweeps import small_sweep
from waiting import PATIENCE_S

from surogate_bench.results import CheckResult, EvalResult, PrepareResult, SplitInfo
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.publication import fetch_stage, new_manifest, publish_stage, read_manifest
from surogate_bench.stages.requests import CheckRequest, EvaluateRequest, PrepareRequest, StageRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.embedded.word_problems import split

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

PUBLISHED = Path(__file__).parents[2] / "configs" / "sweeps" / "qwen3-0.6b-gsm8k.yaml"
TEST_RECORDS = 9
CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: train.jsonl}
  - {split: test, path: test.jsonl}
---
"""


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    """A hub that has ``openai/gsm8k``, made up."""
    folder = tmp_path / "hub" / "gsm8k"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for name, size in (("train", 12), ("test", TEST_RECORDS)):
        problems = split(name, language="en", size=size, seed=0)
        lines = [json.dumps({"question": problem.question, "answer": problem.answer}) for problem in problems]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    with serving(Hub(datasets={"openai/gsm8k": Repository(folder)})) as address:
        yield address


ANSWERS = {problem.question: problem.answer for problem in split("test", language="en", size=TEST_RECORDS, seed=0)}


def answer(prompt: str) -> str:
    """Every second question is answered with its reference, the others with a bare number or not in that form."""
    question = prompt.rpartition("Question: ")[2].removesuffix("\nAnswer:")
    place = list(ANSWERS).index(question)
    return f" {ANSWERS[question]}" if place % 2 else (" 7", " none")[place % 4 // 2]


def text_of(body: dict[str, Any]) -> str:
    """The prompt of a request, or the message of the user."""
    return str(body["prompt"] if "prompt" in body else body["messages"][0]["content"])


def environment(folder: Path, endpoint: str) -> dict[str, str]:
    return {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "cache"), "TQDM_DISABLE": "1"}


def by_the_evaluator(
    request: StageRequest, folder: Path, endpoint: str, **variables: str
) -> "subprocess.CompletedProcess[str]":
    path = folder / f"{request.model_dump()['kind']}.json"
    path.write_text(request.model_dump_json())
    return subprocess.run(
        [sys.executable, "-m", "surogate_bench_evaluator", str(path), "--work-dir", str(folder / path.stem)],
        env=environment(folder, endpoint) | variables, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip


def by_the_command(server: Completions, folder: Path, endpoint: str, *, chat: bool) -> dict[str, Any]:
    """lm-eval's results."""
    model, path = ("local-chat-completions", "chat/completions") if chat else ("local-completions", "completions")
    arguments = f"model=base,base_url={server.url}/v1/{path},num_concurrent=4,max_retries=1"
    subprocess.run(
        [
            sys.executable, "-m", "lm_eval", "run", "--model", model, "--tasks", "gsm8k",
            *(["--apply_chat_template"] if chat else []),
            "--num_fewshot", "0", "--output_path", str(folder / "by-hand"),
            "--model_args", f"{arguments},tokenized_requests=False,tokenizer_backend=none",
        ],
        env=environment(folder, endpoint), capture_output=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    (found,) = (folder / "by-hand").rglob("results_*.json")
    results: dict[str, Any] = json.loads(found.read_text())["results"]["gsm8k"]
    return results


def sweep(**evaluation: Any) -> RecipeSweep:
    published = yaml.safe_load(PUBLISHED.read_text())["evaluation"]
    return small_sweep(
        name="literal",
        serving={"start_timeout_s": PATIENCE_S},
        evaluation=published | {"num_concurrent": 4} | evaluation,
    )


def prepare(request: StageRequest, folder: Path) -> None:
    (folder / "prepared").mkdir()
    info = SplitInfo(records=8, sha256="0" * 64)
    result = PrepareResult(data={"train": info}, model_source="tiny", model_in_store=False, special_tokens=())
    manifest = new_manifest(PrepareRequest(sweep=request.sweep, store=request.store), result)
    publish_stage(open_store(request.store), request.layout.prepare, folder / "prepared", manifest)


@pytest.mark.parametrize(
    "chat", [pytest.param(False, id="completions"), pytest.param(True, id="chat", marks=pytest.mark.exhaustive)]
)
def test_prompts_stops_and_scores_are_those_of_lm_evals_own_command(tmp_path: Path, endpoint: str, chat: bool) -> None:
    with completing(answer) as server:
        common: dict[str, Any] = {"sweep": sweep(chat_template=chat), "store": str(tmp_path / "store")}
        check = CheckRequest(subject="task", **common)
        evaluate = EvaluateRequest(run="base", server_url=server.url, **common)
        prepare(evaluate, tmp_path)
        for request in (check, evaluate):
            done = by_the_evaluator(request, tmp_path, endpoint)
            assert done.returncode == 0, done.stderr
        ours = server.take()
        results = by_the_command(server, tmp_path, endpoint, chat=chat)
        theirs = server.take()
    assert len(ours) == TEST_RECORDS
    asked = [{text_of(each): each for each in bodies} for bodies in (ours, theirs)]
    assert asked[0].keys() == asked[1].keys()
    assert all(prompt.startswith("Question: ") and prompt.endswith("\nAnswer:") for prompt in asked[0])
    for prompt, body in asked[0].items():
        other = asked[1][prompt]
        assert body.pop("add_special_tokens") is not chat, "as it is where a request does not say"
        assert body == other
    store = open_store(str(tmp_path / "store"))
    result = fetch_stage(store, evaluate.layout.eval("base"), tmp_path / "out").require_result(EvalResult)
    assert result.strict.accuracy == results["exact_match,strict-match"]
    assert result.flexible.accuracy == results["exact_match,flexible-extract"]
    assert result.strict.stderr == results["exact_match_stderr,strict-match"]
    assert 0 < result.strict.accuracy < 1
    assert result.scored is not None
    recorded = (result.scored.source, result.scored.split, result.scored.records, result.scored.prompt)
    assert recorded == ("openai/gsm8k:main", "test", TEST_RECORDS, "task")
    assert (result.scored.num_fewshot, result.scored.chat_template, result.special_tokens) == (0, chat, ())
    checked = read_manifest(store, check.layout.check("task"))
    assert checked is not None
    assert checked.require_result(CheckResult).scored == result.scored


def test_a_task_keeps_its_own_examples_if_the_sweep_requests_it(tmp_path: Path, endpoint: str) -> None:
    kept = sweep(keep_from_task=["data", "prompt", "num_fewshot"])
    with completing(answer) as server:
        request = EvaluateRequest(sweep=kept, store=str(tmp_path / "store"), run="base", server_url=server.url)
        prepare(request, tmp_path)
        done = by_the_evaluator(request, tmp_path, endpoint)
        assert done.returncode == 0, done.stderr
        prompts = [body["prompt"] for body in server.take()]
    assert {prompt.count("Question: ") for prompt in prompts} == {6}, "five examples, as the task says"


def test_an_unavailable_hub_is_not_bad_input(tmp_path: Path) -> None:
    request = CheckRequest(sweep=sweep(), store=str(tmp_path / "store"), subject="task")
    prepare(request, tmp_path)
    at_once = tmp_path / "at-once"  # the hub's library waits 23 s in all between its attempts
    at_once.mkdir()
    (at_once / "sitecustomize.py").write_text("import time\ntime.sleep = lambda seconds: None\n")
    done = by_the_evaluator(request, tmp_path, "http://127.0.0.1:9", PYTHONPATH=str(at_once))
    assert done.returncode == 75, done.stderr
    assert "the hub cannot be reached" in done.stderr
