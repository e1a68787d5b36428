"""What the documents say can be followed: links lead somewhere, and commands are those that there are."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from surogate_bench_orchestrator.cli import app as cli
from surogate_bench_orchestrator.controller.status import events

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("charts/*.md"), *ROOT.glob("configs/*.md"))
    if path.name != "CHANGELOG.md"
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"```(?:sh|bash)\n(.*?)```", re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
SERVICES = "|".join(path.name for path in sorted((ROOT / "services").iterdir()) if path.is_dir())
SERVICE_PATH = re.compile(rf"({SERVICES})/([\w/]*(?:\.py)?)(?::([\w.]+))?")
"""A path in a service's package, and maybe what it defines: ``common/specs/sweep.py:RecipeSweep.spec_hash``."""


def anchors(document: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def commands(document: Path) -> list[str]:
    """Shell commands in fenced blocks and in code spans."""
    text = document.read_text(encoding="utf-8")
    blocks = [line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    spans = CODE.findall(FENCE.sub("", text))
    return [line.partition(" #")[0].strip() for line in (*blocks, *spans)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        linked = (document.parent / name).resolve() if name else document
        assert linked.exists(), f"{document.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_in_the_documents_exist(document: Path) -> None:
    targets = set(re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    known = {name for line in targets for name in line.split()}
    for command in commands(document):
        if command.startswith("make "):
            words = [word for word in shlex.split(command)[1:] if "=" not in word and "…" not in word]
            assert set(words) <= known, f"{document.name}: {command}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_the_documents_have_these_options(document: Path) -> None:
    group: Any = typer.main.get_command(cli.app)
    for command in commands(document):
        program, _, rest = command.removeprefix(".venv/bin/").partition(" ")
        if program != "surogate-bench" or not rest or "|" in rest.partition(" ")[0]:
            continue
        name, *words = shlex.split(rest.partition(" > ")[0])
        if name.startswith("--") or name == "…":
            continue
        assert name in group.commands, f"{document.name}: {command}"
        known = {option for parameter in group.commands[name].params for option in parameter.opts}
        given = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert given <= known | {"--help"}, f"{document.name}: {command}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_in_code_spans_exist(document: Path) -> None:
    for span in CODE.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        path = span.split(" ")[0].partition(":")[0]
        if re.fullmatch(r"(services|charts|images|configs|tests|docs)/[\w./-]+\.(py|yaml|yml|md|txt|sh)", path):
            assert (ROOT / path).exists(), f"{document.name} names {path}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_that_the_documents_name_is_where_they_say(document: Path) -> None:
    for span in CODE.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        named = SERVICE_PATH.fullmatch(span)
        if named is None:
            continue
        service, path, definition = named.groups()
        (package,) = (each for each in (ROOT / "services" / service / "src").iterdir() if each.name.isidentifier())
        assert (package / path).exists(), f"{document.name} names {span}"
        if definition:
            source = ast.parse((package / path).read_text(encoding="utf-8"))
            assert definition in set(definitions(source)), f"{document.name} names {span}"


def test_messages_that_troubleshooting_explains_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    tables = text.split("| Message | Cause | Remedy |\n|---|---|---|\n")[1:]
    messages = [line.split("|")[1] for table in tables for line in table.partition("\n\n")[0].splitlines()]
    assert len(messages) > 30
    known = "\n".join(
        text for path in (ROOT / "services").rglob("*.py") for text in texts(ast.parse(path.read_text("utf-8")))
    )
    for message in messages:
        for part in re.split(r"…|NAME", message):
            assert part.strip(" :") in known, f"troubleshooting.md explains {message.strip()!r}"


def test_troubleshooting_names_every_reason_of_a_warning() -> None:
    document = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in str(events.__doc__).splitlines() if "| Warning |" in line]
    reasons = [reason.strip() for row in rows for reason in row[1].split(",")]
    assert "StoreLocked" in reasons
    assert not [reason for reason in reasons if f"`{reason}`" not in document]


def texts(source: ast.AST) -> Iterator[str]:
    """Texts of a module, where a value takes the place of ``…``."""
    for node in ast.walk(source):
        if isinstance(node, ast.JoinedStr):
            yield "…".join(part.value for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def definitions(source: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[str]:
    """Names of a module's functions, classes, methods, constants and fields, a class's with its name before."""
    for node in source.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from definitions(node, f"{prefix}{node.name}.")
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))
