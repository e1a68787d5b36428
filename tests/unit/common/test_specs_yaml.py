"""YAML that could be read in two ways, or not at all, is refused with its line and without a traceback."""

import gzip
from pathlib import Path

import pytest

from surogate_bench.errors import ConfigError
from surogate_bench.specs import load_sweep

EMBEDDED = Path(__file__).parents[3] / "configs" / "sweeps" / "embedded.yaml"
TEXT = EMBEDDED.read_text(encoding="utf-8")


def refused(folder: Path, data: str | bytes) -> ConfigError:
    path = folder / "sweep.yaml"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(ConfigError) as caught:
        load_sweep(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    return caught.value


def line_of(text: str, part: str) -> int:
    return text.count("\n", 0, text.rindex(part)) + 1


@pytest.mark.parametrize(
    ("added", "key"),
    [
        ("name: other\n", "name"),
        ("training:\n  max_steps: 3\n", "training"),
        ('"training":\n  max_steps: 3\n', "training"),
        ("extra: {a: 1, b: {c: 1, c: 2}}\n", "extra.b.c"),
        ("extra:\n- x: 1\n- x: 1\n  y: 2\n  y: 3\n", "extra.1.y"),
        ("extra:\n  base: &base {a: 1, a: 2}\n  <<: *base\n", "extra.base.a"),
        ("extra:\n  one: &one {a: 1}\n  <<: *one\n  <<: *one\n", "extra.<<"),
    ],
)
def test_a_key_written_twice_is_named_with_both_lines(tmp_path: Path, added: str, key: str) -> None:
    error = refused(tmp_path, TEXT + added)
    assert f"the key '{key}' is written twice, first in line" in error.problem
    assert (
        f"line {line_of(TEXT + added, key.rpartition('.')[2] + chr(58)) if key != 'training' else ''}" in error.problem
    )


def test_a_key_that_replaces_a_merged_one_is_meant_so(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    anchor = "data: &data\n  builtin: word-problems-ro"
    merged = TEXT.replace("data:\n  builtin: word-problems-ro", anchor)
    lora = "  lora: {<<: {r: 8, alpha: 32, dropout: 0.0}, r: 16}\n"
    merged = merged.replace("  lora: {r: 16, alpha: 32, dropout: 0.0}\n", lora)
    assert lora in merged
    path.write_text(merged, encoding="utf-8")
    assert load_sweep(path) == load_sweep(EMBEDDED)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("a: 2024-02-30", "line 1: a: '2024-02-30' is not a valid date"),
        ("a:\n  b: [1, 2024-13-01]", "line 2: a.b.1: '2024-13-01' is not a valid date"),
        ("seeds: [010]", "line 1: seeds.0: '010' could be read as octal or base 60"),
        ("a: 1:30", "'1:30' could be read as octal or base 60"),
        (f"a: 1{'0' * 5000}", "line 1: a: '1000000000000000000000000000000000000000…' is not a valid int"),
        ("a: " + "[" * 1000 + "]" * 1000, "line 1: nested more than 50 levels deep"),
        ("a: " + "[" * 100_000, "nested more than 50 levels deep"),
        ("\n".join(f"{' ' * n}k:" for n in range(1000)), "line 51: nested more than 50 levels deep"),
        ("a: &a [1, *a]", "line 1: a.1: it contains itself through an alias"),
        ("a: &a {b: {c: *a}}", "contains itself through an alias"),
        (LAUGHS, "its aliases make it more than 100,000 values"),
        ("a: *missing", "line 1: found undefined alias 'missing'"),
        ('a: 1\nb: "\\ud800"', "line 2: b: U+D800 is half of a surrogate pair"),
        ('a: [b, {"x\\udfff": 1}]', "line 1: a.1: U+DFFF is half of a surrogate pair"),
        ("a: 1\nb: x\0y", "line 2: the character U+0000 is not allowed"),
        ("a: 1\nb:\n\t- 1", "line 3: a tab is not allowed here; indent with spaces"),
        ("a: !!python/object/apply:os.system ['true']", "line 1: could not determine a constructor for the tag"),
        ("a: !mine 1", "could not determine a constructor for the tag '!mine'"),
        ("a: !!set {b, c}", "could not determine a constructor for the tag"),
        ("a: !!binary AAAA", "could not determine a constructor for the tag"),
        ("a: !!int x", "line 1: a: 'x' is not a valid int"), ("a: !!bool x", "is not a valid bool"),
        ("a: !!float x", "is not a valid float"), ("a: !!timestamp x", "is not a valid date"),
        ("1: a", "line 1: the key '1' is not text"), ("yes: a", "the key 'yes' is not text"),
        ("[a, b]: c", "line 1: a key must be a single word, not a sequence"),
        ("a: 1\n---\nb: 2", "line 2: expected a single document in the stream but found another document"),
        (TEXT.encode("utf-16"), "it is UTF-16; save it as UTF-8 text"),
        (TEXT.encode("utf-16-le"), "it is UTF-16 or UTF-32"), (TEXT.encode("utf-32"), "UTF-32"),
        ("a: 1\nb: ă".encode("iso8859-2"), "line 2: byte 0xe3 is not UTF-8"),
        (gzip.compress(TEXT.encode(), mtime=0), "it is compressed with gzip"),
        (b"a" * (2**20 + 1), "it is larger than 1 MiB"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, data: str | bytes, expected: str) -> None:
    error = refused(tmp_path, data)
    assert error.field == "sweep file"
    assert error.problem.startswith("is not valid YAML: ")
    assert expected in error.problem


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    assert "is empty" in refused(tmp_path, "# nothing\n").problem


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert load_sweep(path) == load_sweep(EMBEDDED)


@pytest.mark.parametrize("name", ["My José", "a#b", "a%20b", "a?b", "it's", "100%"])
def test_a_sweep_lies_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    path = folder / "my sweep #1.yaml"
    path.write_text(TEXT.replace("builtin: tiny-qwen3-en", "path: 'mo del #?'"), encoding="utf-8")
    assert load_sweep(path).model.path == folder / "mo del #?"


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("builtin: tiny-qwen3-en", "path: ~nosuchuser/model", "model.path"),
        ("builtin: word-problems-ro", "path: ~nosuchuser/data", "data.path"),
        ("task: ro_gsm8k", "tasks_dir: ~nosuchuser/tasks", "evaluation.tasks_dir"),
        ("[bf16, fp8,", "[bf16, ~nosuchuser/fp8.yaml,", "recipes.1"),
        ("builtin: tiny-qwen3-en", 'path: "a\\0b"', "model.path"),
        ("[bf16, fp8,", '[bf16, "a\\0.yaml",', "recipes.1"),
    ],
)
def test_a_path_that_cannot_be_is_refused_by_its_field(tmp_path: Path, old: str, new: str, field: str) -> None:
    assert old in TEXT
    assert refused(tmp_path, TEXT.replace(old, new)).field == field


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    assert " … " in str(refused(tmp_path, TEXT.replace("name: embedded", f"name: {'x' * 5000}")))


def test_the_hash_of_the_shipped_sweep_has_not_changed() -> None:
    assert load_sweep(EMBEDDED).spec_hash == "2ec5cb90ee50"
