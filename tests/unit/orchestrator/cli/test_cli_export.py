"""``surogate-bench export-base``: what is refused before anything starts, and what is shown."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeps import small_document

from surogate_bench_orchestrator.cli import app as cli

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, **changes: Any) -> tuple[int, str, str]:
        sweep = tmp_path / "sweep.yaml"
        sweep.write_text(yaml.safe_dump(small_document(recipes=["bf16", "fp8", "qfp4"], **changes)))
        monkeypatch.setattr(sys, "argv", ["surogate-bench", "export-base", str(sweep), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fp9"], "recipe: the sweep has no such recipe (got 'fp9'). It has bf16, fp8, qfp4."),
        (["qbnb"], "It has bf16, fp8, qfp4."),
        (["fp8"], "so its base is the published model (got 'fp8'). Serve the published model, or write a copy"),
        (["qfp4", "--output", "taken"], "output: is not empty, and nothing is overwritten"),
        (["qfp4", "--output", "taken/file"], "output: is a file, not a folder"),
        (["qfp4", "--output", "taken/file/out"], "output: cannot be a folder"),
        (["qfp4", "--store", "s4://bucket"], "store: has an unknown scheme"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_starts(
    call: Call, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert expected in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep.yaml", "taken"]


def test_an_unknown_format_names_the_known_ones(call: Call) -> None:
    code, _, err = call("qfp4", "--format", "gguf")
    assert code == 2
    assert "'native', 'bf16'" in err


def test_a_model_folder_without_a_model_is_refused_before_anything_starts(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = call("qfp4", model={"path": str(tmp_path / "empty")})
    assert code == 2
    assert "is not a model folder" in err
    assert not (tmp_path / ".surogate-bench").exists()


@pytest.mark.e2e
def test_an_export_is_written_and_described_and_what_the_trainer_refuses_is_bad_input(
    call: Call, tmp_path: Path
) -> None:
    code, out, err = call("qfp4", "--json")
    assert code == 0
    described = json.loads(out)
    assert described["output"] == str(tmp_path / "small-qfp4-native")
    assert described["quantization"] == "compressed-tensors nvfp4-pack-quantized"
    phases = [line.removesuffix(" …") for line in err.splitlines()]
    assert phases == [phase for phase in ("checking", "loading", "writing") if phase in phases], "some may be too short"
    assert phases[-1] == "writing"
    code, _, err = call("bf16", "--format", "bf16", model={"path": described["output"]})
    assert code == 2
    assert "quantized already (compressed-tensors)" in err
    assert "Log: " in err
    code, out, _ = call("fp8", "--format", "bf16", "--output", "copy")
    assert code == 0
    assert f"Wrote {tmp_path / 'copy'}: tiny-qwen3-en as recipe fp8 stores it, in bf16" in out
    assert "All weights equal those of training bit for bit." in out
    assert "A server multiplies in bf16, where training quantizes both operands to fp8-hybrid." in out
