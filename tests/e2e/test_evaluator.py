"""The evaluator against the real model server: a real vLLM, the shipped tiny model, a LoRA adapter made here."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from gates import Gate
from ports import free_port
from sweeps import small_sweep
from waiting import PATIENCE_S, until

from surogate_bench.errors import ExitCode
from surogate_bench.layout import BASE_RUN
from surogate_bench.results import EvalResult, SampleLine
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.model_source import locate_model
from surogate_bench.stages.publication import fetch_stage, publish_stage
from surogate_bench.stages.requests import EvaluateRequest, ServeRequest
from surogate_bench.statistics import compare_paired
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_trainer.embedded.word_problems import split

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]

RUN, OTHER_RUN = "bf16-s0", "fp8-s0"
QUESTIONS = 100
COMPARED_SINGLY = 30
MAX_TOKENS = 96
ADAPTER_STDDEV = 0.2
"""Of the random matrices B: small enough that the model still solves problems, large enough that it errs on some."""


NEAR_TIE = 0.25
"""Greedy tokens may part where two logits are this close: two steps of bfloat16 at the size logits have (16 to 32)."""


@dataclass(slots=True)
class Served:
    request: ServeRequest
    store: ObjectStore
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.request.port}"

    def control(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return httpx.request(method, self.control_url + path, timeout=PATIENCE_S, trust_env=False, **arguments)

    def complete(self, model: str, prompt: str) -> list[int]:
        """Greedy tokens, without the end-of-text token."""
        url = f"http://127.0.0.1:{self.request.vllm_port}/v1/completions"
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "return_token_ids": True,
            "add_special_tokens": False,
        }
        answer = httpx.post(url, json=body, timeout=PATIENCE_S, trust_env=False).raise_for_status().json()
        tokens: list[int] = answer["choices"][0]["token_ids"]
        return tokens

    @contextmanager
    def loaded(self, run: str) -> Iterator[str]:
        body = {"prefix": self.request.layout.train(run)}
        name: str = self.control("PUT", f"/adapters/{run}", json=body).raise_for_status().json()["model"]
        yield name
        self.control("DELETE", f"/adapters/{run}").raise_for_status()

    @property
    def model_path(self) -> str:
        model, layout = self.request.sweep.model, self.request.layout
        return locate_model(model, store=self.store, layout=layout, cache=Path("unused")).name_or_path

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            try:
                return self.control("GET", "/readyz").status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        until(ready, "the model server is ready")


SWEEP = small_sweep(
    name="evaluator-e2e",
    data={"builtin": "word-problems-en", "train_size": 16, "test_size": QUESTIONS},
    training={"max_steps": 1, "max_length": 512},
    recipes=["bf16", "fp8"],
    serving={"max_model_len": 512, "kv_cache_gib": 0.5, "start_timeout_s": PATIENCE_S},
    # So few at a time that most are not sent yet while an evaluation waits at a gate, however fast vLLM answers.
    evaluation={"num_concurrent": 16, "max_gen_toks": MAX_TOKENS, "max_empty_fraction": 0.5},
)


def publish(store: ObjectStore, prefix: str, folder: Path, *, stage: str, run: str, spec_hash: str) -> None:
    manifest = Manifest(
        stage=stage,
        run=run,
        spec_hash=spec_hash,
        created=datetime.now(UTC),
        files={},
        hardware={},
        versions={},
        result={"data": {}, "model_source": "tiny-qwen3-en", "model_in_store": False} if stage == "prepare" else {},
    )
    publish_stage(store, prefix, folder, manifest)


def save_adapter(model_path: str, folder: Path, *, seed: int) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.bfloat16)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=ADAPTER_STDDEV)
            if "lora_" in name:  # vLLM keeps adapters in bfloat16: nothing is left to round there
                parameter.copy_(parameter.bfloat16())
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One model server for all tests, with the prepare stage and two train stages in its store."""
    folder = tmp_path_factory.mktemp("evaluator")
    store = open_store(str(folder / "store"))
    request = ServeRequest(sweep=SWEEP, store=store.url, port=free_port(), vllm_port=free_port(), threads=2)
    layout = request.layout
    data = folder / "prepared" / "data"
    data.mkdir(parents=True)
    problems = split("test", language="en", size=QUESTIONS)
    lines = [json.dumps({"question": each.question, "answer": each.answer}) + "\n" for each in problems]
    (data / "test.jsonl").write_text("".join(lines))
    publish(store, layout.prepare, data.parent, stage="prepare", run="", spec_hash=SWEEP.spec_hash)
    model = locate_model(SWEEP.model, store=store, layout=layout, cache=folder / "cache")
    for seed, run in enumerate((RUN, OTHER_RUN)):
        save_adapter(model.name_or_path, folder / run / "adapter", seed=seed)
        publish(store, layout.train(run), folder / run, stage="train", run=run, spec_hash=SWEEP.spec_hash)
    (folder / "serve.json").write_text(request.model_dump_json())
    log = folder / "server.log"
    arguments = [str(folder / "serve.json"), "--work-dir", str(folder / "serve")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "surogate_bench_model_server", *arguments], stdout=output, stderr=output
        )
    try:
        server = Served(request, store, process, log)
        server.wait_until_ready()
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
        shutil.rmtree(folder / "store")


