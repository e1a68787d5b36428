"""Prometheus metrics of an evaluation, read from its progress file."""

from pathlib import Path

from prometheus_client.metrics_core import Metric

from surogate_bench.processes.metrics import expose, families, family
from surogate_bench.processes.progress import Activity, read_progress
from surogate_bench.specs.evaluation import AS_PUBLISHED
from surogate_bench.stages.requests import EvaluateRequest

_PHASES = (Activity.STARTING, Activity.EVALUATING, Activity.UPLOADING)


class EvaluationExposition:
    """Metrics of one evaluation, in Prometheus' text format; for one thread at a time."""

    def __init__(self, request: EvaluateRequest, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._labels = {
            "sweep": request.sweep.name,
            "run": request.run,
            "task": request.task or request.sweep.evaluation.task,
            "served_under": request.under or AS_PUBLISHED,
            "merged": str(request.merged).lower(),
        }
        self._done, self._total = 0, 0

    def __call__(self) -> bytes:
        """Read the progress and format the metrics."""
        return expose(self._families())

    def _families(self) -> list[Metric]:
        progress = read_progress(self._work_dir)
        if progress is not None and progress.total:  # later phases do not report the number of questions
            self._done, self._total = progress.step, progress.total
        values = {
            "surogate_bench_eval_requests_done": self._done,
            "surogate_bench_eval_requests": self._total or None,
        }
        now = progress.phase if progress else _PHASES[0]
        phases = [(self._labels | {"phase": phase}, float(phase == now)) for phase in _PHASES]
        return [*families(self._labels, values), family("surogate_bench_eval_phase", phases)]
