"""Time decoding under each recipe against decoding in bf16, on this machine, in one run.

One server with bf16 stays up; along with it each recipe's server is started, and both get the same requests in
alternation: 50 concurrent completions of the base model. The best round of each counts, because other processes only
ever make one slower. Tokens per CPU second of a server's processes depend less on what else runs than tokens per second
do.

    python tests/perf/served_recipes.py [--recipes fp8 fp4] --json served-recipes.json
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from model_servers import free_port, model_server

from surogate_bench.contract import STATUS_PATH
from surogate_bench.machine.hardware import describe_machine, package_versions
from surogate_bench.recipes import RECIPES
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.stages.requests import PrepareRequest, ServeRequest
from surogate_bench_trainer.embedded.word_problems import prompt_text, split
from surogate_bench_trainer.main import handle

CONCURRENT = 50
ROUNDS = 3


@dataclass(slots=True)
class Server:
    """A model server that is ready."""

    request: ServeRequest
    process: "subprocess.Popen[bytes]"
    model: str
    best: float = 0.0
    """Tokens per second."""
    best_cpu: float = 0.0
    """Tokens per CPU second."""

    def round(self, prompts: list[str], max_tokens: int) -> None:
        """Ask all prompts once."""
        url = f"http://127.0.0.1:{self.request.vllm_port}/v1/completions"
        before, began = self._cpu_seconds(), time.perf_counter()
        with httpx.Client(timeout=600, trust_env=False) as client, ThreadPoolExecutor(CONCURRENT) as pool:

            def ask(prompt: str) -> int:
                body = {"model": self.model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
                answer = client.post(url, json=body | {"ignore_eos": True}).raise_for_status().json()
                return int(answer["usage"]["completion_tokens"])

            tokens = sum(pool.map(ask, prompts))
        self.best = max(self.best, tokens / (time.perf_counter() - began))
        self.best_cpu = max(self.best_cpu, tokens / (self._cpu_seconds() - before))

    def _cpu_seconds(self) -> float:
        processes = psutil.Process(self.process.pid).children(recursive=True)
        return sum(sum(each.cpu_times()[:2]) for each in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [recipe.name for recipe in RECIPES if recipe.quantizes]
    parser.add_argument("--recipes", nargs="+", default=names, choices=names)
    parser.add_argument("--model", type=Path, help="folder of the base model; the shipped one if absent")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(arguments, Path(scratch))
    print(json.dumps(figures, indent=2))  # noqa: T201 - a script that reports
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure every recipe beside bf16."""
    sweep = make_sweep(arguments.model)
    store = str(work / "store")
    (work / "prepare").mkdir()
    handle(PrepareRequest(sweep=sweep, store=store), work / "prepare")
    prompts = [
        prompt_text(problem.question, language="ro")
        for problem in split("test", language="ro", size=arguments.requests)
    ]
    figures: dict[str, Any] = {}
    with serving(sweep, store, "bf16", work, arguments.threads) as plain:
        for name in arguments.recipes:
            plain.best = plain.best_cpu = 0.0
            with serving(sweep, store, name, work, arguments.threads) as server:
                for _ in range(ROUNDS):
                    plain.round(prompts, arguments.max_tokens)
                    server.round(prompts, arguments.max_tokens)
            figures[name] = {
                "tokens/s": round(server.best, 1),
                "bf16 tokens/s": round(plain.best, 1),
                "ratio": round(server.best / plain.best, 2),
                "ratio per CPU second": round(server.best_cpu / plain.best_cpu, 2),
            }
    return figures | {"machine": describe_machine(), "versions": package_versions(), "concurrent": CONCURRENT}


def make_sweep(model: Path | None) -> RecipeSweep:
    """Make the sweep that the servers are given."""
    return parse_sweep(
        {
            "name": "served-recipes",
            "model": {"path": str(model)} if model else {"builtin": "tiny-qwen3-en"},
            "data": {"builtin": "word-problems-ro", "train_size": 64, "test_size": 8},
            "training": {"max_steps": 1, "warmup_steps": 0, "max_length": 512, "lora": {"r": 16}},
            "recipes": ["bf16"],
            "serving": {"max_lora_rank": 16, "max_loras": 2, "max_model_len": 512, "kv_cache_gib": 0.5},
        }
    )


@contextmanager
def serving(sweep: RecipeSweep, store: str, under: str, work: Path, threads: int) -> Iterator[Server]:
    """Run a model server."""
    port, vllm_port = free_port(), free_port()
    request = ServeRequest(sweep=sweep, store=store, threads=threads, port=port, vllm_port=vllm_port, under=under)
    with model_server(request, work / under) as process:
        status = httpx.get(f"http://127.0.0.1:{port}{STATUS_PATH}", trust_env=False, timeout=60).json()
        yield Server(request, process, str(status["model"]))


if __name__ == "__main__":
    main()
