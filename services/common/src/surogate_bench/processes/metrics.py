"""Every metric that surogate-bench exports, in one table, and the functions that format metrics.

``python -m surogate_bench.processes.metrics`` prints the table as Markdown.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from surogate_bench.contract import CONTROLLER_PORT, METRICS_PATH, METRICS_PORT


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """Description of a metric. The name ends in the unit, followed by ``_total`` for a counter."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    unit: str
    labels: tuple[str, ...]
    meaning: str
    pod: Literal["trainer", "evaluator", "model server", "controller"]
    """The pod that exports it."""


_RUN = ("sweep", "recipe", "seed")
_EVAL = ("sweep", "run", "task", "served_under", "merged")
_SWEEP = ("sweep",)

METRICS: tuple[MetricInfo, ...] = (
    MetricInfo("surogate_bench_train_step", "gauge", "steps", _RUN, "Completed optimizer steps.", "trainer"),
    MetricInfo("surogate_bench_train_steps", "gauge", "steps", _RUN, "Optimizer steps of the whole run.", "trainer"),
    MetricInfo(
        "surogate_bench_train_loss", "gauge", "nats per token", _RUN, "Training loss of the last step.", "trainer"
    ),
    MetricInfo(
        "surogate_bench_train_validation_loss", "gauge", "nats per token", _RUN, "Last validation loss.", "trainer"
    ),
    MetricInfo(
        "surogate_bench_train_learning_rate", "gauge", "1", _RUN, "Learning rate of the last step.", "trainer"
    ),
    MetricInfo(
        "surogate_bench_train_tokens_per_second", "gauge", "tokens/s", _RUN, "Speed over the last 20 steps.", "trainer"
    ),
    MetricInfo(
        "surogate_bench_train_tokens_total", "counter", "tokens", _RUN, "Tokens trained on, padding excluded.",
        "trainer",
    ),
    MetricInfo(
        "surogate_bench_train_memory_bytes", "gauge", "bytes", _RUN,
        "Memory in use: of the device on a GPU, resident set on a CPU.", "trainer",
    ),
    MetricInfo(
        "surogate_bench_eval_requests_done", "gauge", "requests", _EVAL,
        "Requests answered: one for each question, or for each choice of multiple choice.", "evaluator",
    ),
    MetricInfo(
        "surogate_bench_eval_requests", "gauge", "requests", _EVAL, "Requests of the whole evaluation.", "evaluator"
    ),
    MetricInfo(
        "surogate_bench_eval_phase", "gauge", "1", (*_EVAL, "phase"),
        "1 for the evaluator's current phase, 0 for the others: starting, evaluating, uploading.", "evaluator",
    ),
    MetricInfo(
        "surogate_bench_vllm_up", "gauge", "1", _SWEEP, "1 while vLLM is up and lists every requested adapter, else 0.",
        "model server",
    ),
    MetricInfo(
        "surogate_bench_adapters_loaded", "gauge", "adapters", _SWEEP, "Adapters that vLLM serves.", "model server"
    ),
    MetricInfo(
        "surogate_bench_vllm_restarts_total", "counter", "restarts", _SWEEP, "Restarts of vLLM.",
        "model server",
    ),
    MetricInfo("surogate_bench_leader", "gauge", "1", (), "1 in the leader, else 0.", "controller"),
    MetricInfo(
        "surogate_bench_sweep_info", "gauge", "1", (*_SWEEP, "spec_hash", "model", "task"), "1 for each sweep.",
        "controller",
    ),
    MetricInfo("surogate_bench_runs", "gauge", "runs", (*_SWEEP, "state"), "Runs in each state.", "controller"),
    MetricInfo(
        "surogate_bench_accuracy", "gauge", "fraction", _RUN,
        "Accuracy on the primary task (strict exact match unless it has another metric), served as published.",
        "controller",
    ),
    MetricInfo(
        "surogate_bench_accuracy_stderr", "gauge", "fraction", _RUN, "Standard error of the accuracy.", "controller"
    ),
    MetricInfo(
        "surogate_bench_served_accuracy", "gauge", "fraction", (*_RUN, "served_under", "merged"),
        "Accuracy by way of serving, where the sweep requests several: bf16 (as published), or the recipe; merged is "
        "true for the adapter merged into the base.",
        "controller",
    ),
    MetricInfo(
        "surogate_bench_served_accuracy_stderr", "gauge", "fraction", (*_RUN, "served_under", "merged"),
        "Standard error of that accuracy.", "controller",
    ),
    MetricInfo(
        "surogate_bench_task_accuracy", "gauge", "fraction", (*_RUN, "task"),
        "Accuracy on a further task, served as published.", "controller",
    ),
    MetricInfo(
        "surogate_bench_task_accuracy_stderr", "gauge", "fraction", (*_RUN, "task"),
        "Standard error of that accuracy.", "controller",
    ),
    MetricInfo("surogate_bench_eval_samples", "gauge", "questions", _RUN, "Test questions.", "controller"),
    MetricInfo("surogate_bench_eval_seconds", "gauge", "s", _RUN, "Wall time of the evaluation.", "controller"),
    MetricInfo("surogate_bench_train_seconds", "gauge", "s", _RUN, "Wall time of the optimizer steps.", "controller"),
    MetricInfo(
        "surogate_bench_train_final_loss", "gauge", "nats per token", _RUN,
        "Mean training loss of the last 20 steps.", "controller",
    ),
    MetricInfo(
        "surogate_bench_train_mean_tokens_per_second", "gauge", "tokens/s", _RUN, "Speed over the whole run.",
        "controller",
    ),
    MetricInfo(
        "surogate_bench_reconcile_seconds", "histogram", "s", (), "Duration of a reconciliation.", "controller"
    ),
    MetricInfo(
        "surogate_bench_reconcile_errors_total", "counter", "reconciliations", (),
        "Reconciliations that failed and are retried.", "controller",
    ),
    MetricInfo(
        "surogate_bench_kubernetes_requests_total", "counter", "requests", ("method",),
        "Requests to the Kubernetes API while reconciling; watches and the Lease are not counted.",
        "controller",
    ),
)  # fmt: skip
_HEAD = f"""# Metrics

Generated from `surogate_bench.processes.metrics` by `make reference`; do not edit.

Pods of sweeps serve `{METRICS_PATH}` on port {METRICS_PORT}, controllers on {CONTROLLER_PORT}. \
Each also serves the process metrics of the
Prometheus client, and model servers those of vLLM (`vllm:…`). `recipe="base", seed=""` is the unmodified base model; a
foreign adapter has its name as `recipe`. The controller reads the results of a sweep from the object store, so they
survive a restart; only the leader exports them, until the `RecipeSweep` is deleted.
"""

