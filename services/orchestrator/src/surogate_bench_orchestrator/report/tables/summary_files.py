"""The summary as CSV for programs and as Markdown for people."""

from collections.abc import Mapping, Sequence

from surogate_bench_orchestrator.report.model.figures import FLEXIBLE, STRICT
from surogate_bench_orchestrator.report.model.merged import MERGED_TITLE
from surogate_bench_orchestrator.report.model.served import MATRIX_TITLE
from surogate_bench_orchestrator.report.model.summary import Row, Score, Summary
from surogate_bench_orchestrator.report.tables.csv_cells import ENDING_COLUMNS, flag, inert, numbers, to_csv_text
from surogate_bench_orchestrator.report.tables.further import FURTHER_TITLE, further_table
from surogate_bench_orchestrator.report.tables.main_table import MAIN_COLUMNS, ROW_TITLE, Kind, MainColumn
from surogate_bench_orchestrator.report.tables.matrix import TextTable, matrix_tables
from surogate_bench_orchestrator.report.tables.merged import merged_table
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.report.text.scored_data import scored_texts

CSV_COLUMNS = (
    "key", "title", "recipe", "seed", "seeds_scored", "state", "reason",
    "accuracy", "stderr", "low", "high", "flexible_accuracy", "samples", "empty_answers", "eval_seconds",
    "delta_reference", "delta_reference_stderr", "delta_reference_low", "delta_reference_high",
    "p_reference", "p_reference_adjusted",
    "delta_base", "delta_base_low", "delta_base_high", "p_base_adjusted",
    "engine", "steps", "tokens", "tokens_per_second", "side_by_side", "threads", "train_seconds",
    "peak_memory_bytes", "weight_bytes", "operand_cache_bytes", "final_train_loss", "last_validation_loss",
    "resumed_from_step",
    "seeds", "seed_stddev", "seeds_compared", "accuracy_compared", "reference_accuracy_compared", "p_questions",
    "p_questions_adjusted", "seeds_compared_base", "p_base_questions_adjusted", "training_weight_bytes",
    "served_validation_loss", "task", "task_data",
    "covered_share", "largest_empty_share", "many_empty", "scored_split", "scored_sha256", "prompt", "num_fewshot",
    "special_tokens", "unlike_reference", "unlike_base", "reused_from",
    "source", "trained_under", "adapter_sha256", "kept_layers",
    *ENDING_COLUMNS,
)  # fmt: skip
"""Columns of summary.csv; numbers unrounded, an absent one empty, seeds separated by blanks.

``p_reference…`` and ``p_base…`` test recipes over seeds and questions, and are empty with fewer than two seeds;
``p_questions…`` and ``p_base_questions_adjusted`` compare two adapters of one seed, over questions only.
Differences are over ``seeds_compared…``: where these are not ``seeds``, ``accuracy_compared`` is over them.
``many_empty`` and ``unlike_…`` are ``true`` or empty; ``reused_from`` is empty in rows of several runs.
``cut_off_…`` are of answers that max_gen_toks ended, ``unformatted_…`` of those without an answer in the task's format;
``unfinished_share`` is that of wrong answers that were cut off or empty.
``source``, ``trained_under`` and ``adapter_sha256`` are of adapters that other software trained; ``source`` of a
foreign trainer is its command, and ``recipe`` its name. ``kept_layers`` stay in bf16, separated by blanks.
``accuracy`` is strict and ``flexible_accuracy`` flexible exact match; where they are not, columns ``metric`` and
``second_metric`` follow, and ``flexible_accuracy`` is empty where a task has one metric."""


def to_csv(summary: Summary) -> str:
    """Return CSV: one line per row of the summary, then one per run where there are several seeds."""
    named = {} if summary.metric == STRICT else {"metric": summary.metric, "second_metric": summary.second_metric}
    task = {"task": summary.task, "task_data": inert(summary.task_data), **named}
    return to_csv_text((*CSV_COLUMNS, *named), (task | row_cells(row) for row in summary.all_rows()))


