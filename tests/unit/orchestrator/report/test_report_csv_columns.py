"""Every figure of a score is a column of each CSV file that has scores."""

import pytest

from surogate_bench_orchestrator.report.model.scores import Score
from surogate_bench_orchestrator.report.tables.csv.further import TASK_COLUMNS
from surogate_bench_orchestrator.report.tables.csv.matrix import MATRIX_COLUMNS
from surogate_bench_orchestrator.report.tables.csv.merged import MERGED_COLUMNS
from surogate_bench_orchestrator.report.tables.csv.summary import CSV_COLUMNS

NOT_SHOWN = {"parallel_evaluations"}
FILES = {
    "summary.csv": CSV_COLUMNS,
    "matrix.csv": MATRIX_COLUMNS,
    "merged.csv": MERGED_COLUMNS,
    "tasks.csv": TASK_COLUMNS,
}


@pytest.mark.parametrize("name", FILES)
def test_every_field_of_a_score_is_a_column(name: str) -> None:
    assert Score.model_fields.keys() - NOT_SHOWN <= set(FILES[name])


@pytest.mark.parametrize("name", FILES)
def test_no_column_appears_twice(name: str) -> None:
    assert len(set(FILES[name])) == len(FILES[name])
