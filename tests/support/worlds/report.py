"""Synthetic sweeps in a store, for tests of the report."""

import csv
import io
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

from pydantic import BaseModel
from sweeps import small_sweep

from surogate_bench.layout import BASE_RUN, Stage, SweepLayout, manifest_key, run_name
from surogate_bench.machine.hardware import Hardware
from surogate_bench.results import (
    EvalResult,
    ForeignTrainResult,
    Metric,
    MetricsLine,
    PrepareResult,
    SampleLine,
    SplitInfo,
    TrainResult,
    ValidationPoint,
)
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.manifest import Manifest, StageResult
from surogate_bench.stages.publication import publish_stage
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.report import Summary, build_report, write_report
from surogate_bench_orchestrator.report.charts import draw as charts

RECIPES = ("bf16", "fp8", "fp4", "qbnb", "qfp8-fp8-hybrid", "qfp8-bf16", "qfp4")
HARDWARE = Hardware(cpu="Example CPU 3000", cores=2, memory_bytes=8 * 2**30, system="Linux-6.1", python="3.11.9")
VERSIONS = {"surogate-bench-common": "0.1.0", "torch": "2.13.0"}


@dataclass
class ReportWorld:
    """A store and a sweep, and ways to publish what its stages would have left."""

    store: ObjectStore
    sweep: RecipeSweep
    folder: Path
    questions: int = 500
    outcomes: dict[str, list[bool]] = field(default_factory=dict)

    @property
    def layout(self) -> SweepLayout:
        return SweepLayout(self.sweep.name, self.sweep.spec_hash)

    def publish_prepare(self) -> None:
        splits = {"train": SplitInfo(records=1600, sha256="a" * 64), "test": SplitInfo(records=500, sha256="b" * 64)}
        result = PrepareResult(data=splits, model_source="built in: tiny-qwen3-en", model_in_store=False)
        self._publish("prepare", "prepare", self.layout.prepare, {}, result)

    def publish_train(
        self,
        recipe: str,
        seed: int = 0,
        *,
        steps: int = 300,
        metrics: bool = True,
        engine: str = "emulated",
        **changes: object,
    ) -> None:
        run = run_name(recipe, seed)
        lines = synthetic_metrics(run, steps)
        validation = tuple(
            ValidationPoint(step=line.step, loss=line.eval_loss) for line in lines if line.eval_loss is not None
        )
        values: dict[str, object] = {
            "steps": steps, "tokens": 123_456, "train_seconds": 31.5, "tokens_per_second": 5123.4, "side_by_side": 2,
            "threads": 1, "peak_memory_bytes": 900 * 2**20, "weight_bytes": 1_572_864, "operand_cache_bytes": 0,
            "final_train_loss": 0.31, "validation": validation, "adapter_sha256": "c" * 64, "resumed_from_step": 0,
        }  # fmt: skip
        result = TrainResult.model_validate(values | changes)
        files = {"metrics.jsonl": jsonl(lines)} if metrics else {}
        self._publish("train", run, self.layout.train(run), files, result, engine=engine)

    def publish_foreign_train(self, trainer: str, seed: int = 0, **changes: object) -> None:
        """Publish what a foreign trainer trained, with losses of ten steps and no other figures."""
        run = run_name(trainer, seed)
        lines = [MetricsLine(step=step, loss=2.0 / step) for step in range(1, 11)]
        values: dict[str, object] = {
            "command": ["other", "train"], "seconds": 40.0, "peak_memory_bytes": None, "side_by_side": 1,
            "threads": None, "steps": 10, "tokens": None, "train_seconds": None, "final_train_loss": 0.5,
            "validation": (), "served_validation_loss": 0.42, "source_files": {}, "adapter_sha256": f"{seed}" * 64,
            "ranks": (16,), "alphas": (32.0,), "use_rslora": False, "target_modules": ("q_proj",), "layers": 4,
            "parameters": 100, "peft_version": "0.21.2", "base_model": None, "trained_under": None, "warnings": (),
        }  # fmt: skip
        result = ForeignTrainResult.model_validate(values | changes)
        self._publish("foreign-train", run, self.layout.train(run), {"metrics.jsonl": jsonl(lines)}, result)

    def alter_manifest(self, prefix: str, **changes: object) -> None:
        """Replace fields of a finished stage's manifest, those of its result below ``result``."""
        manifest = json.loads(self.store.get(manifest_key(prefix)) or b"")
        result = changes.pop("result", {})
        manifest |= changes | {"result": manifest["result"] | result}
        self.store.put(manifest_key(prefix), json.dumps(manifest).encode())

    def publish_eval(
        self,
        run: str,
        outcomes: list[bool] | None = None,
        *,
        samples: bool = True,
        lines: Sequence[SampleLine] | None = None,
        topic: str = "apples",
        task: str | None = None,
        accuracy_is: str | None = None,
        beside: str | None = None,
        under: str | None = None,
        merged: bool = False,
    ) -> None:
        """Publish an evaluation; :attr:`outcomes` has it as ``run``, ``run under recipe``, ``run merged under …``.

        ``task`` is a further one; ``accuracy_is`` and ``beside`` are metrics other than strict and flexible match.
        ``lines`` are samples that say how answers ended; without, they do not, as those of earlier versions.
        """
        name = run + (" merged" if merged else "") + (f" under {under}" if under else "")
        right = outcomes if outcomes is not None else synthetic_outcomes(name, self.questions)
        self.outcomes[name] = right
        lines = lines or [
            SampleLine(
                index=index, question=f"How many {topic} are {index}?", target=str(index), response=f"#### {index}",
                strict_match=strict, flexible_match=strict or index % 50 == 0,
            )
            for index, strict in enumerate(right)
        ]  # fmt: skip
        result = EvalResult(
            task=task or "ro_gsm8k", metric=accuracy_is, second_metric=beside, model=run,
            samples=len(lines), strict=metric([line.strict_match for line in lines]),
            flexible=metric([line.flexible_match for line in lines]), empty_answers=3 if run == BASE_RUN else 0,
            seconds=12.25, parallel_evaluations=2, served_under=under,
            merged=merged, **endings(lines),
        )  # fmt: skip
        files = {"samples.jsonl": jsonl(lines)} if samples else {}
        self._publish("eval", run, self.layout.eval(run, under, merged=merged, task=task), files, result)

    def publish_run(self, recipe: str, seed: int = 0) -> None:
        self.publish_train(recipe, seed)
        self.publish_eval(run_name(recipe, seed))

    def publish_answers(self, answers: dict[str, list[bool]]) -> None:
        """Publish the preparation, the base model (4 of 500 right), and runs of recipes with these answers."""
        self.publish_prepare()
        self.publish_eval(BASE_RUN, right(4))
        for run, outcomes in answers.items():
            recipe, _, seed = run.rpartition("-s")
            self.publish_train(recipe, int(seed))
            self.publish_eval(run, outcomes)

    def publish_everything(self) -> None:
        self.publish_prepare()
        self.publish_eval(BASE_RUN)
        for recipe in self.sweep.recipes:
            for seed in self.sweep.seeds:
                self.publish_run(recipe.name, seed)
        self.publish_other_ways()

    def publish_other_ways(self) -> None:
        """Publish every evaluation that the sweep requests beside those on the base as published."""
        runs = [
            (BASE_RUN, None),
            *((run_name(each.name, seed), each.name) for each in self.sweep.recipes for seed in self.sweep.seeds),
        ]
        for run, recipe in runs:
            for under in self.sweep.scored_under(recipe):
                if under is not None:
                    self.publish_eval(run, under=under)
            for under in self.sweep.scored_merged(recipe):
                self.publish_eval(run, under=under, merged=True)

    def report_file(self, name: str) -> bytes:
        data = self.store.get(f"{self.layout.report}/{name}")
        assert data is not None, name
        return data

    def csv_lines(self, name: str) -> list[dict[str, str]]:
        """Read the lines of a CSV file of the report, by the names of its columns."""
        return list(csv.DictReader(io.StringIO(self.report_file(name).decode())))

    def csv_rows(self) -> dict[str, dict[str, str]]:
        """Read the lines of summary.csv by their key."""
        return {line["key"]: line for line in self.csv_lines("summary.csv")}

    def _publish(
        self,
        stage: Stage,
        run: str,
        prefix: str,
        files: Mapping[str, bytes],
        result: StageResult,
        engine: str | None = None,
    ) -> None:
        folder = self.folder / prefix
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        manifest = Manifest(
            stage=stage, run=run, spec_hash=self.sweep.spec_hash, created=datetime(2026, 1, 1, tzinfo=UTC), files={},
            engine=engine, hardware=HARDWARE, versions=VERSIONS, result=result,
        )  # fmt: skip
        assert publish_stage(self.store, prefix, folder, manifest)


