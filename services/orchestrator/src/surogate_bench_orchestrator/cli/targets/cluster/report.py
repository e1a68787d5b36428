"""Fetch the report of a sweep from a controller, and show it."""

import io
import tarfile
from pathlib import Path, PurePosixPath

from pydantic import ValidationError
from rich.console import Console

from surogate_bench.contract import SUMMARY_FILE
from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.files import write_atomically
from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.cli.targets.cluster.cluster_api import ClusterApi
from surogate_bench_orchestrator.cli.terminal.consoles import print_line
from surogate_bench_orchestrator.report import Summary, render_terminal_table


def default_folder(sweep: RecipeSweep) -> Path:
    """Return the folder for a sweep's report unless the user chooses another."""
    return Path("results") / f"{sweep.name}-{sweep.spec_hash}" / "report"


def show_report(api: ClusterApi, sweep: str, folder: Path, output: Console) -> None:
    """Fetch a report into a folder, and print its table and location.

    Raises:
        TransientError: no controller is available now.
        PermanentError: there is no report, or it is damaged.
    """
    summary = fetch_report(api, sweep, folder)
    output.print(render_terminal_table(summary))
    print_line(output, f"Report: {folder / 'report.html'}")


def fetch_report(api: ClusterApi, sweep: str, folder: Path) -> Summary:
    """Fetch a report into a folder; summary.json is written last.

    Args:
        api: The cluster.
        sweep: Its name.
        folder: Created if it does not exist.

    Raises:
        TransientError: no controller is available now.
        PermanentError: there is no report, or it is damaged.
    """
    files = unpack(_download(api, f"/reports/{sweep}.tar"))
    if SUMMARY_FILE not in files:
        raise PermanentError(f"the report of sweep {sweep} has no {SUMMARY_FILE}")
    try:
        summary = Summary.model_validate_json(files[SUMMARY_FILE])
    except ValidationError as error:
        raise PermanentError(
            f"the report of sweep {sweep} was written by another version of surogate-bench: install the same version "
            "here and in the cluster"
        ) from error
    for name in sorted(files, key=lambda each: each == SUMMARY_FILE):
        write_atomically(folder / name, files[name])
    return summary


def _download(api: ClusterApi, path: str) -> bytes:
    """Send the request to the controllers that are ready, one after another, until one answers."""
    last: TransientError | None = None
    for pod in api.controllers():
        if not pod.ready:
            continue
        try:
            return api.download(pod, path)
        except TransientError as error:
            last = error
    raise last or TransientError(f"no controller in namespace {api.namespace} is ready")


def unpack(archive: bytes) -> dict[str, bytes]:
    """Return the regular files of a tar archive by relative path, unpacked in memory.

    Raises:
        PermanentError: it is damaged, or names a file outside of itself.
    """
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:*") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                if content is not None:
                    files[_inside(member.name)] = content.read()
    except tarfile.TarError as error:
        raise PermanentError(f"the report is not a tar archive: {error}") from error
    return files


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise PermanentError(f"the report names a file outside of itself: {name!r}")
    return str(path)
