"""`.ci/run`: what it runs, and that it takes nothing from outside the repository but the one tool it documents."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from waiting import PATIENCE_S

ROOT = Path(__file__).parents[3]
VARIABLE = "SUROGATE_BENCH_CLUSTER_TOOL"
DEFAULT = "../shared/cluster/testcluster"


@dataclass
class Checkout:
    """A copy of the script in a repository whose `make` only writes down what it was asked for."""

    root: Path
    calls: Path

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name != VARIABLE}
        variables = kept | {"PATH": f"{self.root / 'bin'}:{kept['PATH']}"} | environment
        command = ["bash", ".ci/run"]
        return subprocess.run(
            command, cwd=self.root, env=variables, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def tool(self, path: str) -> Path:
        """A program that writes down its arguments."""
        program = (self.root / path).resolve()
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\n[ "$1" = env ] || echo "{program.name} $*" >> "{self.calls}"\n')
        program.chmod(0o755)
        return program


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path / "checkout", tmp_path / "calls")
    made.tool("bin/make")
    (made.root / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", made.root / ".ci" / "run")
    return made


def test_without_a_cluster_tool_the_cluster_tests_are_skipped(checkout: Checkout) -> None:
    done = checkout.run()
    assert (done.returncode, checkout.called()) == (0, ["make check", "make test COVERAGE=1 EXHAUSTIVE=1"])
    assert VARIABLE in done.stderr


def test_the_tool_beside_the_checkout_is_used_unless_it_is_switched_off(checkout: Checkout) -> None:
    checkout.tool(DEFAULT)
    assert checkout.run().returncode == 0
    assert "testcluster up --nodes 2" in checkout.called()
    assert [call for call in checkout.called() if call.startswith("make ")][-1] == "make cluster-test"
    assert checkout.called()[-1] == "testcluster down"
    checkout.calls.unlink()
    assert checkout.run(**{VARIABLE: ""}).returncode == 0
    assert checkout.called() == ["make check", "make test COVERAGE=1 EXHAUSTIVE=1"]


def test_another_tool_is_used_where_the_variable_names_one(checkout: Checkout) -> None:
    checkout.tool(DEFAULT)
    other = checkout.tool("elsewhere/other")
    assert checkout.run(**{VARIABLE: str(other)}).returncode == 0
    assert "other up --nodes 2" in checkout.called()
    assert not [call for call in checkout.called() if call.startswith("testcluster")]


def test_a_tool_that_is_not_there_is_refused_before_anything_runs(checkout: Checkout) -> None:
    for path in ("/nowhere/tool", str(checkout.root)):
        done = checkout.run(**{VARIABLE: path})
        assert (done.returncode, checkout.called()) == (2, [])
        assert VARIABLE in done.stderr
        assert path in done.stderr
