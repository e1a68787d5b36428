"""The vocabulary: words that were retired in favour of the field's standard terms do not come back."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PLACES = (
    *sorted(f"services/{folder.name}" for folder in (ROOT / "services").iterdir() if folder.is_dir()),
    *("charts", "configs", "docs", "images", ".ci", "Makefile", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *sorted(f"tests/{folder.name}" for folder in (ROOT / "tests").iterdir() if folder.is_dir()),
)
"""Files and folders that are checked."""

SUFFIXES = {".html", ".j2", ".md", ".py", ".sh", ".toml", ".tpl", ".txt", ".yaml", ".yml"}
NAMES = {"Dockerfile", "Makefile", "run"}
"""Files without a suffix."""

RETIRED = {
    "bear": "wait for, support",
    "board": "table, status",
    "judged": "evaluated, checked",
    "keeper": "reconciler",
    "look": "observe, read, list, find",
    "looked": "observed, read, searched",
    "looks": "observes, reads, appears",
    "sees": "observes, reads, attends to",
    "seen": "observed, read, known",
    "standing": "status, condition, snapshot",
    "surroundings": "environment, platform",
    "tell": "return, report, describe",
    "tells": "returns, reports, describes",
    "told": "reported, recorded",
    "trouble": "failure, condition, reason and message",
    "troubles": "failures, conditions",
    "turn": "pass, reconcile; convert",
    "turns": "passes; converts",
    "verdict": "result, conclusion",
    "verdicts": "results, conclusions",
    "wanted": "desired, requested",
    "whom": "(name the reader or the recipient)",
    "words": "message, text",
}
"""What to write instead, by word. A word counts alone, in snake_case and in CamelCase."""

USUAL_IN_TESTS = {"look", "looked", "looks", "seen", "standing", "words"}
"""Retired words that tests may use: texts are compared word by word, and observations are collected."""

PHRASES = {
    r"(?<![\w./])a training (on|of|that|takes|has)\b": "a training run, or training",
    r"(?<![\w./])trainings(?![\w.:=(`])": "training runs",
    r"\banew\b": "again, from the beginning",
    r"\bappears? more often\b": "appears more than once",
    r"\bbrings whole modules\b": "contains",
    r"\bbytes an? (byte|core|line|parameter|tensor|token|weight)\b": "bytes per",
    r"\bcut short\b": "truncated, shortened",
    r"\bforbids to\b": "disables, does not allow",
    r"\bin all of them\b": "in total",
    r"\bjourneys\b": "call paths",
    r"\bleave \w+ out of it\b": "remove its",
    r"\b(made|trained) alike\b": "computed in the same way",
    r"\bnobody\b": "(name the actor, or write what is not done)",
    r"\bright answers\b": "correct answers",
    r"\btruth values?\b": "Boolean",
    r"\bwaits? for room\b": "wait for resources",
    r"\bwithout blanks?\b|\bor blanks?\b|\bby blanks\b": "spaces",
    r"see :class:": "@override",
    r"leave word|leaves word|left word": "record, notify",
    r"look(s|ed)? back": "read again, list",
    r"others' too": "(name them)",
    r"what was said of": "the record of, the message of",
}
"""The same for phrases, as regular expressions over a whole text in lower case."""

ALLOWED: dict[tuple[str, str], str] = {
    ("tell", "services/orchestrator/src/surogate_bench_orchestrator/controller/http_server.py"): "method of a file",
    ("turns", "CHANGELOG.md"): "data.loss_on: all-assistant-turns, as in TRL and in papers on chat models",
    ("turns", "charts/files/recipesweeps.crd.yaml"): "the same",
    ("turns", "configs"): "the same",
    ("turns", "docs/data.md"): "the same",
    ("turns", "services/common/src/surogate_bench/specs/data.py"): "the same",
    ("turns", "services/trainer/src/surogate_bench_trainer/data/chat/templates.py"): "the same",
    ("words", "services/trainer/src/surogate_bench_trainer/embedded"): "words of a natural language",
}
"""Uses that are the standard term: word or phrase, and the file or folder that may contain it, with the reason."""

IDIOMS = re.compile(r"\b[Ll]ook(s|ed)?( \S+){0,2} up\b|\b[Tt]urn(s|ed)?( \S+){0,2} (on|off)\b")
"""Phrasal verbs that are standard English for what they name; they are skipped."""

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def files(place: str) -> list[Path]:
    path = ROOT / place
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    return [file for file in found if file.is_file() and _is_checked(file)]


def _is_checked(file: Path) -> bool:
    return file != Path(__file__) and (file.suffix in SUFFIXES or file.name in NAMES)


def uses(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of every retired word and phrase in a text."""
    for number, line in enumerate(text.splitlines(), start=1):
        yield from ((number, word) for word in map(str.lower, _WORD.findall(IDIOMS.sub("", line))) if word in RETIRED)
    for phrase in PHRASES:
        for match in re.finditer(phrase.replace(" ", r"\s+"), text.lower()):
            yield text.count("\n", 0, match.start()) + 1, phrase


def allowances(file: Path, name: str) -> list[tuple[str, str]]:
    path = file.relative_to(ROOT)
    return [key for key in ALLOWED if key[0] == name and path.is_relative_to(key[1])]


@pytest.mark.parametrize("place", PLACES)
def test_no_retired_word_is_used(place: str) -> None:
    instead = RETIRED | PHRASES
    findings = [
        f"{file.relative_to(ROOT)}:{line}: {name!r}; write: {instead[name]}"
        for file in files(place)
        for line, name in uses(file.read_text(encoding="utf-8"))
        if not allowances(file, name) and not (place.startswith("tests/") and name in USUAL_IN_TESTS)
    ]
    assert not findings, "\n".join(findings)


def test_every_allowance_in_a_checked_place_is_needed() -> None:
    used = {
        key
        for place in PLACES
        for file in files(place)
        for _, name in uses(file.read_text(encoding="utf-8"))
        for key in allowances(file, name)
    }
    checked = {key for key in ALLOWED if any(Path(key[1]).is_relative_to(place) for place in PLACES)}
    assert used == checked


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def write_wanted(): ...", ["wanted"]),
        ("class SweepStanding(Base): ...", ["standing"]),
        ("_TOLD = 1", ["told"]),
        ('"""See :class:`Runtime`."""', ["see :class:"]),
        ("and what was said\nof it", ["what was said of"]),
        ("Turn it off, and look the name up.", []),
        ("outstanding returns, a dashboard, an overlook", []),
    ],
)
def test_words_are_found_in_names_and_across_lines_but_not_inside_other_words(text: str, names: list[str]) -> None:
    assert [name for _, name in uses(text)] == names