def endings(lines: Sequence[SampleLine]) -> dict[str, int]:
    """Return the sums of a result over samples that say how answers ended; nothing of others."""
    if any(line.finish_reason is None for line in lines):
        return {}
    return {
        "cut_off_answers": sum(line.finish_reason == "length" for line in lines),
        "unformatted_answers": sum(line.formatted is False for line in lines),
        "answer_tokens": sum(line.tokens or 0 for line in lines),
    }


def jsonl(lines: Sequence[BaseModel]) -> bytes:
    return b"".join(line.model_dump_json(exclude_none=True).encode() + b"\n" for line in lines)


def ended_lines(right: int, *, cut_off: int = 0, unformatted: int = 0) -> list[SampleLine]:
    """100 answers that say how they ended: the first are right, the last were cut off or lack the format."""
    return [
        SampleLine(
            index=index, question=f"How many are {index}?", target=str(index), response="5 tokens, as it were",
            strict_match=index < right, flexible_match=index < right, formatted=index < 100 - unformatted,
            finish_reason="length" if index >= 100 - cut_off else "stop", tokens=5,
        )
        for index in range(100)
    ]  # fmt: skip


def right(count: int, *, shift: int = 0) -> list[bool]:
    """Answers to 500 questions of which so many are right, from question ``shift`` on."""
    return [(index - shift) % 500 < count for index in range(500)]


