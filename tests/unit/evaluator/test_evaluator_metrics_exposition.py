"""What an evaluation exports, through the metrics port, while its progress file changes."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sweeps import small_sweep

from surogate_bench.processes.progress import Progress, write_progress
from surogate_bench.stages.requests import EvaluateRequest, PrepareRequest
from surogate_bench_evaluator.main import _metrics
from surogate_bench_evaluator.metrics_exposition import EvaluationExposition

REQUEST = EvaluateRequest(
    sweep=small_sweep(),
    store="file:///tmp/none",
    run="bf16-s0",
    server_url="http://127.0.0.1:1",
)  # fmt: skip


def read(exposition: EvaluationExposition) -> tuple[dict[str, float], str]:
    """Values by short name, and the phase."""
    values, phases = {}, []
    for made in text_string_to_metric_families(exposition().decode()):
        for sample in made.samples:
            assert (sample.labels["sweep"], sample.labels["run"]) == ("small", "bf16-s0")
            if "phase" in sample.labels:
                phases += [sample.labels["phase"]] * int(sample.value)
            else:
                values[sample.name.removeprefix("surogate_bench_eval_")] = sample.value
    (phase,) = phases
    return values, phase


def test_an_evaluation_shows_its_phase_and_how_many_questions_are_answered(tmp_path: Path) -> None:
    (exposition,) = _metrics(REQUEST, tmp_path)
    assert isinstance(exposition, EvaluationExposition)
    assert read(exposition) == ({"requests_done": 0}, "starting")
    write_progress(tmp_path, Progress(phase="evaluating", step=3, total=4))
    assert read(exposition) == ({"requests_done": 3, "requests": 4}, "evaluating")
    write_progress(tmp_path, Progress(phase="uploading"))
    assert read(exposition) == ({"requests_done": 3, "requests": 4}, "uploading")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"task": "ro_gsm8k", "served_under": "bf16", "merged": "false"}),
        ({"task": "en_gsm8k", "under": "qfp4"}, {"task": "en_gsm8k", "served_under": "qfp4", "merged": "false"}),
        ({"merged": True}, {"task": "ro_gsm8k", "served_under": "bf16", "merged": "true"}),
    ],
)
def test_evaluations_of_one_run_differ_in_their_labels(
    tmp_path: Path, changes: dict[str, Any], expected: dict[str, str]
) -> None:
    exposition = EvaluationExposition(REQUEST.model_copy(update=changes), tmp_path)
    for made in text_string_to_metric_families(exposition().decode()):
        for sample in made.samples:
            assert {**sample.labels, **expected} == sample.labels


def test_a_request_for_another_service_has_no_metrics(tmp_path: Path) -> None:
    assert _metrics(PrepareRequest(sweep=REQUEST.sweep, store="file:///tmp/none"), tmp_path) == ()
