"""A real vLLM under each recipe against transformers, PEFT and the trainer's layers, on greedy answers.

``SERVED_ANSWERS=200`` asks for the whole comparison: every recipe, and so many answers of each (about 10 minutes).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import torch
from peft import PeftModel
from ports import free_port
from safetensors.torch import load_file
from sweeps import small_sweep
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from waiting import PATIENCE_S, until

from surogate_bench.contract import INPUT_SCALES_FILE
from surogate_bench.model_source import local_model_folder
from surogate_bench.recipes import RECIPES, ComputePrecision, Recipe, recipe_by_name
from surogate_bench.requests import PrepareRequest, ServeRequest, TrainRequest
from surogate_bench_quantization.cpu_products import ensure_fast_bf16_products
from surogate_bench_quantization.engines import select_engine
from surogate_bench_quantization.linear import QuantizedLinear
from surogate_bench_trainer.main import handle
from surogate_bench_trainer.model.recipe import apply_recipe

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")]

ANSWERS = int(os.environ.get("SERVED_ANSWERS", "16"))
NAMES = [recipe.name for recipe in RECIPES] if ANSWERS >= 200 else ["qbnb", "qfp4", "fp4"]
SWEEP = small_sweep(
    name="under",
    data={"train_size": 128, "test_size": ANSWERS, "validation_size": 4},
    training={"max_steps": 12, "max_length": 512, "learning_rate": 1e-3, "lora": {"r": 16, "alpha": 32}},
    recipes=["fp8"],
    serving={"max_lora_rank": 16, "max_loras": 2, "max_model_len": 512, "kv_cache_gib": 0.25,
             "start_timeout_s": PATIENCE_S},
)  # fmt: skip
RUN = "fp8-s0"
MAX_TOKENS = 64
UNITS = 8.0
"""Units in the last place of bf16 by which two logits may differ and still be called a tie."""
TIE_OF_NOISE = 16.0
"""The same where inputs are quantized, which amplifies a rounding: so many times the reference's own noise."""


class Answer(NamedTuple):
    """Tokens of a prompt and of its answer, and the log-probabilities that the server gave those of the answer."""

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]


@dataclass(frozen=True)
class Served:
    """Answers of a server, and what it reported."""

    answers: list[Answer]
    loaded: dict[str, Any]
    status: dict[str, Any]
    adapter: Path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with one adapter, trained under FP8."""
    root = tmp_path_factory.mktemp("under")
    threads = torch.get_num_threads()
    for request in (
        PrepareRequest(sweep=SWEEP, store=str(root / "store")),
        TrainRequest(sweep=SWEEP, store=str(root / "store"), recipe="fp8", seed=0, threads=1),
    ):
        (root / request.kind).mkdir()
        handle(request, root / request.kind)
    torch.set_num_threads(threads)
    return str(root / "store")


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


def served(store: str, under: str, work: Path) -> Served:
    """Ask for every answer, many at the same time."""
    request = ServeRequest(sweep=SWEEP, store=store, threads=2, port=free_port(), vllm_port=free_port(), under=under)
    records = Path(store) / request.layout.prepare / "data" / "test.jsonl"
    questions = [json.loads(line)["question"] for line in records.read_text(encoding="utf-8").splitlines()]
    with serving(request, work) as call:
        body = {"prefix": request.layout.train(RUN)}
        loaded = call("PUT", request.port, f"/adapters/{RUN}", json=body).raise_for_status().json()
        assert call("POST", request.port, "/probe").is_success

        def ask(question: str) -> Answer:
            prompt = SWEEP.data.prompt.replace("{question}", question)
            body = {"model": loaded["model"], "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0}
            answer = call(
                "POST", request.vllm_port, "/v1/completions", json=body | {"return_token_ids": True, "logprobs": 1}
            )
            choice = answer.raise_for_status().json()["choices"][0]
            return Answer(choice["prompt_token_ids"], choice["token_ids"], choice["logprobs"]["token_logprobs"])

        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(ask, questions))
        status = call("GET", request.port, "/status").json()
    adapter = next(work.glob(f"adapters*/{loaded['model']}"))
    return Served(answers, loaded, status, adapter)


class Reference:
    """A base model with the adapter, by transformers and PEFT."""

    def __init__(self, base: PreTrainedModel, adapter: Path) -> None:
        self.model = PeftModel.from_pretrained(base, adapter, autocast_adapter_dtype=False).eval()

    @torch.no_grad()
    def logits(self, prompt: list[int], answer: list[int], attention: str = "sdpa") -> Tensor:
        """Logits (tokens of the answer, vocabulary) that each of its tokens was chosen from."""
        self.model.set_attn_implementation(attention)
        logits: Tensor = self.model(input_ids=torch.tensor([prompt + answer])).logits
        return logits[0, len(prompt) - 1 : -1].float()


def with_the_trainers_layers(recipe: Recipe, adapter: Path) -> Reference:
    """Return the reference whose linear layers are those that the trainer puts in place."""
    ensure_fast_bf16_products()
    base = AutoModelForCausalLM.from_pretrained(str(local_model_folder(SWEEP.model)), dtype=torch.bfloat16)
    applied = apply_recipe(base, recipe, engine=select_engine(recipe, torch.device("cpu")), seed=0)
    if applied.input_scales():
        scales = load_file(adapter / INPUT_SCALES_FILE)
        state = applied.state_dict()
        state["delayed_scaling.scale"] = torch.stack([scales[name] for name in applied.replaced])
        applied.load_state_dict(state)
    if recipe.compute is ComputePrecision.NVFP4:
        for module in base.modules():
            if isinstance(module, QuantizedLinear):
                module.products.fprop = by_token(module.products.fprop)
    return Reference(base, adapter)


def quantized_by_bitsandbytes(adapter: Path) -> Reference:
    """Return the reference that transformers quantizes to NF4 with bitsandbytes, without any code of ours."""
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    folder = str(local_model_folder(SWEEP.model))
    base = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=settings, device_map="cpu"
    )
    return Reference(base, adapter)


def by_token(fprop: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Multiply every token by itself, as a server does whose batches are not those of training."""

    def multiply(inputs: Tensor, *, record: bool) -> Tensor:
        return torch.cat([fprop(row, record=record) for row in inputs.flatten(end_dim=-2).split(1)])

    return multiply


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
    """Require that every token is the reference's own choice, but for a few whose logits bf16 hardly tells apart."""
    tokens = ties = 0
    for prompt, answer, _ in answers:
        logits = reference.logits(prompt, answer)
        below = gaps(logits, answer)
        assert float(below.max()) <= UNITS * float(logits.max()) * 2.0**-7, (
            f"{answer} is not what the reference answers"
        )
        tokens, ties = tokens + len(answer), ties + int((below > 0).sum())
    assert ties <= 0.02 * tokens


