"""The layout of the object store. Keys are relative to the store's root and never start with a slash.

::

    sweeps/<name>/<spec-hash>/spec.json
    sweeps/<name>/<spec-hash>/prepare/            manifest.json data/*.jsonl [model/*]
                                                  [data/task-<task>.jsonl] of a further task with data of its own
    sweeps/<name>/<spec-hash>/checks/<subject>/   manifest.json
    sweeps/<name>/<spec-hash>/checks/<subject>-<task>/   manifest.json of a further task
    sweeps/<name>/<spec-hash>/runs/<recipe>-s<seed>/train/   manifest.json adapter/* metrics.jsonl checkpoints/...
                                                                  [input_scales.safetensors]
    sweeps/<name>/<spec-hash>/runs/<recipe>-s<seed>/eval/    manifest.json results.json samples.jsonl
    sweeps/<name>/<spec-hash>/runs/<recipe>-s<seed>/eval-<served under>/    the same on a base served under a recipe
    sweeps/<name>/<spec-hash>/runs/<recipe>-s<seed>/merged[-<served under>]/    the same, adapter merged into the base
    sweeps/<name>/<spec-hash>/runs/<recipe>-s<seed>/task-<task>/    the same of a further task, on the base as published
    sweeps/<name>/<spec-hash>/runs/<adapter>/train/   manifest.json adapter/*    a foreign adapter, imported
    sweeps/<name>/<spec-hash>/runs/<trainer>-s<seed>/train/  manifest.json adapter/* metrics.jsonl  a foreign trainer's
    sweeps/<name>/<spec-hash>/runs/base/eval*/    the unmodified base model
    sweeps/<name>/<spec-hash>/report/             summary.json ...
"""

from dataclasses import dataclass
from typing import Literal

from surogate_bench.contract import MANIFEST_FILE, SPEC_FILE

BASE_RUN = "base"
"""Name of the run that scores the unmodified base model; it has eval stages only."""

SWEEPS = "sweeps"
"""Prefix of all sweeps."""

Stage = Literal["prepare", "check", "train", "import", "foreign-train", "eval"]
CheckSubject = Literal["task", "serving"]
"""What is checked before anything is trained: the evaluation task, or the arguments of the vLLM server."""


def run_name(recipe: str, seed: int) -> str:
    """Name a run: one recipe, one seed."""
    return f"{recipe}-s{seed}"


def eval_stage(under: str | None, *, merged: bool = False, task: str | None = None) -> str:
    """Name an evaluation among those of its run: ``eval`` on the base as published, else ``eval-<recipe>``.

    Of an adapter that was merged into the base, ``merged`` and ``merged-<recipe>``: no recipe has a name that leads to
    one of the others. Of a further task, ``task-<task>``.
    """
    if task is not None:
        return f"task-{task}"
    stage = "merged" if merged else "eval"
    return stage if under is None else f"{stage}-{under}"


@dataclass(frozen=True, slots=True)
class SweepLayout:
    """Keys of one sweep."""

    name: str
    spec_hash: str

    @property
    def root(self) -> str:
        """The sweep's prefix."""
        return f"{SWEEPS}/{self.name}/{self.spec_hash}"

    @property
    def spec(self) -> str:
        """The resolved spec."""
        return f"{self.root}/{SPEC_FILE}"

    @property
    def prepare(self) -> str:
        """Prefix of the prepared data (and model, where it had to be converted)."""
        return f"{self.root}/prepare"

    def check(self, subject: CheckSubject, task: str | None = None) -> str:
        """Prefix of the result of a check; ``task`` is a further one."""
        return f"{self.root}/checks/{subject}" + ("" if task is None else f"-{task}")

    @property
    def report(self) -> str:
        """Prefix of tables and charts."""
        return f"{self.root}/report"

    def train(self, run: str) -> str:
        """Return the prefix of the outputs of a run's training, or import."""
        return f"{self.root}/runs/{run}/train"

    def eval(self, run: str, under: str | None = None, *, merged: bool = False, task: str | None = None) -> str:
        """Return the prefix of the outputs of one of a run's evaluations.

        Args:
            run: Name of the run.
            under: Recipe that the base was served under; None for the base as published.
            merged: Whether the adapter was merged into the base.
            task: A further task, scored on the base as published; None for the primary one.
        """
        return f"{self.root}/runs/{run}/{eval_stage(under, merged=merged, task=task)}"


def manifest_key(prefix: str) -> str:
    """Return the key of the manifest, whose existence means that the stage under ``prefix`` is complete."""
    return f"{prefix}/{MANIFEST_FILE}"


def sweep_of(prefix: str) -> str:
    """Return ``name/spec-hash`` of the sweep that a stage belongs to."""
    return "/".join(prefix.split("/")[1:3])
