"""Write the report of a sweep, in a separate process: charts take memory and CPU time that the controller needs.

``python -m surogate_bench_orchestrator.controller.reports.process`` reads a :class:`ReportRequest` from standard input.
"""

import sys

from pydantic import BaseModel, ConfigDict

from surogate_bench.errors import BenchError, ExitCode
from surogate_bench.processes.service import die_with_parent
from surogate_bench.specs import RecipeSweep
from surogate_bench.store.object_store import open_store
from surogate_bench_orchestrator.domain.observed import Failure


class ReportRequest(BaseModel):
    """Request for a report."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sweep: RecipeSweep
    store: str
    failed: dict[str, Failure]
    """Why runs failed, by run name."""
    skipped: dict[str, Failure]
    """Why runs were skipped, by run name."""


def main() -> int:
    """Write the report; errors go to standard error."""
    die_with_parent()
    request = ReportRequest.model_validate_json(sys.stdin.buffer.read())
    from surogate_bench_orchestrator.report import build_report, write_report  # noqa: PLC0415 - heavy, and only here

    try:
        store = open_store(request.store)
        write_report(store, build_report(store, request.sweep, request.failed, request.skipped))
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
