"""Measure what a sweep of many runs asks of the controller and of the Kubernetes API, on the cluster of KUBECONFIG.

    python tests/perf/controller_at_scale.py --runs 1000 --slots 32 --out scale.json

API server, Job controller and controller are real; pods run nothing, as a stand-in for the nodes ends them with made-up
results. The figures are sampled as the sweep goes on, so growth with what has ended would show.
"""

import argparse
import json
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from surogate_bench.machine.hardware import describe_machine
from surogate_bench_orchestrator.resource.definition import definition
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api
from surogate_bench_orchestrator.runtimes.kubernetes.connecting import connect

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from real_cluster.lab import Lab, Replica

DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/recipesweeps.bench.surogate.ai"
RECIPES = ["bf16", "fp8", "fp4", "qbnb", "qfp8-bf16"]
TIMEOUT_S = 3600.0


def requests_of(replica: Replica) -> float:
    """Requests to the API that the controller says it made."""
    lines = replica.get("/metrics")[1].decode().splitlines()
    return sum(float(line.rsplit(" ")[-1]) for line in lines if "kubernetes_requests_total{" in line)


def sample(lab: Lab, replica: Replica, started: float) -> dict[str, Any]:
    """One row of the result."""
    status, process = lab.status("scale"), psutil.Process(replica.process.pid)
    times = process.cpu_times()
    return {
        "ended_runs": sum(row["state"] in {"Succeeded", "Failed", "Skipped"} for row in status.get("runs", ())),
        "failed_runs": status.get("failed", 0),
        "tasks_done": len(lab.node.results),
        "wall_s": round(time.monotonic() - started, 1),
        "requests": requests_of(replica),
        "controller_cpu_s": round(times.user + times.system, 1),
        "controller_rss_mb": round(process.memory_info().rss / 1e6, 1),
        "status_bytes": len(json.dumps(status)),
    }


def measure(runs: int, slots: int, every: int) -> list[dict[str, Any]]:
    """Run a sweep to its end; a row for every so many ended runs."""
    api = Api(connect(None).client)
    api.apply(DEFINITION, definition(), manager="surogate-bench-tests")
    namespace = f"surogate-bench-scale-{secrets.token_hex(4)}"
    api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(api, namespace, Path(folder))
        lab.write_config(lab.store.url, slots)
        try:
            with lab.node:
                replica = lab.start()
                evaluation = {"evaluate_base": False, "parallel_evaluations": min(16, slots)}
                lab.add("scale", recipes=RECIPES, seeds=list(range(runs // len(RECIPES))), evaluation=evaluation)
                return follow(lab, replica, every)
        finally:
            for each in lab.replicas:
                each.end(signal.SIGKILL)
            api.delete(f"/api/v1/namespaces/{namespace}")


def follow(lab: Lab, replica: Replica, every: int) -> list[dict[str, Any]]:
    """Sample until the sweep has ended."""
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    while time.monotonic() - started < TIMEOUT_S:
        row = sample(lab, replica, started)
        over = lab.status("scale").get("phase") in {"Complete", "Failed", "Rejected"}
        if over or row["tasks_done"] >= every * len(rows):
            rows.append(row)
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
        if over:
            return rows
        time.sleep(2)
    raise TimeoutError(f"not over after {TIMEOUT_S:g} s")


def main() -> None:
    """Measure and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--every", type=int, default=200, help="sample each time so many more tasks have ended")
    parser.add_argument("--out", type=Path, default=Path("scale.json"))
    options = parser.parse_args()
    rows = measure(options.runs, options.slots, options.every)
    found = {"hardware": describe_machine().model_dump(), "runs": options.runs, "slots": options.slots, "samples": rows}
    options.out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
