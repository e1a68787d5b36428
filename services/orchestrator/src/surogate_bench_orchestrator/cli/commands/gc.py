"""``surogate-bench gc``: list or remove data that no sweep needs any more."""

import json

from rich.box import SIMPLE_HEAD
from rich.table import Table

from surogate_bench.errors import StoreAwayError, StoreRefusedError
from surogate_bench.store.errors import as_bad_input
from surogate_bench.store.object_store import open_store
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles, print_line
from surogate_bench_orchestrator.report.text.formats import size
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.garbage import Garbage, list_garbage, remove

_COLUMNS = ("sweep", "version", "last used", "objects", "size", "reason", "kept")


def collect_garbage(location: str, *, delete: bool, superseded: bool, as_json: bool, consoles: Consoles) -> None:
    """List data that can be removed, and remove it if requested.

    Raises:
        ConfigError: the store cannot be used or reached.
        StoreRefusedError: it refuses to delete.
        StoreAwayError: it became unavailable.
    """
    store, clock = open_store(location, create=False), SystemClock()
    try:
        found = list_garbage(store, clock)
    except (StoreAwayError, StoreRefusedError) as error:
        raise as_bad_input(error, store.url) from error
    requested = [each for each in found if superseded or not each.complete]
    removed = remove(store, requested, clock) if delete else ()
    output = consoles.output
    if as_json:
        output.print_json(
            json.dumps({"store": store.url, "deleted": delete, "found": [_as_json(each) for each in found]})
        )
        return
    if not found:
        print_line(output, f"Nothing in {store.url} can be removed.")
        return
    output.print(_table(found))
    total = size(sum(each.size for each in (removed if delete else requested)))
    print_line(output, f"Removed {total}." if delete else f"{total} in all. Nothing was removed; --delete removes it.")
    if len(requested) < len(found):
        print_line(output, "Superseded versions with a report are removed with --delete --superseded only.")


def _table(found: tuple[Garbage, ...]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name)
    for each in found:
        table.add_row(
            each.sweep,
            each.spec_hash,
            f"{each.last_used:%Y-%m-%d %H:%M}",
            f"{len(each.objects):,}",
            size(each.size),
            _why(each),
            f"{len(each.kept_stages)} stages in use" if each.kept_stages else "",
        )
    return table


def _why(garbage: Garbage) -> str:
    if garbage.busy:
        return f"kept now: in use by {garbage.busy}"
    if garbage.complete:
        return "superseded by a later version; has a report"
    return "superseded by a later version" if garbage.superseded else "checkpoints of finished training runs"


def _as_json(garbage: Garbage) -> dict[str, object]:
    return {
        "sweep": garbage.sweep,
        "spec_hash": garbage.spec_hash,
        "last_used": garbage.last_used.isoformat(),
        "superseded": garbage.superseded,
        "complete": garbage.complete,
        "objects": len(garbage.objects),
        "bytes": garbage.size,
        "kept_stages": list(garbage.kept_stages),
        "busy": garbage.busy,
    }
