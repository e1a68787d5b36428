"""What services agree on is written down once."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from surogate_bench import contract
from surogate_bench.contract import Service

SERVICES = Path(__file__).parents[3] / "services"
CONTRACT = Path(contract.__file__)
SHARED = {
    value
    for name, value in vars(contract).items()
    if name.isupper() and isinstance(value, str) and name not in {"DATA_FOLDER", "MODEL_FOLDER", "ADAPTER_FOLDER"}
} | set(contract.STORE_VARIABLES.values())
"""The folders' names are ordinary words, which mean other things elsewhere."""
PORTS = {value for name, value in vars(contract).items() if name.endswith("_PORT")}
_ORCHESTRATOR = "services/orchestrator/src/surogate_bench_orchestrator"
ELSEWHERE = {
    (f"{_ORCHESTRATOR}/controller/status/writer.py", "/status"),  # the subresource of Kubernetes
    (f"{_ORCHESTRATOR}/cli/options.py", "--output"),  # options of other commands
    ("services/trainer/src/surogate_bench_trainer/embedded/pretrain/__main__.py", "--threads"),
}


def literals(file: Path) -> Iterator[ast.Constant]:
    """Constants in code; docstrings and the parts of f-strings are not such."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield node


def test_names_and_ports_that_services_share_are_written_in_the_contract_only() -> None:
    found = [
        (str(file.relative_to(SERVICES.parent)), node.value)
        for file in sorted(SERVICES.glob("*/src/**/*.py"))
        if file != CONTRACT
        for node in literals(file)
        if node.value in (SHARED if isinstance(node.value, str) else PORTS if isinstance(node.value, int) else ())
    ]
    assert [each for each in found if each not in ELSEWHERE] == []


def test_no_environment_variable_of_ours_is_spelled_out_elsewhere() -> None:
    spelled = [
        f"{file.name}:{node.lineno}"
        for file in sorted(SERVICES.glob("*/src/**/*.py"))
        if file != CONTRACT
        for node in literals(file)
        if isinstance(node.value, str) and contract.VARIABLE_PREFIX in node.value
    ]
    assert spelled == []


def test_how_a_command_ended_is_worded_in_the_contract_only() -> None:
    messages = (
        contract.command_exited(1),
        contract.command_killed(9),
        contract.command_overdue(5),
        contract.killed_by(9),
    )
    beginnings = tuple(" ".join(message.split()[:4]) for message in (*messages, contract.COMMAND_ASKS_AGAIN))
    spelled = [
        f"{file.name}:{node.lineno}"
        for file in sorted(SERVICES.glob("*/src/**/*.py"))
        if file != CONTRACT
        for node in literals(file)
        if isinstance(node.value, str) and node.value.startswith(beginnings)
    ]
    assert spelled == []


@pytest.mark.parametrize("service", Service)
def test_every_service_is_a_package_that_can_be_run(service: Service) -> None:
    assert (SERVICES / service.value / "src" / service.module / "__main__.py").is_file()
