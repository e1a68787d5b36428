"""Figures that a foreign trainer reports about its training."""

import json
import os
from pathlib import Path

import pytest

from surogate_bench_trainer.foreign.trainers.reported import newest_line, read_reported

METRICS: dict[str, tuple[str, str]] = {
    "no JSON": ('{"step": 1, "loss": 2}\nloss 3', "line 2"),
    "NaN": ('{"step": 1, "loss": NaN}', "line 1"),
    "infinite": ('{"step": 1, "loss": 1e999}', "line 1"),
    "no step": ('{"loss": 1.0}', "step"),
    "text": ('{"step": 1, "loss": "low"}', "loss"),
    "negative": ('{"step": -1, "loss": 1.0}', "line 1"),
    "no object": ("[1]", "line 1"),
    "deep": ("[" * 100_000, "line 1"),
    "no UTF-8": ("\\udcff", "line 1"),
}


@pytest.mark.parametrize(("text", "problem"), METRICS.values(), ids=METRICS)
def test_figures_that_cannot_be_read_are_left_out_with_a_warning_and_the_adapter_is_kept(
    text: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(text.encode().replace(b"\\udcff", b"\xff"))
    found = read_reported(tmp_path)
    assert (found.steps, found.tokens, found.seconds, found.final_train_loss, found.validation) == (
        None, None, None, None, (),
    )  # fmt: skip
    assert problem in found.warnings[0]
    newest_line(tmp_path)


def test_a_pipe_in_place_of_the_figures_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    assert newest_line(tmp_path) is None
    assert "not a regular file" in read_reported(tmp_path).warnings[0]


def test_lines_that_a_trainer_wrote_twice_count_once_and_sparse_ones_give_the_mean_of_the_last_steps(
    tmp_path: Path,
) -> None:
    lines = [{"step": step, "loss": float(step)} for step in (10, 20, 30, 20, 40)] + [{"step": 40, "eval_loss": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = read_reported(tmp_path)
    assert [line.step for line in found.lines] == [10, 20, 30, 40, 40]
    assert (found.steps, found.final_train_loss, found.tokens) == (40, 35.0, None)