@dataclass(slots=True)
class Evaluation:
    request: EvaluateRequest
    work_dir: Path
    process: "subprocess.Popen[bytes]"

    def finish(self) -> int:
        return self.process.wait(PATIENCE_S)

    def log(self) -> str:
        return (self.work_dir / "log").read_text()


def start_evaluation(served: Served, run: str, folder: Path, gate: Gate | None = None) -> Evaluation:
    request = EvaluateRequest(
        sweep=served.request.sweep, store=served.store.url, run=run, server_url=served.control_url
    )
    work_dir = folder / run
    work_dir.mkdir(parents=True)
    (work_dir / "request.json").write_text(request.model_dump_json())
    arguments = [str(work_dir / "request.json"), "--work-dir", str(work_dir)]
    with (work_dir / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "surogate_bench_evaluator", *arguments],
            stderr=log, env=gate.environment() if gate else None,
        )  # fmt: skip
    return Evaluation(request, work_dir, process)


@dataclass(slots=True)
class Published:
    result: EvalResult
    samples: list[SampleLine]

    def right(self) -> list[bool]:
        return [line.strict_match for line in self.samples]


def published(served: Served, run: str, folder: Path) -> Published:
    manifest = fetch_stage(served.store, served.request.layout.eval(run), folder)
    lines = (folder / "samples.jsonl").read_text().splitlines()
    return Published(manifest.require_result(EvalResult), [SampleLine.model_validate_json(x) for x in lines])


@pytest.fixture(scope="module")
def scored(served: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Published]:
    """The base model and one adapter, evaluated side by side."""
    folder = tmp_path_factory.mktemp("scored")
    evaluations = [start_evaluation(served, run, folder / "work") for run in (BASE_RUN, RUN)]
    for evaluation in evaluations:
        assert evaluation.finish() == ExitCode.OK, evaluation.log()[-4000:]
    return {run: published(served, run, folder / "out" / run) for run in (BASE_RUN, RUN)}


def last_number(text: str) -> str:
    """The number after the last ####, without separators; what a reader would mark as the answer."""
    return text.rpartition("####")[2].strip().replace(",", "").rstrip(".")


def first_marked_number(text: str) -> str | None:
    """The number after the first #### that a number follows."""
    for piece in text.split("#### ")[1:]:
        number = ""
        for character in piece:
            if character in "0123456789.," or (character == "-" and not number):
                number += character
            else:
                break
        if number.strip("-"):
            return number.replace(",", "").removesuffix(".")
    return None


@pytest.mark.parametrize("run", [BASE_RUN, RUN])
def test_accuracies_are_what_the_kept_samples_say(scored: dict[str, Published], run: str) -> None:
    found = scored[run]
    problems = split("test", language="en", size=QUESTIONS)
    assert [line.question for line in found.samples] == [problem.question for problem in problems]
    marks = [
        first_marked_number(line.response) == last_number(problem.answer)
        for line, problem in zip(found.samples, problems, strict=True)
    ]
    assert found.right() == marks
    accuracy = sum(marks) / QUESTIONS
    assert found.result.strict.accuracy == accuracy
    assert found.result.strict.stderr == pytest.approx((accuracy * (1 - accuracy) / (QUESTIONS - 1)) ** 0.5, abs=1e-12)
    assert found.result.empty_answers == sum(not line.response.strip() for line in found.samples)


def test_the_adapter_was_asked_and_not_the_base_model(
    scored: dict[str, Published], record_property: Callable[[str, object], None]
) -> None:
    for run, found in scored.items():
        record_property(f"accuracy of {run}", found.result.strict.accuracy)
    assert scored[RUN].result.model.startswith(f"{RUN}-")
    assert scored[BASE_RUN].result.model == "base"
    comparison = compare_paired(scored[BASE_RUN].right(), scored[RUN].right())
    assert comparison.only_a > 0
    assert 0 < scored[RUN].result.strict.accuracy < 1


def test_nothing_stays_loaded_after_an_evaluation(served: Served, scored: dict[str, Published]) -> None:
    assert scored
    assert served.control("GET", "/status").json()["adapters"] == {}


