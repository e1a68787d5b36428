"""What the documents say can be followed: links lead somewhere, and commands are those that there are."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from surogate_bench_orchestrator.cli import app as cli

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("charts/*.md"), *ROOT.glob("configs/*.md"))
    if path.name != "CHANGELOG.md"
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"```(?:sh|bash)\n(.*?)```", re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")


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