def row_cells(row: Row) -> dict[str, object]:
    """Return the cells of a row, but for those of its task."""
    cells: dict[str, object] = {
        "key": row.key, "title": inert(row.title), "recipe": row.recipe, "seed": row.seed,
        "seeds_scored": row.seeds_scored, "state": row.state, "reason": inert(row.reason), "seeds": numbers(row.seeds),
        "many_empty": flag(row.many_empty), "unlike_reference": flag(row.unlike_reference),
        "unlike_base": flag(row.unlike_base), "reused_from": row.reused_from,
    }  # fmt: skip
    if (scored := row.scored) is not None:
        cells |= {
            "task_data": inert(scored.source), "scored_split": scored.split, "scored_sha256": scored.sha256,
            "prompt": scored.prompt, "num_fewshot": scored.num_fewshot,
            "special_tokens": inert(" ".join(scored.special_tokens)),
        }  # fmt: skip
    if row.foreign is not None:
        cells |= row.foreign.model_dump() | {"source": inert(row.foreign.source)}
    if row.score is not None:
        cells |= row.score.model_dump(exclude={"parallel_evaluations"})
    if row.training is not None:
        cells |= row.training.model_dump() | {"kept_layers": " ".join(row.training.kept_layers)}
    if (found := row.versus_reference) is not None:
        cells |= {
            "delta_reference": found.delta, "delta_reference_stderr": found.stderr, "delta_reference_low": found.low,
            "delta_reference_high": found.high, "p_reference": found.p_value, "p_reference_adjusted": found.p_adjusted,
            "seeds_compared": numbers(found.seeds), "accuracy_compared": found.accuracy,
            "reference_accuracy_compared": found.other_accuracy, "p_questions": found.p_questions,
            "p_questions_adjusted": found.p_questions_adjusted,
        }  # fmt: skip
    if (found := row.versus_base) is not None:
        cells |= {
            "delta_base": found.delta, "delta_base_low": found.low, "delta_base_high": found.high,
            "p_base_adjusted": found.p_adjusted, "seeds_compared_base": numbers(found.seeds),
            "p_base_questions_adjusted": found.p_questions_adjusted,
        }  # fmt: skip
    return cells


