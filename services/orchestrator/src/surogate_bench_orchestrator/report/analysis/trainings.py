"""How the adapters of a row were trained, over all of its runs."""

from collections.abc import Sequence
from typing import TypeVar

from surogate_bench.results import TrainResult
from surogate_bench_orchestrator.report.analysis.records import TrainRecord
from surogate_bench_orchestrator.report.model.summary import Training

_Number = TypeVar("_Number", int, float)


def training_of_runs(records: Sequence[TrainRecord]) -> Training:
    """Combine the figures of a row's runs; one that a run of a foreign trainer did not report is None."""
    results = [record.result for record in records]
    own = [result for result in results if isinstance(result, TrainResult)]
    engines = dict.fromkeys(record.manifest.engine for record in records if record.manifest.engine)
    validations = [result.validation[-1].loss for result in results if result.validation]
    covered = [result.covered_share for result in own if result.covered_share is not None]
    tokens = _known([result.tokens for result in results])
    return Training(
        engine=", ".join(engines) or None,
        steps=_largest([result.steps for result in results]),
        tokens=None if tokens is None else round(_mean(tokens)),
        tokens_per_second=_mean_of([result.tokens_per_second for result in results]),
        side_by_side=max(result.side_by_side for result in results),
        threads=_smallest([result.threads for result in results]),
        processes=_largest([result.processes for result in own]),
        train_seconds=_mean_of([result.train_seconds for result in results]),
        peak_memory_bytes=_largest([result.peak_memory_bytes for result in results]),
        weight_bytes=_largest([result.weight_bytes for result in own]),
        operand_cache_bytes=_largest([result.operand_cache_bytes for result in own]),
        training_weight_bytes=_largest([result.weight_bytes + result.operand_cache_bytes for result in own]),
        covered_share=min(covered) if covered else None,
        kept_layers=tuple(dict.fromkeys(layer for result in own for layer in result.kept_layers)),
        padded_layers=tuple(dict.fromkeys(layer for result in own for layer in result.padded_layers)),
        final_train_loss=_mean_of([result.final_train_loss for result in results]),
        last_validation_loss=_mean(validations) if validations else None,
        served_validation_loss=_mean_of([result.served_validation_loss for result in results]),
        resumed_from_step=max((result.resumed_from_step for result in own), default=0),
    )


def _known(values: Sequence[_Number | None]) -> list[_Number] | None:
    """Return the values of all runs; None where there is none, or one does not have it."""
    known = [value for value in values if value is not None]
    return known if known and len(known) == len(values) else None


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return None if known is None else _mean(known)


def _largest(values: Sequence[int | None]) -> int | None:
    known = _known(values)
    return None if known is None else max(known)


def _smallest(values: Sequence[int | None]) -> int | None:
    known = _known(values)
    return None if known is None else min(known)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