@dataclass(frozen=True, slots=True)
class Parting:
    """Where a greedy answer leaves that of transformers: the prompt's index, and its token's lack of logit."""

    index: int
    gap: float


def greedy_partings(
    model_path: str, adapter: Path, prompts: Sequence[str], answers: Sequence[list[int]]
) -> list[Parting]:
    """Compare answers with those of transformers + PEFT in bfloat16, one prompt at a time, by teacher forcing.

    All logits after one prompt and answer come from one forward pass; the answer is greedy where each of its tokens is
    the largest logit after what precedes it. The adapter is in bfloat16 too, as vLLM has it.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from surogate_bench_quantization.cpu_products import ensure_fast_bf16_products

    ensure_fast_bf16_products()
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(base, adapter).to(torch.bfloat16).eval()
    partings = []
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(torch.tensor([head + answer])).logits[0, len(head) - 1 : -1].float()
        gaps = logits.max(dim=-1).values - logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        for place in gaps.nonzero()[:1, 0]:
            partings.append(Parting(index, gaps[place].item()))
    return partings


def test_greedy_answers_are_those_of_transformers_and_peft_but_for_ties(
    served: Served, scored: dict[str, Published], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    fetch_stage(served.store, served.request.layout.train(RUN), tmp_path, under="adapter/")
    prompts = [f"Question: {line.question}\nAnswer:" for line in scored[RUN].samples]
    with served.loaded(RUN) as name, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda prompt: served.complete(name, prompt), prompts))
    partings = greedy_partings(served.model_path, tmp_path / "adapter", prompts, answers)
    record_property("tokens", sum(map(len, answers)))
    record_property("parted", len(partings))
    record_property("gaps", str([parting.gap for parting in partings]))
    assert all(parting.gap <= NEAR_TIE for parting in partings), partings
    assert len(partings) <= QUESTIONS // 20


def test_answers_asked_together_are_those_asked_one_by_one_but_for_a_few(
    served: Served, scored: dict[str, Published], record_property: Callable[[str, object], None]
) -> None:
    """Non-determinism of vLLM itself: a batch rounds differently from a single request."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(served.model_path)
    differing = 0
    with served.loaded(RUN) as name:
        for line in scored[RUN].samples[:COMPARED_SINGLY]:
            tokens = served.complete(name, f"Question: {line.question}\nAnswer:")
            differing += not tokenizer.decode(tokens, skip_special_tokens=True).startswith(line.response)
    record_property("differing", differing)
    assert differing <= COMPARED_SINGLY // 4


def test_the_lm_eval_command_gives_the_same_accuracy(
    served: Served, scored: dict[str, Published], tmp_path: Path
) -> None:
    evaluation = start_evaluation(served, BASE_RUN, tmp_path)  # finished already: ends at once
    assert evaluation.finish() == ExitCode.OK
    from surogate_bench_evaluator.stage import prepare_task

    task_file = prepare_task(evaluation.request, served.store, tmp_path / "again")
    arguments = {
        "model": BASE_RUN,
        "base_url": f"http://127.0.0.1:{served.request.vllm_port}/v1/completions",
        "tokenizer": served.model_path,
        "tokenizer_backend": "huggingface",
        "num_concurrent": "50",
        "max_length": "512",
    }
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"),
        *("--model_args", ",".join(f"{key}={value}" for key, value in arguments.items())),
        *("--include_path", str(task_file.parent), "--tasks", task_file.stem),
        *("--gen_kwargs", f"max_gen_toks={MAX_TOKENS}", "--output_path", str(tmp_path / "by-hand.json")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (written,) = tmp_path.glob("by-hand*.json")
    by_hand = json.loads(written.read_text())["results"][task_file.stem]
    ours = scored[BASE_RUN].result
    assert by_hand["exact_match,strict-match"] == pytest.approx(ours.strict.accuracy, abs=2 / QUESTIONS)
    assert by_hand["exact_match,flexible-extract"] == pytest.approx(ours.flexible.accuracy, abs=2 / QUESTIONS)


def test_an_evaluation_survives_the_death_of_vllm(served: Served, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    gate.close_progress(1)
    evaluation = start_evaluation(served, OTHER_RUN, tmp_path / "work", gate)
    until(lambda: gate.waiting() or evaluation.process.poll() is not None, "the first answer")
    for child in psutil.Process(served.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended with one that was killed before
            child.kill()
    gate.open()
    assert evaluation.finish() == ExitCode.OK, evaluation.log()[-4000:]
    assert "failed while answering" in evaluation.log()
    found = published(served, OTHER_RUN, tmp_path / "out")
    assert [line.index for line in found.samples] == list(range(QUESTIONS))
    assert OTHER_RUN not in served.control("GET", "/status").json()["adapters"]
