"""Time a multiple-choice task over several adapters on one model server: our evaluator, and lm-eval's own command.

    python tests/perf/choice_tasks.py --adapters 8 --questions 500 --concurrent 50 --out choice.json

The task is ``word_problem_choice``: four log-likelihoods for each question. Adapters are random and small. Both score
each of them, one after another, in a process of its own whose start-up counts. Which goes first alternates, so that a
machine that slows down meanwhile favours neither. Before that, both score an adapter that is not counted.

- Ours: the evaluator service, with the request that a sweep on one machine gives it. It has the model server load the
  adapter and compare the answers of a mixed batch (``POST /probe``), and publishes its results. A sweep runs
  ``evaluation.parallel_evaluations`` of them at a time; here it is one at a time.
- Theirs: ``lm_eval run --model local-completions`` with as many concurrent requests, the same rendered task and a cache
  of data sets that its earlier processes have filled. The adapter is loaded and unloaded by vLLM's own endpoints, which
  counts; ``ratio_to_command`` is to the command alone.

vLLM's prefix cache helps neither: requests for log-probabilities of their prompts do not read it
(``SamplingParams.skip_reading_prefix_cache``). Besides, its keys contain the name and the path of an adapter, and the
two load it under different ones.

Both must find the same accuracies for every adapter; the exit code is 1 otherwise.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from model_servers import START_TIMEOUT_S
from served_adapters import Bench

from surogate_bench.contract import task_file
from surogate_bench.inputs.task_files import TaskFolders
from surogate_bench.machine.hardware import describe_machine, package_versions
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench_evaluator.tasks import render_task

TASK = "word_problem_choice"
CHOICES = 4
WARM_UP = "warm-up"
ADAPTER_STDDEV = 0.2
"""Large enough that some questions are answered wrongly, so that equal accuracies are evidence."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One adapter, scored by one of the two."""

    seconds: float
    """Wall time of loading the adapter, scoring it and unloading it, start-up of the process included."""
    process_seconds: float
    """Wall time of the process alone."""
    cpu_seconds: float
    """CPU time of the process; that of the model server is not included."""
    accuracies: tuple[float, float]
    """``acc`` and ``acc_norm``."""


Scorer = Callable[[str, Path], Scored]
"""Scores an adapter: name, folder."""


