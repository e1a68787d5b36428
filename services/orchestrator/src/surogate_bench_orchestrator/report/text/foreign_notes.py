"""What a reader must know of rows whose adapters other software trained."""

from collections.abc import Sequence

from surogate_bench_orchestrator.report.model.summary import Foreign, Row
from surogate_bench_orchestrator.report.text.formats import PILCROW, listed


def trained_elsewhere(row: Row, foreign: Foreign) -> str:
    """Explain the mark of one row."""
    under = f" under {foreign.trained_under}, as the sweep states" if foreign.trained_under else ""
    if row.is_imported:
        return f"{PILCROW} {row.title}: trained elsewhere{under}; from {foreign.source}."
    return f"{PILCROW} {row.title}: trained by other software{under}: {foreign.source}"


def foreign_note(rows: Sequence[Row]) -> str:
    """State what is not known of imported adapters; empty without any."""
    titles = [row.title for row in rows if row.is_imported]
    if not titles:
        return ""
    return (
        f"{listed(titles)} {'was' if len(titles) == 1 else 'were'} not trained by this sweep: training data, settings "
        "and seed are not known, so there are no training figures, and a difference from another row may have any "
        "cause. It is also not known whether test questions were used in training."
    )


def trainers_note(rows: Sequence[Row]) -> str:
    """State how far adapters of foreign trainers are comparable; empty without any."""
    titles = [row.title for row in rows if row.foreign and not row.is_imported]
    if not titles:
        return ""
    return (
        f"{listed(titles)} {'was' if len(titles) == 1 else 'were'} trained by other software, which received the "
        "data, settings and seeds of this sweep; whether it followed them is not known. Losses, tokens and seconds are "
        "those that it reported, the memory is that of its largest process (not known if it ran in a container), and "
        "the validation loss as served was computed by this sweep."
    )


def unknown_recipe_note(rows: Sequence[Row]) -> str:
    """Name the rows of which it is not known whether they were trained as they are served; empty without any."""
    titles = [row.title for row in rows if row.foreign and row.foreign.trained_under is None]
    if not titles:
        return ""
    return (
        f"The sweep does not state which recipe {listed(titles)} {'was' if len(titles) == 1 else 'were'} trained "
        "under, so it is not known whether serving differs from training."
    )


def single_kinds(rows: Sequence[Row]) -> str:
    """Name what rows are of whose intervals cover no seeds: a seed, an adapter; empty where there is no such row."""
    kinds = {
        "seed": any(len(row.seeds) == 1 for row in rows),
        "adapter": any(row.is_imported and row.score for row in rows),
    }
    return " or ".join(kind for kind, there in kinds.items() if there)
