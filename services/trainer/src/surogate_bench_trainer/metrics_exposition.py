"""Prometheus metrics of a training run, read from the files that it writes, so that the loop exports nothing itself."""

import os
from pathlib import Path

from prometheus_client.metrics_core import Metric

from surogate_bench.contract import METRICS_FILE
from surogate_bench.processes.metrics import expose, families
from surogate_bench.processes.progress import Progress, read_progress
from surogate_bench.results import MetricsLine
from surogate_bench.stages.requests import TrainRequest


class TrainingExposition:
    """Metrics of one run in Prometheus' text format. Not thread-safe."""

    def __init__(self, request: TrainRequest, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._labels = {"sweep": request.sweep.name, "recipe": request.recipe, "seed": str(request.seed)}
        self._log = _LogReader(work_dir / METRICS_FILE)

    def __call__(self) -> bytes:
        """Read the new lines of the log and return all metrics."""
        return expose(self._families())

    def _families(self) -> list[Metric]:
        progress = read_progress(self._work_dir) or Progress(phase="")
        self._log.read_new_lines()
        last = self._log.last_step
        values = {
            "surogate_bench_train_step": last.step,
            "surogate_bench_train_steps": progress.total or None,
            "surogate_bench_train_loss": last.loss,
            "surogate_bench_train_validation_loss": self._log.validation_loss,
            "surogate_bench_train_learning_rate": last.learning_rate,
            "surogate_bench_train_tokens_per_second": progress.tokens_per_second,
            "surogate_bench_train_tokens_total": self._log.tokens,
            "surogate_bench_train_memory_bytes": progress.memory_bytes,
        }
        return families(self._labels, values)


class _LogReader:
    """Reads ``metrics.jsonl`` incrementally, and from its start again when the file has been replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._reset()

    def _reset(self) -> None:
        self._offset = 0
        self.tokens = 0
        self.last_step = MetricsLine(step=0)
        self.validation_loss: float | None = None

    def read_new_lines(self) -> None:
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:
                self._inode = inode
                self._reset()
            file.seek(self._offset)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.splitlines():
            self._add(MetricsLine.model_validate_json(line))

    def _add(self, line: MetricsLine) -> None:
        if line.eval_loss is not None:
            self.validation_loss = line.eval_loss
        if line.loss is not None:
            self.last_step = line
            self.tokens += line.tokens or 0
