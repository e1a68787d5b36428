"""Measure how much sooner several adapters are evaluated side by side than one after another, on one model server.

    python tests/perf/parallel_evaluation.py --parallel 1 2 4 --adapters 4 --questions 250 --out parallel.json

The adapters are random and small, so answers have the length of the base model's; each way of doing it evaluates all of
them with the real evaluator, model server and vLLM, start-up of the evaluators included. The ways alternate, so that a
machine that slows down meanwhile does not favour one.
"""

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from surogate_bench.machine.hardware import describe_machine, package_versions
from surogate_bench.specs.sweep import RecipeSweep
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.model_source import locate_model
from surogate_bench.stages.publication import publish_stage, read_manifest
from surogate_bench.stages.requests import EvaluateRequest, ServeRequest
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_trainer.embedded.word_problems import split

ADAPTER_STDDEV = 0.02
START_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that the ways of evaluating share."""

    folder: Path
    sweep: RecipeSweep
    store: ObjectStore
    request: ServeRequest
    adapters: tuple[Path, ...]

    def publish(self, stage: str, run: str, prefix: str, folder: Path) -> None:
        """Publish one stage as the trainer service would have."""
        prepared = {"data": {}, "model_source": self.sweep.model.label, "model_in_store": False}
        manifest = Manifest.model_validate({
            "stage": stage, "run": run, "spec_hash": self.sweep.spec_hash, "created": datetime.now(UTC), "files": {},
            "hardware": {}, "versions": {}, "result": prepared if stage == "prepare" else {},
        })  # fmt: skip
        publish_stage(self.store, prefix, folder, manifest)


def main() -> int:
    """Measure and write JSON."""
    options = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="parallel-evaluation-") as scratch:
        bench = prepare(options, Path(scratch))
        with model_server(bench):
            seconds: dict[int, list[float]] = {parallel: [] for parallel in options.parallel}
            for repeat in range(options.repeats):
                for parallel in options.parallel:
                    seconds[parallel].append(evaluate_all(bench, parallel, f"x{repeat}-p{parallel}"))
                    sys.stderr.write(f"repeat {repeat}, {parallel} at a time: {seconds[parallel][-1]:.1f} s\n")
    report = summarize(options, seconds)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    sys.stdout.write(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen3-en", help="built-in model, or the path of a folder")
    parser.add_argument("--language", choices=("ro", "en"), default="en")
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--questions", type=int, default=250)
    parser.add_argument("--concurrent", type=int, default=50, help="requests in flight per evaluation")
    parser.add_argument("--parallel", type=int, nargs="+", default=[1, 2, 4], help="evaluations at a time")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--max-gen-toks", type=int, default=128)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def prepare(options: argparse.Namespace, folder: Path) -> Bench:
    """Put the test data into a store and make the adapters."""
    source = "path" if Path(options.model).is_dir() else "builtin"
    sweep = parse_sweep(
        {
            "name": "parallel-evaluation",
            "model": {source: options.model},
            "data": {
                "builtin": f"word-problems-{options.language}",
                "train_size": 1,
                "test_size": options.questions,
            },
            "training": {"max_steps": 1},
            "recipes": ["bf16"],
            "seeds": list(range(options.adapters)),
            "serving": {"max_model_len": 512, "max_loras": 4, "start_timeout_s": START_TIMEOUT_S},
            "evaluation": {
                "num_concurrent": options.concurrent,
                "max_gen_toks": options.max_gen_toks,
                "max_empty_fraction": 1.0,
            },
        }
    )
    store = open_store(str(folder / "store"))
    request = ServeRequest(sweep=sweep, store=store.url, port=free_port(), vllm_port=free_port())
    model = locate_model(sweep.model, store=store, layout=request.layout, cache=folder / "models")
    adapters = tuple(make_adapter(model.name_or_path, folder / f"a{i}", seed=i) for i in range(options.adapters))
    bench = Bench(folder, sweep, store, request, adapters)
    data = folder / "prepared" / "data"
    data.mkdir(parents=True)
    problems = split("test", language=options.language, size=options.questions)
    records = [json.dumps({"question": each.question, "answer": each.answer}) + "\n" for each in problems]
    (data / "test.jsonl").write_text("".join(records), encoding="utf-8")
    bench.publish("prepare", "", request.layout.prepare, data.parent)
    return bench


def make_adapter(model_path: str, folder: Path, *, seed: int) -> Path:
    """Save a random LoRA adapter of rank 16 below ``folder``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.bfloat16)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=ADAPTER_STDDEV)
    model.save_pretrained(folder / "adapter")
    return folder


