"""Every metric that surogate-bench exports, in one table, and how it is written out.

``python -m surogate_bench.metrics`` prints the table as Markdown.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a metric means. Its name ends in its unit; a counter's in ``_total`` after that."""

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    labels: tuple[str, ...]
    meaning: str


_RUN = ("sweep", "recipe", "seed")
_EVAL = ("sweep", "run")
_SERVER = ("sweep",)

METRICS: tuple[MetricInfo, ...] = (
    MetricInfo("surogate_bench_train_step", "gauge", "steps", _RUN, "Optimizer steps done."),
    MetricInfo("surogate_bench_train_steps", "gauge", "steps", _RUN, "Optimizer steps of the whole run."),
    MetricInfo("surogate_bench_train_loss", "gauge", "nats per token", _RUN, "Training loss of the last step."),
    MetricInfo("surogate_bench_train_validation_loss", "gauge", "nats per token", _RUN, "Last validation loss."),
    MetricInfo("surogate_bench_train_learning_rate", "gauge", "1", _RUN, "Learning rate of the last step."),
    MetricInfo("surogate_bench_train_tokens_per_second", "gauge", "tokens/s", _RUN, "Speed over the last 20 steps."),
    MetricInfo("surogate_bench_train_tokens_total", "counter", "tokens", _RUN, "Tokens trained on, padding excluded."),
    MetricInfo(
        "surogate_bench_train_memory_bytes", "gauge", "bytes", _RUN,
        "Memory in use: of the device on a GPU, resident set on a CPU.",
    ),
    MetricInfo("surogate_bench_eval_requests_done", "gauge", "requests", _EVAL, "Questions answered."),
    MetricInfo("surogate_bench_eval_requests", "gauge", "requests", _EVAL, "Questions of the whole evaluation."),
    MetricInfo(
        "surogate_bench_eval_phase", "gauge", "1", (*_EVAL, "phase"),
        "1 for what the evaluator is doing, 0 for the rest: starting, evaluating, uploading.",
    ),
    MetricInfo(
        "surogate_bench_vllm_up", "gauge", "1", _SERVER, "1 while vLLM is up and lists every wanted adapter, else 0."
    ),
    MetricInfo("surogate_bench_adapters_loaded", "gauge", "adapters", _SERVER, "Adapters that are served."),
    MetricInfo("surogate_bench_vllm_restarts_total", "counter", "restarts", _SERVER, "Times vLLM was started again."),
)  # fmt: skip
"""Pods of a sweep also export the process metrics of prometheus_client, and model servers vLLM's own (``vllm:…``)."""

_BY_NAME = {info.name: info for info in METRICS}


@dataclass(frozen=True, slots=True)
class _Families:
    families: tuple[Metric, ...]

    def collect(self) -> Iterator[Metric]:
        yield from self.families


def family(name: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Metric:
    """Make one of :data:`METRICS` with its samples, each a value under the metric's labels."""
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
        f"| `{info.name}` | {info.kind} | {info.unit} | {', '.join(info.labels)} | {info.meaning} |" for info in METRICS
    ]
    return "\n".join(["| Metric | Type | Unit | Labels | Meaning |", "|---|---|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