_BY_NAME = {info.name: info for info in METRICS}


@dataclass(frozen=True, slots=True)
class _Families:
    families: tuple[Metric, ...]

    def collect(self) -> Iterator[Metric]:
        yield from self.families


def meaning(name: str) -> str:
    """Return the meaning of one of :data:`METRICS`, for metrics that prometheus_client keeps itself."""
    return _BY_NAME[name].meaning


def family(name: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Metric:
    """Build a gauge or counter of :data:`METRICS` from its samples: values by label values."""
    info = _BY_NAME[name]
    kind = CounterMetricFamily if info.kind == "counter" else GaugeMetricFamily
    made = kind(info.name, info.meaning, labels=info.labels)
    for labels, value in samples:
        made.add_metric([labels[label] for label in info.labels], value)
    return made


def families(labels: Mapping[str, str], values: Mapping[str, float | None]) -> list[Metric]:
    """Build one family per value, all with the same labels; values that are None are left out."""
    return [family(name, [(labels, value)]) for name, value in values.items() if value is not None]


def expose(made: Iterable[Metric]) -> bytes:
    """Format families in Prometheus' text format."""
    return generate_latest(_Families(tuple(made)))


def reference() -> str:
    """Format the table of all metrics as Markdown."""
    rows = [
        f"| `{info.name}` | {info.kind} | {info.unit} | {', '.join(info.labels)} | {info.meaning} | {info.pod} |"
        for info in METRICS
    ]
    table = ["| Metric | Type | Unit | Labels | Meaning | Pod |", "|---|---|---|---|---|---|", *rows]
    return "\n".join([_HEAD, *table]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
