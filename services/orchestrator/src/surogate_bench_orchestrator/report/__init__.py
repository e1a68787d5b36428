"""The report of a sweep: tables, charts and a self-contained page, built from the object store alone."""

from surogate_bench_orchestrator.report.build import build_report
from surogate_bench_orchestrator.report.model.summary import Summary
from surogate_bench_orchestrator.report.tables.terminal import render_terminal_table
from surogate_bench_orchestrator.report.writer import write_report

__all__ = ["Summary", "build_report", "render_terminal_table", "write_report"]
