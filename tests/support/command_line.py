"""The command line, called in this process."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from sweeps import fitting_document

from surogate_bench_orchestrator.cli import app as cli


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


class CommandLine:
    """Calls ``surogate-bench`` and returns its exit code, standard output and standard error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Result:
        """Call it with arguments, which are converted to strings."""
        self._monkeypatch.setattr(sys, "argv", ["surogate-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = self._capsys.readouterr()
        return Result(int(ended.value.code or 0), output.out, output.err)


def write_sweep(path: Path, **changes: Any) -> Path:
    """Write the file of a small sweep; see :func:`sweeps.fitting_document`."""
    path.write_text(yaml.safe_dump(fitting_document(**changes), allow_unicode=True), encoding="utf-8")
    return path
