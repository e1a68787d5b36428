"""Measure how much sooner several adapters are evaluated side by side than one after another, on one model server.

    python tests/perf/parallel_evaluation.py --parallel 1 2 4 --adapters 4 --questions 250 --out parallel.json

The adapters are random and small, so answers have the length of the base model's; each way of doing it evaluates all of
them with the real evaluator, model server and vLLM, start-up of the evaluators included. The ways alternate, so that a
machine that slows down meanwhile does not favour one.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from model_servers import START_TIMEOUT_S
from served_adapters import Bench

from surogate_bench.machine.hardware import describe_machine, package_versions
from surogate_bench.specs.yaml_io import parse_sweep


def main() -> int:
    """Measure and write JSON."""
    options = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="parallel-evaluation-") as scratch:
        bench = prepare(options, Path(scratch))
        with bench.serving():
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
    bench = Bench.make(sweep, folder, adapters=options.adapters)
    bench.publish_problems(language=options.language, size=options.questions)
    return bench


def evaluate_all(bench: Bench, parallel: int, label: str) -> float:
    """Evaluate every adapter, at most ``parallel`` at a time; wall seconds."""
    runs = [f"{label}-a{index}" for index in range(len(bench.adapters))]
    for run, adapter in zip(runs, bench.adapters, strict=True):
        bench.publish_adapter(run, adapter)
    started = time.monotonic()
    waiting, active = list(runs), dict[str, "subprocess.Popen[bytes]"]()
    while waiting or active:
        while waiting and len(active) < parallel:
            run = waiting.pop(0)
            active[run] = bench.start_evaluator(run)
        for run, process in list(active.items()):
            if process.poll() is not None:
                del active[run]
                bench.result(run)
        time.sleep(0.02)
    return time.monotonic() - started


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


if __name__ == "__main__":
    sys.exit(main())
