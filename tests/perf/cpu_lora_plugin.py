"""Time LoRA decoding by vLLM on CPU with and without our plug-in, and compare the greedy answers, in one run.

Each server gets the same requests several times: 50 concurrent completions with one adapter at ``--max-lora-rank 64``,
prompts of about 125 tokens, as long as a GSM8K question in Romanian is for Qwen3. The best round counts, because other
processes only ever make one slower. Rounds also show how often vLLM agrees with itself: batches form differently every
time. Tokens per CPU second of vLLM's engine process depend less on what else runs than tokens per second do.

    python tests/perf/cpu_lora_plugin.py [--adapter FOLDER] --json cpu-lora-plugin.json
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil
from model_servers import free_port

from surogate_bench.errors import PermanentError
from surogate_bench.machine.hardware import describe_machine, package_versions
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.stages.model_source import ModelLocation, locate_model
from surogate_bench.stages.requests import PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_model_server.vllm.client import VllmClient
from surogate_bench_model_server.vllm.command import BASE_MODEL, ServerSettings, vllm_command
from surogate_bench_model_server.vllm.log_tail import log_tail
from surogate_bench_model_server.vllm.process import VllmProcess, session_members, start_vllm
from surogate_bench_trainer.embedded.word_problems import prompt_text, split

CONCURRENT = 50
ROUNDS = 3
PROBLEMS_PER_PROMPT = 4
MAX_LORA_RANK = 64
RANK = 16
ADAPTER = "adapter"
START_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One server: seconds to start, generated tokens/s (best round), and the answers of the first and last round."""

    start_s: float
    base_tokens_per_s: float
    base_tokens_per_cpu_s: float
    adapter_tokens_per_s: float
    adapter_tokens_per_cpu_s: float
    answers: tuple[str, ...]
    answers_again: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over all prompts."""

    tokens: int
    seconds: float
    engine_cpu_s: float
    answers: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the base model; the shipped one if absent")
    parser.add_argument("--adapter", type=Path, help="folder of a PEFT adapter; a random one if absent")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        sweep = make_sweep(arguments.model)
        model = find_model(sweep, work)
        adapter = arguments.adapter or make_adapter(model, work / "random-adapter")
        requests = arguments.requests, arguments.max_tokens
        plain = asyncio.run(measure(sweep, model, adapter, work, requests, arguments.threads, plugins=""))
        ours = asyncio.run(measure(sweep, model, adapter, work, requests, arguments.threads, plugins=None))
    figures = compare(plain, ours)
    print(json.dumps(figures, indent=2))  # noqa: T201 - a script that reports
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def compare(plain: Measurement, ours: Measurement) -> dict[str, object]:
    """Put the two measurements side by side."""
    speeds = {
        name: {key: round(value, 1) for key, value in asdict(measured).items() if isinstance(value, float)}
        for name, measured in (("vllm alone", plain), ("with plug-in", ours))
    }
    return {
        **speeds,
        "ratio": round(ours.adapter_tokens_per_s / plain.adapter_tokens_per_s, 2),
        "ratio per CPU second": round(ours.adapter_tokens_per_cpu_s / plain.adapter_tokens_per_cpu_s, 2),
        "answers": len(plain.answers),
        "same answers": same(plain.answers, ours.answers),
        "same answers of vllm alone, asked twice": same(plain.answers, plain.answers_again),
        "same answers with plug-in, asked twice": same(ours.answers, ours.answers_again),
        "max_lora_rank": MAX_LORA_RANK,
        "concurrent": CONCURRENT,
        "rounds": ROUNDS,
        "machine": describe_machine().model_dump(),
        "versions": package_versions(),
    }


def same(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """Count equal answers."""
    return sum(one == other for one, other in zip(first, second, strict=True))


async def measure(
    sweep: RecipeSweep,
    model: ModelLocation,
    adapter: Path,
    work: Path,
    requests: tuple[int, int],
    threads: int,
    *,
    plugins: str | None,
) -> Measurement:
    """Start a server with all plug-ins (None) or those named, and time it."""
    inherited = {name: value for name, value in os.environ.items() if name != "VLLM_PLUGINS"}
    if plugins is not None:
        inherited["VLLM_PLUGINS"] = plugins
    settings = ServerSettings(host="127.0.0.1", port=free_port(), platform="cpu", threads=threads)
    url = f"http://127.0.0.1:{settings.port}"
    client = VllmClient.open(url, None)
    began = time.perf_counter()
    process = start_vllm(vllm_command(sweep, model, settings, inherited=inherited), work)
    try:
        await until_ready(client, process)
        start_s = time.perf_counter() - began
        await client.load_adapter(ADAPTER, adapter)
        load = Load(url, find_engine(process), make_prompts(requests[0]), requests[1])
        await load.run(ADAPTER)  # warm-up
        base, adapted = [], []
        for _ in range(ROUNDS):
            base.append(await load.run(BASE_MODEL))
            adapted.append(await load.run(ADAPTER))
        return Measurement(
            start_s,
            max(one.tokens / one.seconds for one in base),
            max(one.tokens / one.engine_cpu_s for one in base),
            max(one.tokens / one.seconds for one in adapted),
            max(one.tokens / one.engine_cpu_s for one in adapted),
            adapted[0].answers,
            adapted[-1].answers,
        )
    finally:
        await client.close()
        await process.stop()


async def until_ready(client: VllmClient, process: VllmProcess) -> None:
    """Wait until vLLM answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not await client.is_healthy():
        if process.exit_code() is not None or time.monotonic() > deadline:
            raise PermanentError(f"vLLM does not start:\n{log_tail(process.log)}")
        await asyncio.sleep(0.2)


