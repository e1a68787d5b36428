"""Every metric that surogate-bench exports, in one table, and how it is written out.

``python -m surogate_bench.metrics`` prints the table as Markdown.
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
    """What a metric means. Its name ends in its unit; a counter's in ``_total`` after that."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    unit: str
    labels: tuple[str, ...]
    meaning: str
    pod: Literal["trainer", "evaluator", "model server", "controller"]
    """Who exports it."""


_RUN = ("sweep", "recipe", "seed")
_EVAL = ("sweep", "run")
_SWEEP = ("sweep",)

METRICS: tuple[MetricInfo, ...] = (
    MetricInfo("surogate_bench_train_step", "gauge", "steps", _RUN, "Optimizer steps done.", "trainer"),
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
    MetricInfo("surogate_bench_eval_requests_done", "gauge", "requests", _EVAL, "Questions answered.", "evaluator"),
    MetricInfo(
        "surogate_bench_eval_requests", "gauge", "requests", _EVAL, "Questions of the whole evaluation.", "evaluator"
    ),
    MetricInfo(
        "surogate_bench_eval_phase", "gauge", "1", (*_EVAL, "phase"),
        "1 for what the evaluator is doing, 0 for the rest: starting, evaluating, uploading.", "evaluator",
    ),
    MetricInfo(
        "surogate_bench_vllm_up", "gauge", "1", _SWEEP, "1 while vLLM is up and lists every requested adapter, else 0.",
        "model server",
    ),
    MetricInfo(
        "surogate_bench_adapters_loaded", "gauge", "adapters", _SWEEP, "Adapters that are served.", "model server"
    ),
    MetricInfo(
        "surogate_bench_vllm_restarts_total", "counter", "restarts", _SWEEP, "Times vLLM was started again.",
        "model server",
    ),
    MetricInfo("surogate_bench_leader", "gauge", "1", (), "1 in the replica that works, else 0.", "controller"),
    MetricInfo(
        "surogate_bench_sweep_info", "gauge", "1", (*_SWEEP, "spec_hash", "model", "task"), "1 for each sweep.",
        "controller",
    ),
    MetricInfo("surogate_bench_runs", "gauge", "runs", (*_SWEEP, "state"), "Runs in each state.", "controller"),
    MetricInfo(
        "surogate_bench_accuracy", "gauge", "fraction", _RUN,
        "Accuracy on the test questions (strict exact match), served as published.", "controller",
    ),
    MetricInfo(
        "surogate_bench_accuracy_stderr", "gauge", "fraction", _RUN, "Standard error of the accuracy.", "controller"
    ),
    MetricInfo(
        "surogate_bench_served_accuracy", "gauge", "fraction", (*_RUN, "served_under"),
        "Accuracy by way of serving, where the sweep requests several: bf16 (as published), or the recipe.",
        "controller",
    ),
    MetricInfo(
        "surogate_bench_served_accuracy_stderr", "gauge", "fraction", (*_RUN, "served_under"),
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
        "Reconciliations that ended in an error and are repeated.", "controller",
    ),
    MetricInfo(
        "surogate_bench_kubernetes_requests_total", "counter", "requests", ("method",),
        "Requests to the Kubernetes API while reconciling; watches and the Lease are not counted.",
        "controller",
    ),
)  # fmt: skip
_HEAD = f"""# Metrics

Made from `surogate_bench.metrics` by `make reference`; a test fails when the two differ.

Pods of sweeps serve `{METRICS_PATH}` on port {METRICS_PORT}, controllers on {CONTROLLER_PORT}. \
Each also has the process metrics of Prometheus'
client, and model servers have those of vLLM (`vllm:…`). `recipe="base", seed=""` is the untouched base model; a foreign
adapter has its name as `recipe`. What the controller shows of a sweep comes from the object store, so it survives a
restart; only the leader shows it, until the `RecipeSweep` is deleted.
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
    """Make a gauge or counter of :data:`METRICS` with its samples, each a value under the metric's labels."""
    info = _BY_NAME[name]
    kind = CounterMetricFamily if info.kind == "counter" else GaugeMetricFamily
    made = kind(info.name, info.meaning, labels=info.labels)
    for labels, value in samples:
        made.add_metric([labels[label] for label in info.labels], value)
    return made


def families(labels: Mapping[str, str], values: Mapping[str, float | None]) -> list[Metric]:
    """Make one family a value, all under the same labels; what is not known (None) is left out."""
    return [family(name, [(labels, value)]) for name, value in values.items() if value is not None]


def expose(made: Iterable[Metric]) -> bytes:
    """Write families in Prometheus' text format."""
    return generate_latest(_Families(tuple(made)))


def reference() -> str:
    """Describe every metric in a Markdown table."""
    rows = [
        f"| `{info.name}` | {info.kind} | {info.unit} | {', '.join(info.labels)} | {info.meaning} | {info.pod} |"
        for info in METRICS
    ]
    table = ["| Metric | Type | Unit | Labels | Meaning | Pod |", "|---|---|---|---|---|---|", *rows]
    return "\n".join([_HEAD, *table]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