def main() -> int:
    """Measure and write JSON; returns 1 if an adapter has other accuracies by theirs than by ours."""
    options = parse_arguments()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="choice-tasks-") as scratch:
        bench = prepare(options, Path(scratch))
        scorers = {"ours": Ours(bench), "theirs": Theirs(bench)}
        with bench.serving():
            score(scorers, WARM_UP, bench.adapters[-1], first="ours")
            adapters = [
                score(scorers, f"a{index}", adapter, first="theirs" if index % 2 else "ours")
                for index, adapter in enumerate(bench.adapters[:-1])
            ]
    report = {"load_average_before": load} | summarize(options, bench, adapters)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    sys.stdout.write(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    return 0 if report["equal_accuracies"] else 1


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen3-en", help="built-in model, or the path of a folder")
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--concurrent", type=int, default=50, help="requests in flight")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def prepare(options: argparse.Namespace, folder: Path) -> Bench:
    """Put the task's data into a store and make the adapters, with one more to warm up."""
    source = "path" if Path(options.model).is_dir() else "builtin"
    entry = {"name": TASK, "data": {"builtin": "word-problems-en", "test_size": options.questions}}
    sweep = parse_sweep(
        {
            "name": "choice-tasks",
            "model": {source: options.model},
            "data": {"builtin": "word-problems-en", "train_size": 1, "test_size": options.questions},
            "training": {"max_steps": 1},
            "recipes": ["bf16"],
            "seeds": list(range(options.adapters + 1)),
            "serving": {"max_model_len": 512, "start_timeout_s": START_TIMEOUT_S},
            "evaluation": {"tasks": ["ro_gsm8k", entry], "num_concurrent": options.concurrent, "evaluate_base": False},
        }
    )
    bench = Bench.make(sweep, folder, adapters=options.adapters + 1, stddev=ADAPTER_STDDEV)
    bench.publish_problems(language="en", size=options.questions, file=task_file(TASK))
    return bench


def score(scorers: dict[str, Scorer], name: str, adapter: Path, *, first: str) -> dict[str, Scored]:
    """Have both score an adapter, one after the other."""
    scored = {who: scorers[who](name, adapter) for who in sorted(scorers, key=lambda who: who != first)}
    ours, theirs = scored["ours"], scored["theirs"]
    accuracies = f"accuracies {ours.accuracies} and {theirs.accuracies}"
    sys.stderr.write(f"{name}, {first} first: {ours.seconds:.1f} s and {theirs.seconds:.1f} s, {accuracies}\n")
    return scored


class Ours:
    """The evaluator service."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def __call__(self, name: str, adapter: Path) -> Scored:
        """Score an adapter."""
        self._bench.publish_adapter(name, adapter)
        began = Clock()
        self._bench.start_evaluator(name, task=TASK).wait()
        seconds, cpu_seconds = began.elapsed()
        result = self._bench.result(name, task=TASK)
        return Scored(seconds, seconds, cpu_seconds, (result.strict.accuracy, result.flexible.accuracy))


class Theirs:
    """lm-eval's own command, and vLLM's endpoints that load and unload an adapter."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._url = f"http://127.0.0.1:{bench.request.vllm_port}/v1"
        tasks, sweep = bench.folder / "tasks", bench.sweep.of_task(TASK)
        base = TaskFolders.of(None).find(TASK)
        render_task(base, sweep, data=bench.data, folder=tasks, test=task_file(TASK))
        self._tasks = tasks

    def __call__(self, name: str, adapter: Path) -> Scored:
        """Score an adapter."""
        model, output = f"lm-eval-{name}", self._bench.folder / f"lm-eval-{name}"
        whole = Clock()
        self._ask("load_lora_adapter", {"lora_name": model, "lora_path": str(adapter)})
        process = Clock()
        self._run(self._command(model, output), output.with_suffix(".log"))
        process_seconds, cpu_seconds = process.elapsed()
        self._ask("unload_lora_adapter", {"lora_name": model})
        seconds, _ = whole.elapsed()
        (found,) = output.rglob("results_*.json")
        metrics = json.loads(found.read_text(encoding="utf-8"))["results"][TASK]
        return Scored(seconds, process_seconds, cpu_seconds, (metrics["acc,none"], metrics["acc_norm,none"]))

    def _ask(self, path: str, body: dict[str, str]) -> None:
        httpx.post(f"{self._url}/{path}", json=body, timeout=120, trust_env=False).raise_for_status()

    def _command(self, model: str, output: Path) -> list[str]:
        sweep = self._bench.sweep
        arguments = {
            "model": model,
            "base_url": f"{self._url}/completions",
            "num_concurrent": sweep.evaluation.num_concurrent,
            "max_retries": sweep.evaluation.max_retries,
            "tokenized_requests": True,
            "tokenizer_backend": "huggingface",
            "tokenizer": self._bench.model,
            "max_length": sweep.serving.max_model_len,
        }
        return [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"),
            *("--model_args", ",".join(f"{key}={value}" for key, value in arguments.items())),
            *("--include_path", str(self._tasks), "--tasks", TASK),
            *("--log_samples", "--output_path", str(output)),  # the evaluator stores samples, too
        ]

    def _run(self, command: list[str], log: Path) -> None:
        cache = str(self._bench.folder / "cache")
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": cache}
        with log.open("wb") as output:
            done = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False)
        if done.returncode:
            raise SystemExit(log.read_text(encoding="utf-8")[-4000:])


class Clock:
    """Wall time, and CPU time of the child processes that have ended, since it was made."""

    def __init__(self) -> None:
        self._began = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.perf_counter(), children.ru_utime + children.ru_stime

    def elapsed(self) -> tuple[float, float]:
        """Return both, in seconds."""
        (wall, cpu), (began, before) = self._now(), self._began
        return wall - began, cpu - before


def summarize(options: argparse.Namespace, bench: Bench, adapters: list[dict[str, Scored]]) -> dict[str, Any]:
    """Every time, their sums, and how much longer ours takes than theirs."""

    def total(who: str, field: str = "seconds") -> float:
        return round(sum(getattr(scored[who], field) for scored in adapters), 2)

    return {
        "task": TASK,
        "model": options.model,
        "adapters": options.adapters,
        "questions": options.questions,
        "log_likelihoods_per_adapter": options.questions * CHOICES,
        "concurrent_requests": options.concurrent,
        "evaluations_at_a_time": 1,
        "evaluations_at_a_time_in_a_sweep": bench.sweep.evaluation.parallel_evaluations,
        "machine": describe_machine().model_dump(),
        "versions": package_versions(),
        "scored": [
            {"first": next(iter(scored)), **{who: asdict(each) for who, each in scored.items()}} for scored in adapters
        ],
        "seconds": {who: total(who) for who in ("ours", "theirs")},
        "cpu_seconds": {who: total(who, "cpu_seconds") for who in ("ours", "theirs")},
        "equal_accuracies": all(scored["ours"].accuracies == scored["theirs"].accuracies for scored in adapters),
        "ratio": round(total("ours") / total("theirs"), 3),
        "ratio_to_command": round(total("ours") / total("theirs", "process_seconds"), 3),
    }


if __name__ == "__main__":
    sys.exit(main())