def metric(outcomes: list[bool]) -> Metric:
    accuracy, n = sum(outcomes) / len(outcomes), len(outcomes)
    return Metric(accuracy=accuracy, stderr=math.sqrt(accuracy * (1 - accuracy) / max(1, n - 1)))


def synthetic_outcomes(run: str, questions: int) -> list[bool]:
    """Correlated answers: every run meets the same hard questions, and each is a little better or worse."""
    levels = {"base": 0.012, "bf16": 0.69, "fp8": 0.67, "fp4": 0.55, "qbnb": 0.60, "qfp8-fp8": 0.64, "qfp4": 0.61}
    level = next((value for name, value in reversed(levels.items()) if run.startswith(name)), 0.65)
    hardness, own = random.Random(7), random.Random(run)
    return [
        0.75 * hardness.random() + 0.25 * own.random() < 0.15 + 0.7 * level * (level > 0.1) for _ in range(questions)
    ]


def synthetic_metrics(run: str, steps: int) -> list[MetricsLine]:
    """A falling, noisy loss with a validation every 25 steps."""
    rng = random.Random(run)
    floor = 0.20 + 0.02 * rng.random() + (0.06 if "fp4" in run else 0.0)
    lines = []
    for step in range(1, steps + 1):
        trend = floor + 1.6 * math.exp(-step / 14) + 0.55 * math.exp(-step / 110)
        loss = trend * math.exp(rng.gauss(0, 0.13))
        lines.append(MetricsLine(step=step, loss=loss, learning_rate=1e-3, grad_norm=1.0, tokens=900, seconds=0.1))
        if step % 25 == 0:
            lines.append(MetricsLine(step=step, eval_loss=trend * 1.03 * math.exp(rng.gauss(0, 0.01))))
    return lines


def report_sweep(**changes: object) -> RecipeSweep:
    """Make a sweep of the size of the embedded one, with every recipe; see :func:`small_sweep`."""
    full: dict[str, object] = {
        "name": "embedded",
        "description": "Small-scale stand-in: a 0.9 M parameter model. Not evidence about large models.",
        "data": {"builtin": "word-problems-ro", "train_size": 1600, "test_size": 500},
        "training": {"max_steps": 300},
        "recipes": list(RECIPES),
    }
    return small_sweep(**(full | changes))


MakeWorld = Callable[..., ReportWorld]
"""Make a store and a sweep; keyword arguments replace fields of the sweep (:func:`report_sweep`)."""


def failures_of(texts: Mapping[str, str]) -> dict[str, Failure]:
    """Make failures by run from what users read, ``reason: message``."""
    parts = {run: text.partition(": ") for run, text in texts.items()}
    return {run: Failure(reason, message) for run, (reason, _, message) in parts.items()}


def summarized(world: ReportWorld, *, draw: bool = False) -> Summary:
    """Write the report of a world and return its summary.

    Args:
        world: A store and a sweep.
        draw: Whether charts are drawn too, which takes most of the time.
    """
    report = build_report(world.store, world.sweep, {})
    none = charts.Charts(accuracy=None, matrix=(), overlay=None, losses=())
    with nullcontext() if draw else patch.object(charts, "draw_charts", lambda *_: none):
        write_report(world.store, report)
    return report.summary