@contextmanager
def model_server(bench: Bench) -> Iterator[None]:
    """Run the model-server service until the block ends."""
    request = bench.folder / "serve.json"
    request.write_text(bench.request.model_dump_json(), encoding="utf-8")
    log = bench.folder / "server.log"
    command = [sys.executable, "-m", "surogate_bench_model_server", str(request), "--work-dir", str(bench.folder / "s")]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_until_ready(f"http://127.0.0.1:{bench.request.port}/readyz", process, log)
            yield
        finally:
            process.terminate()
            process.wait(60)


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait for the model server, or show why it does not come."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(url, trust_env=False, timeout=10).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"the model server is not ready:\n{log.read_text(encoding='utf-8')[-4000:]}")


def evaluate_all(bench: Bench, parallel: int, label: str) -> float:
    """Evaluate every adapter, at most ``parallel`` at a time; wall seconds."""
    runs = [f"{label}-a{index}" for index in range(len(bench.adapters))]
    for run, adapter in zip(runs, bench.adapters, strict=True):
        stage = bench.folder / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        shutil.copytree(adapter / "adapter", stage / "adapter")
        bench.publish("train", run, bench.request.layout.train(run), stage)
    started = time.monotonic()
    waiting, active = list(runs), dict[str, "subprocess.Popen[bytes]"]()
    while waiting or active:
        while waiting and len(active) < parallel:
            run = waiting.pop(0)
            active[run] = start_evaluator(bench, run)
        for run, process in list(active.items()):
            if process.poll() is not None:
                del active[run]
                if read_manifest(bench.store, bench.request.layout.eval(run)) is None:
                    raise SystemExit((bench.folder / run / "log").read_text(encoding="utf-8")[-4000:])
        time.sleep(0.02)
    return time.monotonic() - started


def start_evaluator(bench: Bench, run: str) -> "subprocess.Popen[bytes]":
    """Start one evaluator service."""
    work_dir = bench.folder / run
    work_dir.mkdir()
    server = f"http://127.0.0.1:{bench.request.port}"
    request = EvaluateRequest(sweep=bench.sweep, store=bench.store.url, run=run, server_url=server)
    path = work_dir / "request.json"
    path.write_text(request.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "surogate_bench_evaluator", str(path), "--work-dir", str(work_dir)]
    with (work_dir / "log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def summarize(options: argparse.Namespace, seconds: dict[int, list[float]]) -> dict[str, Any]:
    """Medians, and how many times faster each way is than the first."""
    medians = {parallel: statistics.median(times) for parallel, times in seconds.items()}
    first = medians[options.parallel[0]]
    return {
        "adapters": options.adapters,
        "questions": options.questions,
        "concurrent_requests_per_evaluation": options.concurrent,
        "model": options.model,
        "machine": describe_machine().model_dump(),
        "versions": package_versions(),
        "ways": [
            {
                "evaluations_at_a_time": parallel,
                "seconds": [round(value, 2) for value in seconds[parallel]],
                "median_seconds": round(medians[parallel], 2),
                "answers_per_second": round(options.adapters * options.questions / medians[parallel], 2),
                "times_faster_than_first": round(first / medians[parallel], 3),
            }
            for parallel in options.parallel
        ],
    }


def free_port() -> int:
    """Find a free TCP port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
