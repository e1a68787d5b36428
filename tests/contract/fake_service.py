"""A service that takes no time: what it does depends on the recipe's name (training) or the sweep's description.

Started as the services are: ``python fake_service.py REQUEST.json --work-dir DIR``.
"""

import hashlib
import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx

from surogate_bench.errors import ConfigError, TransientError, UnsupportedRecipeError
from surogate_bench.layout import BASE_RUN, eval_stage
from surogate_bench.processes.progress import Progress, write_progress
from surogate_bench.processes.service import run_service
from surogate_bench.results import CheckResult, EvalResult, Metric, PrepareResult, SampleLine, SplitInfo, TrainResult
from surogate_bench.stages.local_inputs import digest_inputs
from surogate_bench.stages.manifest import StageResult
from surogate_bench.stages.publication import new_manifest, publish_stage
from surogate_bench.stages.requests import (
    AnyRequest,
    CheckRequest,
    EvaluateRequest,
    ServeRequest,
    StageRequest,
    TrainRequest,
)
from surogate_bench.store.object_store import open_store

_SAMPLES = 4
WARNING = "All 4 test questions are in the training split too."


def main() -> int:
    """Run it."""
    return run_service("fake_service", handle)


def handle(request: AnyRequest, work_dir: Path) -> None:
    """Behave as described, then handle the request."""
    stage, run = _identify(request)
    print(f"{stage} {run}", flush=True)  # noqa: T201 - its log
    first = _is_first_attempt(request, f"{stage} {run}", work_dir)
    _behave(_behaviour(request, stage, run), work_dir, first=first)
    if isinstance(request, ServeRequest):
        write_progress(work_dir, Progress(phase="ready"))
        _answer_probes(request)
    write_progress(work_dir, Progress(phase=stage, step=1, total=2, loss=1.5, tokens_per_second=100.0))
    _publish(request, work_dir, stage, run)


def _identify(request: AnyRequest) -> tuple[str, str]:
    if isinstance(request, TrainRequest):
        return "train", f"{request.recipe}-s{request.seed}"
    if isinstance(request, EvaluateRequest):
        assert request.server_url.startswith("http://127.0.0.1:")
        return eval_stage(request.under), request.run
    if isinstance(request, CheckRequest):
        return "check", request.subject
    if isinstance(request, ServeRequest) and request.under:
        return f"serve-{request.under}", request.kind
    return request.kind, request.kind


def _answer_probes(request: ServeRequest) -> None:
    """Be ready for ten minutes, for whoever asks over HTTP as well."""

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

    server = HTTPServer((request.host, request.port), Ready)
    server.timeout = 1.0
    end = time.monotonic() + 600
    while time.monotonic() < end:
        server.handle_request()


def _behaviour(request: AnyRequest, stage: str, run: str) -> str:
    """Read the description, a JSON object such as ``{"train bf16-s0": "crash"}``, or take the recipe's name."""
    if request.sweep.description:
        return str(json.loads(request.sweep.description).get(f"{stage} {run}", "ok"))
    return request.recipe if isinstance(request, TrainRequest) else "ok"


def _patiently_get(url: str) -> str:
    """Ask a server that may be starting."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return httpx.get(url, timeout=10).text
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _is_first_attempt(request: StageRequest, what: str, work_dir: Path) -> bool:
    """Decide by a file next to the work folder, or in a cluster by querying the counter there."""
    if counter := os.environ.get("ATTEMPT_COUNTER"):
        key = hashlib.sha256(f"{request.store} {what}".encode()).hexdigest()
        return _patiently_get(f"{counter}/{key}") == "1"
    marker = work_dir.parent / "attempted"
    first = not marker.exists()
    marker.touch()
    return first


def _behave(behaviour: str, work_dir: Path, *, first: bool) -> None:
    match behaviour:
        case "crash":
            os._exit(7)
        case "killed-once" if first:
            os.kill(os.getpid(), signal.SIGKILL)
            os._exit(128 + signal.SIGKILL)  # the first process of a container is not killed by its own signals
        case "busy-once" if first:
            raise TransientError("the store is away")
        case "bad-input":
            raise ConfigError("is wrong", field="data.path", value="/nowhere", remedy="Correct it.")
        case "unsupported":
            raise UnsupportedRecipeError("no engine")
        case "hang":
            write_progress(work_dir, Progress(phase=behaviour))
            time.sleep(600)
        case "held":
            write_progress(work_dir, Progress(phase=behaviour))
            while not Path(os.environ["SUROGATE_BENCH_TEST_RELEASE"]).exists():
                time.sleep(0.02)
        case "stubborn-once" if first:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            write_progress(work_dir, Progress(phase="stubborn"))
            time.sleep(600)


def _publish(request: AnyRequest, work_dir: Path, stage: str, run: str) -> None:
    output = work_dir / "output"
    output.mkdir(parents=True, exist_ok=True)
    assert not isinstance(request, ServeRequest)
    result: StageResult
    if isinstance(request, TrainRequest):
        prefix, result = request.layout.train(run), _trained(request)
        (output / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0, "seconds": 0.1, "tokens": 5}\n')
    elif isinstance(request, EvaluateRequest):
        prefix, result = request.layout.eval(run, request.under), _scored(request)
        lines = [
            SampleLine(
                index=i, question=f"q{i}", target="1", response="#### 1", strict_match=i > 1, flexible_match=i > 1
            ).model_dump_json()
            for i in range(_SAMPLES)
        ]
        (output / "samples.jsonl").write_text("\n".join(lines) + "\n")
    elif isinstance(request, CheckRequest):
        prefix, result = request.layout.check(request.subject), CheckResult()
    else:
        prefix, result = request.layout.prepare, _prepared(request)
    manifest = new_manifest(request, result, engine="emulated" if stage == "train" else None)
    publish_stage(open_store(request.store), prefix, output, manifest)


def _prepared(request: StageRequest) -> PrepareResult:
    split = SplitInfo(records=_SAMPLES, sha256="0" * 64)
    return PrepareResult(
        data={"train": split, "test": split},
        model_source="built in",
        model_in_store=False,
        inputs=digest_inputs(request.sweep),
        warnings=(WARNING,) if _behaviour(request, "prepare", "prepare") == "warns" else (),
    )


def _trained(request: TrainRequest) -> TrainResult:
    return TrainResult(
        steps=1, tokens=5, train_seconds=0.1, tokens_per_second=50.0, side_by_side=request.side_by_side,
        threads=request.threads or 0, peak_memory_bytes=1, weight_bytes=1, operand_cache_bytes=0, final_train_loss=1.0,
        validation=(), adapter_sha256="0" * 64, resumed_from_step=0,
    )  # fmt: skip


def _scored(request: EvaluateRequest) -> EvalResult:
    half = Metric(accuracy=0.5, stderr=0.29)
    return EvalResult(
        task="ro_gsm8k", model=request.run or BASE_RUN, served_under=request.under, samples=_SAMPLES, strict=half,
        flexible=half, empty_answers=0, seconds=0.1, parallel_evaluations=2,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
