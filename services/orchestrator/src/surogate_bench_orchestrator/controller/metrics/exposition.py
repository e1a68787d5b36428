"""Metrics of the controller, at ``/metrics``. Results are read from the object store, so they survive a restart.

Only the leader exports sweeps; the series of a sweep end with the resource. :mod:`surogate_bench.processes.metrics`
documents each metric.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from surogate_bench.processes.metrics import family, meaning
from surogate_bench_orchestrator.controller.metrics.figures import RunFigures, ServedFigures, SweepFigures, TaskFigures


class ResultsCollector(Collector):
    """The latest results of every sweep; written by the workers and read by scrapes."""

    _OF_RUNS: ClassVar[Mapping[str, Callable[[RunFigures], float | None]]] = {
        "surogate_bench_accuracy": lambda run: run.accuracy,
        "surogate_bench_accuracy_stderr": lambda run: run.stderr,
        "surogate_bench_eval_samples": lambda run: run.samples,
        "surogate_bench_eval_seconds": lambda run: run.eval_seconds,
        "surogate_bench_train_seconds": lambda run: run.train_seconds,
        "surogate_bench_train_final_loss": lambda run: run.final_loss,
        "surogate_bench_train_mean_tokens_per_second": lambda run: run.tokens_per_second,
    }

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sweeps: dict[str, SweepFigures] = {}

    def update(self, name: str, figures: SweepFigures) -> None:
        """Replace a sweep's results."""
        with self._lock:
            self._sweeps[name] = figures

    def remove(self, name: str) -> None:
        """Remove a sweep; does nothing if it is unknown."""
        with self._lock:
            self._sweeps.pop(name, None)

    def has(self, name: str) -> bool:
        """Whether there are results of a sweep."""
        with self._lock:
            return name in self._sweeps

    def collect(self) -> Iterator[Metric]:
        """Yield every family; called by a scrape."""
        with self._lock:
            sweeps = list(self._sweeps.values())
        yield family("surogate_bench_sweep_info", [(_about(figures), 1) for figures in sweeps])
        yield family(
            "surogate_bench_runs",
            [
                ({"sweep": figures.sweep, "state": state}, number)
                for figures in sweeps
                for state, number in figures.states.items()
            ],
        )
        for name, figure in self._OF_RUNS.items():
            yield family(name, _of_runs(sweeps, figure))
        yield family("surogate_bench_served_accuracy", _served(sweeps, lambda served: served.accuracy))
        yield family("surogate_bench_served_accuracy_stderr", _served(sweeps, lambda served: served.stderr))
        yield family("surogate_bench_task_accuracy", _of_tasks(sweeps, lambda task: task.accuracy))
        yield family("surogate_bench_task_accuracy_stderr", _of_tasks(sweeps, lambda task: task.stderr))


def _about(figures: SweepFigures) -> dict[str, str]:
    return {
        "sweep": figures.sweep,
        "spec_hash": figures.spec_hash,
        "model": figures.model,
        "task": figures.task,
    }


def _of_runs(
    sweeps: list[SweepFigures], figure: Callable[[RunFigures], float | None]
) -> Iterator[tuple[dict[str, str], float]]:
    for figures in sweeps:
        for run in figures.runs:
            value = figure(run)
            if value is not None:
                yield {"sweep": figures.sweep, "recipe": run.recipe, "seed": run.seed}, value


def _served(
    sweeps: list[SweepFigures], figure: Callable[[ServedFigures], float]
) -> Iterator[tuple[dict[str, str], float]]:
    for figures in sweeps:
        for run in figures.runs:
            labels = {"sweep": figures.sweep, "recipe": run.recipe, "seed": run.seed}
            for served in run.served:
                merged = "true" if served.merged else "false"
                yield {**labels, "served_under": served.served_under, "merged": merged}, figure(served)


def _of_tasks(
    sweeps: list[SweepFigures], figure: Callable[[TaskFigures], float]
) -> Iterator[tuple[dict[str, str], float]]:
    for figures in sweeps:
        for run in figures.runs:
            labels = {"sweep": figures.sweep, "recipe": run.recipe, "seed": run.seed}
            for each in run.tasks:
                yield {**labels, "task": each.task}, figure(each)


class Metrics:
    """All metrics of the controller."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.results = ResultsCollector()
        self.registry.register(self.results)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.leader = Gauge("surogate_bench_leader", meaning("surogate_bench_leader"), registry=self.registry)
        self.reconciles = Histogram(
            "surogate_bench_reconcile_seconds",
            meaning("surogate_bench_reconcile_seconds"),
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
            registry=self.registry,
        )
        self.errors = Counter(
            "surogate_bench_reconcile_errors_total",
            meaning("surogate_bench_reconcile_errors_total"),
            registry=self.registry,
        )
        self._requests = Counter(
            "surogate_bench_kubernetes_requests_total",
            meaning("surogate_bench_kubernetes_requests_total"),
            ["method"],
            registry=self.registry,
        )

    def count_request(self, method: str) -> None:
        """Count a request to the Kubernetes API."""
        self._requests.labels(method).inc()
