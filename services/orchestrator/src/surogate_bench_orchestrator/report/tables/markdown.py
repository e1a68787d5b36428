"""The report as Markdown."""

from collections.abc import Mapping, Sequence

from surogate_bench_orchestrator.report.model.merged import MERGED_TITLE
from surogate_bench_orchestrator.report.model.served import MATRIX_TITLE
from surogate_bench_orchestrator.report.model.summary import Row, Summary
from surogate_bench_orchestrator.report.tables.detail_table import detail_table
from surogate_bench_orchestrator.report.tables.further import FURTHER_TITLE, further_table
from surogate_bench_orchestrator.report.tables.main_table import MAIN_COLUMNS, ROW_TITLE, Kind, MainColumn
from surogate_bench_orchestrator.report.tables.matrix import matrix_footnotes, matrix_tables
from surogate_bench_orchestrator.report.tables.merged import merged_table
from surogate_bench_orchestrator.report.tables.text_table import TextTable
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.report.text.scored_data import scored_texts


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
        _notes(summary.footnotes),
        _incomplete_rows(summary),
        *(f"![{_cell(caption)}]({path})" for caption, path in pictures.items()),
        _matrix(summary),
        _further(summary),
        _merged(summary),
        "## More figures",
        _cell(summary.evaluated_on),
        _details(summary, summary.rows),
        _notes(summary.detail_footnotes),
    ]
    if summary.runs:
        parts += [
            "## Each run",
            f"{_cell(summary.evaluated_on)} Each row is one seed: its interval covers questions only.",
            _table(_main_header(summary, summary.runs), [_main_cells(row, summary) for row in summary.runs]),
            _cell(summary.evaluated_on),
            _details(summary, summary.runs),
            _notes(summary.run_footnotes),
        ]
    parts += [
        "## Notes",
        "\n".join(f"- {_cell(note)}" for note in summary.notes),
        "## Provenance",
        _provenance(summary),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _notes(footnotes: Sequence[str]) -> str:
    return "\n\n".join(map(_cell, footnotes))


def _matrix(summary: Summary) -> str:
    """Return the section on ways of serving; empty where there is one way only."""
    if summary.served is None:
        return ""
    tables = matrix_tables(summary)
    parts = [
        f"## {MATRIX_TITLE}",
        "\n".join(f"- {_cell(sentence)}" for sentence in summary.served.sentences),
        *(text for table in tables for text in _titled(table, summary.evaluated_on)),
        _notes(matrix_footnotes(summary, tables)),
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
        *_titled(table, summary.evaluated_on),
        _notes(summary.merged.footnotes),
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


def _titled(table: TextTable, evaluated_on: str) -> tuple[str, ...]:
    return (f"### {_cell(table.title)}", _cell(table.caption), _cell(evaluated_on), _text_table(table))


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