@dataclass(frozen=True, slots=True)
class Load:
    """A load generator: greedy completions of fixed length, 50 at a time."""

    url: str
    engine: psutil.Process
    prompts: list[str]
    max_tokens: int

    async def run(self, model: str) -> Round:
        """Answer all prompts once."""
        free = asyncio.Semaphore(CONCURRENT)
        limits = httpx.Limits(max_connections=CONCURRENT)
        settings = {"model": model, "max_tokens": self.max_tokens, "temperature": 0, "ignore_eos": True}
        async with httpx.AsyncClient(base_url=self.url, timeout=600, limits=limits, trust_env=False) as http:

            async def one(prompt: str) -> tuple[int, str]:
                async with free:
                    answer = await http.post("/v1/completions", json=settings | {"prompt": prompt})
                document = answer.raise_for_status().json()
                return document["usage"]["completion_tokens"], document["choices"][0]["text"]

            cpu_before, began = cpu_seconds(self.engine), time.perf_counter()
            answered = await asyncio.gather(*(one(prompt) for prompt in self.prompts))
            seconds, cpu_s = time.perf_counter() - began, cpu_seconds(self.engine) - cpu_before
        return Round(sum(tokens for tokens, _ in answered), seconds, cpu_s, tuple(text for _, text in answered))


def find_engine(process: VllmProcess) -> psutil.Process:
    """Find vLLM's engine process: of the processes it started, the one with the most memory, which holds the cache."""
    return max((psutil.Process(pid) for pid in session_members(process.pid)), key=lambda one: one.memory_info().rss)


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def make_prompts(number: int) -> list[str]:
    """Make prompts of several problems each, all different."""
    problems = split("test", language="ro", size=number + PROBLEMS_PER_PROMPT)
    texts = [prompt_text(problem.question, language="ro") for problem in problems]
    return ["\n".join(texts[first : first + PROBLEMS_PER_PROMPT]) for first in range(number)]


def make_sweep(model: Path | None) -> RecipeSweep:
    """Build the settings that the server takes from a sweep."""
    return parse_sweep(
        {
            "name": "cpu-lora-plugin",
            "model": {"builtin": "tiny-qwen3-en"} if model is None else {"path": str(model.resolve())},
            "data": {"builtin": "word-problems-ro", "train_size": 1, "test_size": 1},
            "training": {"max_steps": 1, "lora": {"r": RANK}},
            "recipes": ["bf16"],
            "serving": {"max_lora_rank": MAX_LORA_RANK, "max_model_len": 512, "kv_cache_gib": 0.5},
        }
    )


def find_model(sweep: RecipeSweep, work: Path) -> ModelLocation:
    """Locate the base model."""
    store = open_store(str(work / "store"))
    layout = PrepareRequest(sweep=sweep, store=store.url).layout
    return locate_model(sweep.model, store=store, layout=layout, cache=work / "models")


def make_adapter(model: ModelLocation, folder: Path) -> Path:
    """Make a random rank-16 adapter on the seven projections with PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model.name_or_path)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    adapted.save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    main()
