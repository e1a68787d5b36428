"""The adapters that should be served, kept in a file, so that a restarted supervisor serves them again."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from surogate_bench.files import write_atomically
from surogate_bench.layout import SweepLayout

_FILE = "desired-adapters.json"


class DesiredAdapter(BaseModel):
    """An adapter that should be served: its name in vLLM and the store prefix it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    prefix: str


class _Document(BaseModel):
    adapters: dict[str, DesiredAdapter]


def read_desired_adapters(work_dir: Path, layout: SweepLayout) -> dict[str, DesiredAdapter]:
    """Read the adapters by run. Those of another sweep are left out, as is the content of a damaged file."""
    try:
        document = _Document.model_validate_json((work_dir / _FILE).read_bytes())
    except (OSError, ValidationError):
        return {}
    return {run: desired for run, desired in document.adapters.items() if desired.prefix == layout.train(run)}


def write_desired_adapters(work_dir: Path, adapters: dict[str, DesiredAdapter]) -> None:
    """Replace the file."""
    write_atomically(work_dir / _FILE, _Document(adapters=adapters).model_dump_json(indent=2).encode())
