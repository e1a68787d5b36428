"""Write a report into the object store."""

from surogate_bench.contract import SUMMARY_FILE
from surogate_bench.layout import SweepLayout
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.report.build import Report
from surogate_bench_orchestrator.report.tables.csv.further import to_tasks_csv
from surogate_bench_orchestrator.report.tables.csv.matrix import to_matrix_csv
from surogate_bench_orchestrator.report.tables.csv.merged import to_merged_csv
from surogate_bench_orchestrator.report.tables.csv.summary import to_csv
from surogate_bench_orchestrator.report.tables.markdown import to_markdown

PAGE_FILE = "report.html"


def write_report(store: ObjectStore, report: Report, *, force: bool = False) -> None:
    """Write summary.json, summary.csv, summary.md, sweep.yaml, report.html and charts/ under the sweep's report prefix.

    Where the base is served in several ways, matrix.csv has the accuracies on each of them; merged.csv has those of
    merged adapters, tasks.csv those of further tasks. The same summary gives the same bytes. summary.json is written
    last: if it is the same already, the report is complete and nothing is written.

    Args:
        store: Where to.
        report: From :func:`build_report`.
        force: Write even where the report is complete.

    Raises:
        TransientError: the store is unavailable; calling again is safe.
        PermanentError: the store refuses.
    """
    sweep, summary = report.sweep, report.summary
    layout = SweepLayout(sweep.name, sweep.spec_hash)
    summary_key = f"{layout.report}/{SUMMARY_FILE}"
    document = f"{summary.model_dump_json(indent=2)}\n".encode()
    if not force and store.get(summary_key) == document:
        return
    # Matplotlib and Jinja2 take a second to import, which no other command should wait for.
    from surogate_bench_orchestrator.report.charts.draw import draw_charts  # noqa: PLC0415 - see above
    from surogate_bench_orchestrator.report.page import render_page, sweep_yaml  # noqa: PLC0415 - see above

    charts = draw_charts(summary, report.records, sweep)
    for chart in charts:
        store.put(f"{layout.report}/charts/{chart.name}.png", chart.png)
        store.put(f"{layout.report}/charts/{chart.name}.svg", chart.svg)
    pictures = {chart.caption: f"charts/{chart.name}.png" for chart in charts}
    store.put(f"{layout.report}/summary.csv", to_csv(summary).encode())
    if summary.served is not None:
        store.put(f"{layout.report}/matrix.csv", to_matrix_csv(summary.served).encode())
    if summary.merged is not None:
        store.put(f"{layout.report}/merged.csv", to_merged_csv(summary.merged).encode())
    if summary.further:
        store.put(f"{layout.report}/tasks.csv", to_tasks_csv(summary).encode())
    store.put(f"{layout.report}/summary.md", to_markdown(summary, pictures).encode())
    store.put(f"{layout.report}/sweep.yaml", sweep_yaml(sweep).encode())
    store.put(f"{layout.report}/{PAGE_FILE}", render_page(summary, charts, sweep).encode())
    store.put(summary_key, document)
