"""Metrics of the controller, at ``/metrics``. Results are read from the object store, so they survive a restart.

Only the leader shows sweeps. ``recipe="base", seed=""`` is the untouched base model; an accuracy is the strict exact
match, a fraction in 0..1. Series of a sweep vanish with the resource.

| Metric | Type | Labels | Meaning |
| --- | --- | --- | --- |
| surogate_bench_leader | gauge | | 1 in the replica that works |
| surogate_bench_sweep_info | gauge | sweep, spec_hash, model, task | 1 for each sweep |
| surogate_bench_runs | gauge | sweep, state | runs in each state |
| surogate_bench_accuracy | gauge | sweep, recipe, seed | accuracy on the test questions |
| surogate_bench_accuracy_stderr | gauge | sweep, recipe, seed | its standard error |
| surogate_bench_eval_samples | gauge | sweep, recipe, seed | test questions |
| surogate_bench_eval_seconds | gauge | sweep, recipe, seed | wall time of the evaluation |
| surogate_bench_train_seconds | gauge | sweep, recipe, seed | wall time of the optimizer steps |
| surogate_bench_train_final_loss | gauge | sweep, recipe, seed | mean loss of the last 20 steps |
| surogate_bench_train_tokens_per_second | gauge | sweep, recipe, seed | training speed |
| surogate_bench_reconcile_seconds | histogram | | time to look at a sweep and act |
| surogate_bench_reconcile_errors_total | counter | | looks that ended in an error and are repeated |
| process_*, python_* | | | the controller's own process |
"""

import threading
from collections.abc import Iterator
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from surogate_bench_orchestrator.controller.figures import SweepFigures


class Board(Collector):
    """The latest figures of every sweep; written by the loop and read by scrapes."""

    _OF_RUNS: ClassVar[dict[str, tuple[str, str]]] = {
        "accuracy": ("accuracy", "Accuracy on the test questions (strict exact match), 0..1."),
        "accuracy_stderr": ("stderr", "Standard error of the accuracy."),
        "eval_samples": ("samples", "Test questions."),
        "eval_seconds": ("eval_seconds", "Wall time of the evaluation."),
        "train_seconds": ("train_seconds", "Wall time of the optimizer steps."),
        "train_final_loss": ("final_loss", "Mean training loss of the last 20 steps."),
        "train_tokens_per_second": ("tokens_per_second", "Training speed."),
    }

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sweeps: dict[str, SweepFigures] = {}

    def show(self, name: str, figures: SweepFigures) -> None:
        """Replace a sweep's figures."""
        with self._lock:
            self._sweeps[name] = figures

    def remove(self, name: str) -> None:
        """Forget a sweep; nothing happens if it is not known."""
        with self._lock:
            self._sweeps.pop(name, None)

    def knows(self, name: str) -> bool:
        """Whether there are figures of a sweep."""
        with self._lock:
            return name in self._sweeps

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every family; called by a scrape."""
        with self._lock:
            sweeps = list(self._sweeps.values())
        info = GaugeMetricFamily(
            "surogate_bench_sweep_info", "1 for each sweep.", labels=("sweep", "spec_hash", "model", "task")
        )
        states = GaugeMetricFamily("surogate_bench_runs", "Runs in each state.", labels=("sweep", "state"))
        for figures in sweeps:
            info.add_metric((figures.sweep, figures.spec_hash, figures.model, figures.task), 1)
            for state, number in figures.states.items():
                states.add_metric((figures.sweep, state), number)
        yield info
        yield states
        for name, (field, text) in self._OF_RUNS.items():
            family = GaugeMetricFamily(f"surogate_bench_{name}", text, labels=("sweep", "recipe", "seed"))
            for figures in sweeps:
                for run in figures.runs:
                    value = getattr(run, field)
                    if value is not None:
                        family.add_metric((figures.sweep, run.recipe, run.seed), value)
            yield family


class Metrics:
    """Everything that ``/metrics`` shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.board = Board()
        self.registry.register(self.board)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.leader = Gauge("surogate_bench_leader", "1 in the replica that works.", registry=self.registry)
        self.turns = Histogram(
            "surogate_bench_reconcile_seconds",
            "Time to look at a sweep and act.",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
            registry=self.registry,
        )
        self.errors = Counter(
            "surogate_bench_reconcile_errors",
            "Looks that ended in an error and are repeated.",
            registry=self.registry,
        )
