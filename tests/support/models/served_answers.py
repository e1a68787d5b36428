"""Greedy answers of a real model server, and the model of transformers and PEFT that they are compared with."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from waiting import PATIENCE_S, until

from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.requests import PrepareRequest, ServeRequest, TrainRequest
from surogate_bench_trainer.main import handle

MAX_TOKENS = 64
UNITS = 8.0
"""Units in the last place of bf16 by which two logits may differ and still be called a tie."""


class Answer(NamedTuple):
    """Tokens of a prompt and of its answer, and the log-probabilities that the server gave those of the answer."""

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]


@contextmanager
def serving(request: ServeRequest, work: Path) -> Iterator[Callable[..., httpx.Response]]:
    """Run the model server; yields a function that sends a request to a port."""
    (work / "request.json").write_text(request.model_dump_json())
    command = [sys.executable, "-P", "-m", "surogate_bench_model_server", str(work / "request.json")]
    with (work / "service.log").open("wb") as log, httpx.Client(timeout=PATIENCE_S, trust_env=False) as client:
        process = subprocess.Popen([*command, "--work-dir", str(work)], stdout=log, stderr=log)

        def call(method: str, port: int, path: str, **arguments: Any) -> httpx.Response:
            return client.request(method, f"http://127.0.0.1:{port}{path}", **arguments)

        def ready() -> bool:
            assert process.poll() is None, (work / "service.log").read_text()[-4000:]
            try:
                return call("GET", request.port, "/readyz").is_success
            except httpx.TransportError:
                return False

        try:
            until(ready, "ready")
            yield call
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def greedy_answers(
    call: Callable[..., httpx.Response], request: ServeRequest, model: str, questions: list[str]
) -> list[Answer]:
    """Ask for every answer, many at the same time."""

    def ask(question: str) -> Answer:
        prompt = request.sweep.data.prompt.replace("{question}", question)
        body = {"model": model, "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0}
        answer = call(
            "POST", request.vllm_port, "/v1/completions", json=body | {"return_token_ids": True, "logprobs": 1}
        )
        choice = answer.raise_for_status().json()["choices"][0]
        return Answer(choice["prompt_token_ids"], choice["token_ids"], choice["logprobs"]["token_logprobs"])

    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(ask, questions))


def trained_store(root: Path, sweep: RecipeSweep, recipe: str) -> str:
    """Prepare a sweep and train one recipe in this process; returns the URL of the store."""
    threads = torch.get_num_threads()
    for request in (
        PrepareRequest(sweep=sweep, store=str(root / "store")),
        TrainRequest(sweep=sweep, store=str(root / "store"), recipe=recipe, seed=0, threads=1),
    ):
        (root / request.kind).mkdir()
        handle(request, root / request.kind)
    torch.set_num_threads(threads)
    return str(root / "store")


def questions_of(request: ServeRequest) -> list[str]:
    """Return the test questions of a sweep in a local store."""
    records = Path(request.store) / request.layout.prepare / "data" / "test.jsonl"
    return [json.loads(line)["question"] for line in records.read_text(encoding="utf-8").splitlines()]


class Reference:
    """A base model with the adapter, by transformers and PEFT; ``None``: the base model alone."""

    def __init__(self, base: PreTrainedModel, adapter: Path | None) -> None:
        adapted = base if adapter is None else PeftModel.from_pretrained(base, adapter, autocast_adapter_dtype=False)
        self.model = adapted.eval()

    @torch.no_grad()
    def logits(self, prompt: list[int], answer: list[int], attention: str = "sdpa") -> Tensor:
        """Logits (tokens of the answer, vocabulary) that each of its tokens was chosen from."""
        self.model.set_attn_implementation(attention)
        logits: Tensor = self.model(input_ids=torch.tensor([prompt + answer])).logits
        return logits[0, len(prompt) - 1 : -1].float()


def quantized_by_bitsandbytes(folder: str) -> PreTrainedModel:
    """Return a model that transformers quantizes to NF4 with bitsandbytes, without any code of ours."""
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=settings, device_map="cpu"
    )
    return model


def gaps(logits: Tensor, answer: list[int]) -> Tensor:
    """By how much each chosen token's logit is below the largest."""
    return logits.max(dim=1).values - logits.gather(1, torch.tensor(answer)[:, None])[:, 0]


def distance(reference: Reference, answers: list[Answer]) -> float:
    """Return the mean absolute difference of the log-probabilities of answers: the server's from the reference's."""
    found = [
        reference.logits(prompt, tokens).log_softmax(dim=1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
        - torch.tensor(logprobs)
        for prompt, tokens, logprobs in answers
    ]
    return float(torch.cat(found).abs().mean())


def require_ties_only(reference: Reference, answers: list[Answer]) -> None:
    """Require that every token is the reference's own choice, but for a few whose logits bf16 hardly distinguishes."""
    tokens = ties = 0
    for prompt, answer, _ in answers:
        logits = reference.logits(prompt, answer)
        below = gaps(logits, answer)
        assert float(below.max()) <= UNITS * float(logits.max()) * 2.0**-7, (
            f"{answer} is not what the reference answers"
        )
        tokens, ties = tokens + len(answer), ties + int((below > 0).sum())
    assert ties <= 0.02 * tokens