@pytest.mark.parametrize("name", NAMES)
def test_greedy_answers_are_those_of_transformers_with_the_trainers_layers_up_to_ties(
    name: str, store: str, tmp_path: Path
) -> None:
    recipe = recipe_by_name(name)
    given = served(store, name, tmp_path)
    scaled = recipe.compute is ComputePrecision.FP8_HYBRID
    source = ("training" if name == "fp8" else "calibration") if scaled else None
    assert given.status["under"] == (name if recipe.quantizes else None)
    assert given.loaded.get("input_scales") == source
    assert given.status["input_scales"] == ({"base": "calibration", RUN: source} if scaled else {})

    reference = with_the_trainers_layers(recipe, given.adapter)
    if recipe.quantizes:
        few, published = given.answers[: len(given.answers) // 4], recipe_by_name("bf16")
        as_published = distance(with_the_trainers_layers(published, given.adapter), few)
        assert distance(reference, few) < 0.5 * as_published, "these are not the weights and products of the recipe"
    if recipe.compute is ComputePrecision.BF16:
        require_ties_only(reference, given.answers)
        if name == "qbnb":
            require_ties_only(quantized_by_bitsandbytes(given.adapter), given.answers)
        return

    tokens = ties = own_ties = 0
    largest, noise = 0.0, []
    by_rows = recipe.compute is ComputePrecision.NVFP4  # which takes seconds an answer
    for prompt, answer, _ in given.answers[: len(given.answers) // (4 if by_rows else 1)]:
        logits, other = reference.logits(prompt, answer), reference.logits(prompt, answer, "eager")
        below = gaps(logits, answer)
        tokens, ties = tokens + len(answer), ties + int((below > 0).sum())
        largest = max(largest, float(below.max()))
        noise.append(float((logits - other).abs().mean()))
        own_ties += int((gaps(logits, other.argmax(dim=1).tolist()) > 0).sum())
    print(f"{name}: {ties} ties of {tokens} tokens, the largest {largest:.3f}; the reference's own: {own_ties}")  # noqa: T201
    assert ties <= 1.5 * own_ties + 0.01 * tokens + 3.0 * (own_ties + 1) ** 0.5  # few tokens, few ties
    assert largest <= TIE_OF_NOISE * sum(noise) / len(noise)
