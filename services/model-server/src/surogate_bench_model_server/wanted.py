"""Which adapters should be served: kept in a file, so that a supervisor that starts again serves them again."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from surogate_bench.files import write_atomically
from surogate_bench.layout import SweepLayout

_FILE = "wanted.json"


class WantedAdapter(BaseModel):
    """An adapter that should be served: its name in vLLM and the store prefix it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    prefix: str


class _Document(BaseModel):
    adapters: dict[str, WantedAdapter]


def read_wanted(work_dir: Path, layout: SweepLayout) -> dict[str, WantedAdapter]:
    """Read what should be served, by run. What belongs to another sweep is left out, as is a damaged file's content."""
    try:
        document = _Document.model_validate_json((work_dir / _FILE).read_bytes())
    except (OSError, ValidationError):
        return {}
    return {run: wanted for run, wanted in document.adapters.items() if wanted.prefix == layout.train(run)}


def write_wanted(work_dir: Path, adapters: dict[str, WantedAdapter]) -> None:
    """Replace the file."""
    write_atomically(work_dir / _FILE, _Document(adapters=adapters).model_dump_json(indent=2).encode())
