"""Whatever is done to a sweep file, `validate` accepts it or reports in one line what is wrong and where."""

import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import CommandLine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SWEEPS = Path(__file__).parents[4] / "configs" / "sweeps"
TEXT, WITH_TASKS = ((SWEEPS / f"{name}.yaml").read_text(encoding="utf-8") for name in ("embedded", "embedded-tasks"))
NAMED = re.compile(r"surogate-bench: [^\n]+: [^\n]+\.( [^\n]+)?\n")

ODD_TEXTS = [
    "", " ", "~", "~nosuchuser/data", "a\0b", "\ud800", "2024-02-30", "1e400", "nan", ".inf", "true", "x" * 5000,
    "a\nb", "/proc/self/mem", "../..", "{question}{0}{", "{question!r:>99999}", "%s", "<<", "*", "\u202e", "no.yaml",
    ".yaml", "\0.yaml",
]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**32, 2**64, 10**400, 0.5, float("nan"), float("inf"), 1e308])
    | st.floats()
    | st.sampled_from(ODD_TEXTS)
    | st.text(max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def validate(data: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "sweep.yaml"
    path.write_bytes(data)
    code, out, err = CommandLine(monkeypatch, capsys)("validate", path)
    assert code in {0, 2}
    if code == 2:
        assert out == ""
        assert NAMED.fullmatch(err), err
    else:
        assert "is valid" in out


def places(document: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """Every container of a document with every key or index in it."""
    found = [] if found is None else found
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(items):
        found.append((document, key))
        if isinstance(value, (dict, list)):
            places(value, found)
    return found


def quiet(**more: Any) -> Any:
    return settings(suppress_health_check=list(HealthCheck), deadline=None, **more)


@pytest.mark.parametrize("text", [TEXT, WITH_TASKS], ids=["embedded", "embedded-tasks"])
@given(data=st.data())
@quiet(max_examples=100)
def test_a_sweep_with_any_other_value_is_valid_or_refused_by_name(
    text: str, data: st.DataObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = yaml.safe_load(text)
    container, key = data.draw(st.sampled_from(places(document)))
    match data.draw(st.sampled_from(["replace", "delete", "rename"])):
        case "replace":
            container[key] = data.draw(VALUES)
        case "delete":
            del container[key]
        case _ if isinstance(container, dict):
            container[data.draw(st.text(max_size=10) | st.integers() | st.none())] = container.pop(key)
    validate(yaml.safe_dump(document).encode("utf-8", "surrogatepass"), tmp_path, monkeypatch, capsys)


@given(seed=st.integers(0, 2**32), mistakes=st.integers(1, 4))
@quiet(max_examples=100)
def test_a_sweep_with_any_typing_mistake_is_valid_or_refused_by_name(
    seed: int, mistakes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, text = random.Random(seed), TEXT
    typings = [
        *"\t\n:-[]{}&*!|>'\"%@`#,?\0\x07\ufeff é0", "&a *a", "<<: ", "!!int ", *TEXT.splitlines(keepends=True),
    ]  # fmt: skip
    for _ in range(mistakes):
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice(typings) + text[at + chance.randrange(2) * chance.randrange(30) :]
    validate(text.encode(), tmp_path, monkeypatch, capsys)


@given(inserted=st.binary(max_size=200), at=st.integers(0, len(TEXT)))
@quiet(max_examples=100)
def test_a_sweep_with_any_bytes_in_it_is_valid_or_refused_by_name(
    inserted: bytes, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = TEXT.encode()
    validate(data[:at] + inserted + data[at:], tmp_path, monkeypatch, capsys)