def to_markdown(summary: Summary, pictures: Mapping[str, str]) -> str:
    """Return the report as Markdown.

    Args:
        summary: What to write.
        pictures: Charts by caption, as paths relative to the file.
    """
    parts = [
        f"# {_cell(summary.name)}",
        _cell(summary.description),
        f"**{_cell(summary.headline)}**",
        _cell(summary.evaluated_on),
        _table(_main_header(summary, summary.rows), [_main_cells(row, summary) for row in summary.rows]),
        "\n\n".join(_cell(note) for note in summary.footnotes),
        _incomplete_rows(summary),
        *(f"![{_cell(caption)}]({path})" for caption, path in pictures.items()),
        _matrix(summary),
        _further(summary),
        _merged(summary),
        "## More figures",
        _cell(summary.evaluated_on),
        _details(summary, summary.rows),
    ]
    if summary.runs:
        parts += [
            "## Each run",
            f"{_cell(summary.evaluated_on)} Each row is one seed: its interval covers questions only.",
            _table(_main_header(summary, summary.runs), [_main_cells(row, summary) for row in summary.runs]),
            _cell(summary.evaluated_on),
            _details(summary, summary.runs),
        ]
    parts += [
        "## Notes",
        "\n".join(f"- {_cell(note)}" for note in summary.notes),
        "## Provenance",
        _provenance(summary),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _matrix(summary: Summary) -> str:
    """Return the section on ways of serving; empty where there is one way only."""
    if summary.served is None:
        return ""
    parts = [
        f"## {MATRIX_TITLE}",
        "\n".join(f"- {_cell(sentence)}" for sentence in summary.served.sentences),
        *(
            text
            for table in matrix_tables(summary)
            for text in (f"### {_cell(table.title)}", _cell(table.caption), _text_table(table))
        ),
        "\n\n".join(_cell(note) for note in summary.served.footnotes),
    ]
    return "\n\n".join(part for part in parts if part)


def _merged(summary: Summary) -> str:
    """Return the section on merged adapters; empty where none was to be merged."""
    if summary.merged is None:
        return ""
    table = merged_table(summary.merged)
    parts = [
        f"## {MERGED_TITLE}",
        _cell(summary.merged.sentence),
        f"### {_cell(table.title)}",
        _cell(table.caption),
        _text_table(table),
        "\n\n".join(_cell(note) for note in summary.merged.footnotes),
    ]
    return "\n\n".join(part for part in parts if part)


def _further(summary: Summary) -> str:
    """Return the section on further tasks; empty where there are none."""
    if not summary.further:
        return ""
    parts = [f"## {FURTHER_TITLE}"]
    for further in summary.further:
        table = further_table(summary, further)
        notes = [_cell(note) for note in (*further.footnotes, *further.notes)]
        parts += [f"### {_cell(table.title)}", _cell(table.caption), _text_table(table), *notes]
    return "\n\n".join(parts)


def _text_table(table: TextTable) -> str:
    return _table([_cell(name) for name in table.header], [[_cell(text) for text in row] for row in table.rows])


def _main_header(summary: Summary, rows: Sequence[Row]) -> tuple[str, ...]:
    tested = any(row.versus_reference and row.versus_reference.p_adjusted is not None for row in rows)
    return (ROW_TITLE, *(_main_title(column, summary, rows, tested=tested) for column in MAIN_COLUMNS))


def _main_title(column: MainColumn, summary: Summary, rows: Sequence[Row], *, tested: bool) -> str:
    title = _cell(column.header(summary, rows))
    return f"{title} (adjusted p)" if tested and column.kind is Kind.DIFFERENCE else title


def _main_cells(row: Row, summary: Summary) -> tuple[str, ...]:
    return (_cell(formats.title(row, summary)), *(_main_cell(column, row, summary) for column in MAIN_COLUMNS))


def _main_cell(column: MainColumn, row: Row, summary: Summary) -> str:
    text = column.cell(row, summary)
    return _cell(text) if column.kind is Kind.TEXT else text.replace("*", "\\*")


def _details(summary: Summary, rows: Sequence[Row]) -> str:
    header, cells = detail_table(summary, rows)
    # The other names are ours; one of them has underscores, which are shown as they are.
    escaped = (_cell(name) if name == summary.second_metric else name for name in header)
    return _table(
        (ROW_TITLE, *escaped),
        [(_cell(formats.title(row, summary)), *map(_cell, texts)) for row, texts in zip(rows, cells, strict=True)],
    )


def detail_table(summary: Summary, rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return header and cells, a tuple for each row, of the second table; a column without any figure is left out."""
    header, cells = _detail_header(summary, rows), [_detail_cells(row) for row in rows]
    kept = [index for index in range(len(header)) if any(texts[index] != formats.ABSENT for texts in cells)]
    return tuple(header[index] for index in kept), tuple(tuple(texts[index] for index in kept) for texts in cells)


def _detail_header(summary: Summary, rows: Sequence[Row]) -> tuple[str, ...]:
    second = "flexible accuracy" if summary.second_metric == FLEXIBLE else summary.second_metric or "second metric"
    tested = any(row.versus_base and row.versus_base.p_adjusted is not None for row in rows)
    return (
        second, "questions", "SD between seeds", "empty answers", "cut off at max_gen_toks",
        "no answer in the format", "tokens per answer",
        f"Δ base{' (adjusted p)' if tested else ''}", "train loss", "validation loss (under the recipe)",
        "validation loss (as served, bf16)", "block weights covered", "steps", "eval time", "resumed at step",
    )  # fmt: skip


def _detail_cells(row: Row) -> tuple[str, ...]:
    score, training = row.score, row.training
    return (
        formats.fraction(score.flexible_accuracy if score else None),
        f"{score.samples:,}" if score else formats.ABSENT,
        formats.fraction(score.seed_stddev if score else None),
        formats.empty_answers(row),
        *_endings(score),
        formats.delta_to_base(row),
        formats.loss(training.final_train_loss if training else None),
        formats.loss(training.last_validation_loss if training else None),
        formats.loss(training.served_validation_loss if training else None),
        formats.share(training.covered_share if training else None),
        f"{training.steps:,}" if training and training.steps is not None else formats.ABSENT,
        formats.duration(score.eval_seconds if score else None),
        str(training.resumed_from_step) if training and training.resumed_from_step else formats.ABSENT,
    )


def _endings(score: Score | None) -> tuple[str, str, str]:
    if score is None:
        return (formats.ABSENT,) * 3
    return (
        formats.count_of(score.cut_off_answers, score.cut_off_share),
        formats.count_of(score.unformatted_answers, score.unformatted_share),
        formats.ABSENT if score.tokens_per_answer is None else f"{score.tokens_per_answer:,.1f}",
    )


def _incomplete_rows(summary: Summary) -> str:
    return "\n".join(
        f"- {_cell(row.title)} {row.state}: {_cell(row.reason)}" for row in summary.rows if row.state != "succeeded"
    )


def _provenance(summary: Summary) -> str:
    lines = [
        f"- Sweep: `{summary.name}`, spec hash `{summary.spec_hash}`, "
        + (f"{summary.date:%Y-%m-%d %H:%M} UTC" if summary.date else "nothing finished yet"),
        f"- Model: {_cell(summary.model)}" + (f" ({_cell(summary.model_source)})" if summary.model_source else ""),
        f"- Data: {_cell(summary.data)}",
        *(f"- Scored with task {_cell(summary.task)}: {_cell(text)}" for text in scored_texts(summary)),
        f"- Special tokens: {_cell(summary.special_tokens)}" if summary.special_tokens else "",
        *(f"- Split {split.split}: {split.records:,} records, sha256 `{split.sha256}`" for split in summary.splits),
        *(f"- Hardware: {_cell(machine.description)}" for machine in summary.machines),
        "- Versions: " + ", ".join(f"{_cell(name)} {_cell(found)}" for name, found in summary.versions.items()),
    ]
    return "\n".join(line for line in lines if line)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"| {' | '.join(':---' for _ in header)} |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _cell(text: str) -> str:
    """Escape text for one cell: Markdown shows it literally, without markup, links or line breaks."""
    line = " ".join(text.split())
    for character in "\\`*_[]<>|#":
        line = line.replace(character, f"\\{character}")
    return line
