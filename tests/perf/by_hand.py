"""Time the reference procedure done by hand, to compare `make sweep` with: same machine, same settings.

One trainer after another with all cores, one plain vLLM (no plug-in of ours, its own defaults), and for each adapter:
load it, run the lm-eval command, unload it.

    python tests/perf/by_hand.py --sweep configs/sweeps/embedded.yaml --work-dir /tmp/by-hand
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from surogate_bench.inputs.task_files import TaskFolders
from surogate_bench.layout import SweepLayout, run_name
from surogate_bench.specs import RecipeSweep, load_sweep
from surogate_bench.stages.model_source import locate_model
from surogate_bench.stages.publication import fetch_stage
from surogate_bench.stages.requests import PrepareRequest, TrainRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_evaluator.tasks import render_task

PORT = 8765
URL = f"http://127.0.0.1:{PORT}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=Path("configs/sweeps/embedded.yaml"))
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="write the timings here")
    arguments = parser.parse_args()
    sweep, work = load_sweep(arguments.sweep), arguments.work_dir.resolve()
    store = open_store(str(work / "store"))
    layout = SweepLayout(sweep.name, sweep.spec_hash)
    seconds: dict[str, float] = {}

    def timed(name: str, command: list[str], **environment: str) -> None:
        started = time.perf_counter()
        log = work / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as out:
            done = subprocess.run(
                command, stdout=out, stderr=subprocess.STDOUT, check=False, env=os.environ | environment
            )
        if done.returncode:
            sys.exit(f"{name} failed with exit code {done.returncode}; see {log}")
        seconds[name] = time.perf_counter() - started
        print(f"{name:32} {seconds[name]:8.1f} s", flush=True)  # noqa: T201 - a script that reports

    def trainer(name: str, request: PrepareRequest | TrainRequest) -> None:
        path = work / f"{name.replace(' ', '-')}.json"
        path.write_text(request.model_dump_json(), encoding="utf-8")
        module = [sys.executable, "-m", "surogate_bench_trainer"]
        timed(name, [*module, str(path), "--work-dir", str(work / name.replace(" ", "-"))])

    work.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    trainer("prepare", PrepareRequest(sweep=sweep, store=store.url))
    runs = [(recipe.name, seed) for recipe in sweep.recipes for seed in sweep.seeds]
    for recipe, seed in runs:
        trainer(f"train {run_name(recipe, seed)}", TrainRequest(sweep=sweep, store=store.url, recipe=recipe, seed=seed))
    model = locate_model(sweep.model, store=store, layout=layout, cache=work / "model").name_or_path
    fetch_stage(store, layout.prepare, work / "prepared", under="data/")
    base_task = TaskFolders.of(sweep.evaluation.tasks_dir).find(sweep.evaluation.task)
    render_task(base_task, sweep, data=work / "prepared/data", folder=work / "tasks")
    server = start_vllm(sweep, model, work, seconds)
    try:
        timed("eval base", lm_eval(sweep, model, "base", work), HF_HUB_OFFLINE="1")
        for recipe, seed in runs:
            run = run_name(recipe, seed)
            fetch_stage(store, layout.train(run), work / "adapters" / run, under="adapter/")
            adapter = {"lora_name": run, "lora_path": str(work / "adapters" / run / "adapter")}
            httpx.post(f"{URL}/v1/load_lora_adapter", json=adapter, timeout=120).raise_for_status()
            timed(f"eval {run}", lm_eval(sweep, model, run, work), HF_HUB_OFFLINE="1")
            httpx.post(f"{URL}/v1/unload_lora_adapter", json={"lora_name": run}, timeout=120).raise_for_status()
    finally:
        server.terminate()
        server.wait(timeout=60)
    seconds["total"] = time.perf_counter() - started
    print(json.dumps(seconds, indent=2))  # noqa: T201 - a script that reports
    if arguments.json:
        arguments.json.write_text(json.dumps(seconds, indent=2), encoding="utf-8")


def start_vllm(sweep: RecipeSweep, model: str, work: Path, seconds: dict[str, float]) -> subprocess.Popen[bytes]:
    """Start vLLM as the reference does and wait until it answers."""
    environment = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_PLUGINS": "",  # none: ours would speed it up
        "VLLM_CPU_KVCACHE_SPACE": str(round(sweep.serving.kv_cache_gib)),
    }
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--port", str(PORT)),
        *("--served-model-name", "base", "--enable-lora"),
        *("--max-lora-rank", str(sweep.serving.max_lora_rank), "--max-model-len", str(sweep.serving.max_model_len)),
    ]
    started = time.perf_counter()
    with (work / "vllm.log").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | environment)
    while not healthy():
        if process.poll() is not None or time.perf_counter() - started > sweep.serving.start_timeout_s:
            sys.exit(f"vLLM did not start; see {work / 'vllm.log'}")
        time.sleep(0.5)
    seconds["start vllm"] = time.perf_counter() - started
    print(f"{'start vllm':32} {seconds['start vllm']:8.1f} s", flush=True)  # noqa: T201 - a script that reports
    return process


def healthy() -> bool:
    """Say whether vLLM answers."""
    try:
        return httpx.get(f"{URL}/health", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def lm_eval(sweep: RecipeSweep, tokenizer: str, model: str, work: Path) -> list[str]:
    """Build the command line of the reference."""
    evaluation = sweep.evaluation
    model_args = (
        f"model={model},base_url={URL}/v1/completions,num_concurrent={evaluation.num_concurrent},"
        f"max_retries={evaluation.max_retries},tokenized_requests=False,tokenizer={tokenizer},"
        f"max_length={sweep.serving.max_model_len}"
    )
    return [
        *(sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args", model_args),
        *("--include_path", str(work / "tasks"), "--tasks", evaluation.task),
        *("--num_fewshot", str(evaluation.num_fewshot), "--gen_kwargs", f"max_gen_toks={evaluation.max_gen_toks}"),
        *("--log_samples", "--output_path", str(work / "lm-eval" / model)),
        *(["--limit", str(evaluation.limit)] if evaluation.limit else []),
    ]


if __name__ == "__main__":
    main()
