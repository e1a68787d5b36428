"""``surogate-bench init`` with options: files, messages and exit codes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import CommandLine

GIVEN = ("--model", "Qwen/Qwen3-0.6B", "--data", "openai/gsm8k", "--yes")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capsys)


def document(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def questions(path: Path, *, header: str = "question,answer", records: int = 40) -> Path:
    lines = [header, *(f"{number} + 1?,#### {number + 1}" for number in range(records))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_file_is_valid_and_the_next_commands_are_named(call: CommandLine, tmp_path: Path) -> None:
    code, out, err = call("init", "my sweep.yaml", *GIVEN)
    assert (code, err) == (0, "")
    assert "my sweep.yaml: sweep my-sweep, 14 runs and the base model" in out
    assert "  surogate-bench validate --deep 'my sweep.yaml'\n  surogate-bench run 'my sweep.yaml'\n" in out
    assert call("validate", "my sweep.yaml").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["my sweep.yaml"]


def test_every_option_is_in_the_file(call: CommandLine, tmp_path: Path) -> None:
    options = (
        "--data-config", "main", "--format", "question-answer", "--field", "question=q", "--split", "test=exam",
        "--task", "en_gsm8k", "--task", "word_problem_choice=word-problems-ro", "--recipe", "bf16,fp8", "--seed", 1,
        "--seed", 2, "--under", "all", "--epochs", 3, "--learning-rate", "1e-4", "--micro-batch-size", 1,
        "--accumulation", 8, "--rank", 8, "--alpha", 24, "--target", "all-linear", "--name", "mine",
        "--set", "training.warmup_steps=5", "--set", "data.hold_out={validation: 0.1}",
    )  # fmt: skip
    assert call("init", *GIVEN, *options).code == 0
    written = document(tmp_path / "sweep.yaml")
    assert written["data"] == {
        "hub": "openai/gsm8k", "config": "main", "format": "question-answer", "fields": {"question": "q"},
        "splits": {"test": "exam"}, "hold_out": {"validation": 0.1},
    }  # fmt: skip
    assert (written["name"], written["recipes"], written["seeds"]) == ("mine", ["bf16", "fp8"], [1, 2])
    assert written["serving"]["under"] == ["all"]
    assert written["training"] == {
        "epochs": 3, "max_length": 2048, "micro_batch_size": 1, "gradient_accumulation_steps": 8, "learning_rate": 1e-4,
        "warmup_steps": 5, "lora": {"r": 8, "alpha": 24, "target_modules": ["all-linear"]},
    }  # fmt: skip
    data = {"builtin": "word-problems-ro", "test_size": 200}
    further = {"name": "word_problem_choice", "data": data}
    assert written["evaluation"] == {"tasks": [{"name": "en_gsm8k", "primary": True}, further]}


@pytest.mark.parametrize("how", [("--stdout",), ("-",)])
def test_it_can_be_printed(call: CommandLine, tmp_path: Path, how: tuple[str, ...]) -> None:
    code, out, _ = call("init", *how, *GIVEN)
    assert code == 0
    assert yaml.safe_load(out)["name"] == "qwen3-0-6b-gsm8k"
    assert not list(tmp_path.iterdir())


def test_a_file_is_only_replaced_by_force(call: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("mine", encoding="utf-8")
    code, _, err = call("init", *GIVEN)
    assert code == 2
    assert "FILE: exists (got 'sweep.yaml'). Give another name, or replace it by --force." in err
    assert (tmp_path / "sweep.yaml").read_text(encoding="utf-8") == "mine"
    assert call("init", *GIVEN, "--force").code == 0
    assert call("validate", "sweep.yaml").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "openai/gsm8k"], ["--model: is required", "--model Qwen/Qwen3-0.6B"]),
        (["--model", "Qwen/Qwen3-0.6B"], ["--data: is required", "--data openai/gsm8k"]),
        ([*GIVEN, "--learning-rate", "-1"], ["training.learning_rate: Input should be greater than 0 (got -1"]),
        ([*GIVEN, "--epochs", "two"], ["training.epochs: Input should be a valid number", "'two'"]),
        ([*GIVEN, "--recipe", "fp9"], ["recipes", "no such recipe", "fp9"]),
        ([*GIVEN, "--name", "My Sweep"], ["name: ", "'My Sweep'"]),
        ([*GIVEN, "--task", "no_such_task"], ["evaluation.task: there is no such task"]),
        ([*GIVEN, "--under", "fp9"], ["serving.under", "no such recipe in this sweep"]),
        (
            [*GIVEN, "--set", "training.warmup=5"],
            ["training.warmup: there is no such field", "warmup_steps"],
        ),
        ([*GIVEN, "--set", "training"], ["--set: must be SETTING=VALUE"]),
        ([*GIVEN, "--set", "training=5"], ["training: must be a mapping"]),
        ([*GIVEN, "--field", "question"], ["--field: must be NAME=VALUE"]),
        ([*GIVEN, "--field", "frage=q"], ["data.fields.frage: there is no such field"]),
        (["--model", "./nowhere", "--data", "openai/gsm8k"], ["model.path: is not a model folder"]),
        (["--model", "Qwen/Qwen3-0.6B", "--data", "nowhere.csv"], ["data.path: there is no such folder or file"]),
        (["nowhere/sweep.yaml", *GIVEN], ["FILE: is in a folder that does not exist", "Create its folder first"]),
        ([".", *GIVEN], ["FILE: is a folder"]),
    ],
)
def test_bad_options_are_explained_and_write_nothing(
    call: CommandLine, tmp_path: Path, arguments: list[str], expected: list[str]
) -> None:
    code, out, err = call("init", *arguments)
    assert (code, out) == (2, "")
    assert all(part in err for part in expected), err
    assert not list(tmp_path.iterdir())


def test_a_single_file_is_read_and_divided(call: CommandLine, tmp_path: Path) -> None:
    questions(tmp_path / "qa.csv", header="Question,Answer")
    (tmp_path / "sweeps").mkdir()
    assert call("init", "sweeps/qa.yaml", "--model", "tiny-qwen3-en", "--data", "qa.csv", "--yes").code == 0
    written = document(tmp_path / "sweeps" / "qa.yaml")
    assert written["data"] == {
        "path": "../qa.csv", "fields": {"question": "Question", "answer": "Answer"},
        "hold_out": {"validation": 2, "test": 4},
    }  # fmt: skip
    assert (written["evaluation"]["task"], written["training"]["max_length"]) == ("en_gsm8k", 512)
    assert call("validate", "sweeps/qa.yaml").code == 0


def test_a_group_of_settings_takes_the_place_of_its_defaults(call: CommandLine, tmp_path: Path) -> None:
    questions(tmp_path / "qa.csv", header="Question,Reply")
    given = ("--model", "tiny-qwen3-en", "--data", "qa.csv", "--yes", "--field", "answer=Reply")
    settings = ("--set", "data.hold_out={validation: 0.1, test: 8}", "--set", "data.fields={question: Question}")
    assert call("init", *given, *settings).code == 0
    data = document(tmp_path / "sweep.yaml")["data"]
    assert data["hold_out"] == {"validation": 0.1, "test": 8}
    assert data["fields"] == {"question": "Question", "answer": "Reply"}
    code, _, err = call("init", *given, *settings[2:], "--set", "data.hold_out=8", "--force")
    assert code == 2
    assert "data.hold_out: must be a mapping" in err


def test_conversations_are_detected_and_a_task_with_its_own_questions_scores_them(
    call: CommandLine, tmp_path: Path
) -> None:
    messages = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]
    (tmp_path / "chats.jsonl").write_text((json.dumps({"messages": messages}) + "\n") * 8, encoding="utf-8")
    code, _, err = call("init", "--model", "smollm2-135m", "--data", "chats.jsonl", "--yes")
    assert code == 0
    assert "The data has no answers that end with '#### N', so gsm8k scores questions of its own" in err
    written = document(tmp_path / "sweep.yaml")
    assert written["evaluation"] == {"task": "gsm8k", "keep_from_task": ["data", "prompt"], "chat_template": True}
    assert call("validate", "sweep.yaml").code == 0


def test_records_of_no_shape_are_refused_by_their_fields(call: CommandLine, tmp_path: Path) -> None:
    questions(tmp_path / "odd.csv", header="q,a")
    odd = ("--model", "tiny-qwen3-en", "--data", "odd.csv", "--yes")
    code, _, err = call("init", *odd)
    assert code == 2
    assert "data.fields: the records fit no shape: they have q, a" in err
    assert "lack fields of data.format text: they have q, a" in call("init", *odd, "--format", "text").err
    code, out, _ = call("init", *odd, "--field", "question=q", "--field", "answer=a", "--recipe", "bf16", "--seed", 0)
    assert code == 0
    assert "1 run and the base model" in out
    assert document(tmp_path / "sweep.yaml")["data"]["fields"] == {"question": "q", "answer": "a"}


def test_a_malformed_record_is_named(call: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"question": "1", "answer": "2"}\n{', encoding="utf-8")
    code, _, err = call("init", "--model", "tiny-qwen3-en", "--data", "bad.jsonl", "--yes")
    assert code == 2
    assert "data.train:2" in err


def test_recipes_that_this_machine_cannot_run_are_pointed_out(
    call: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("surogate_bench_orchestrator.runtimes.local.capabilities.find_spec", lambda _: None)
    code, _, err = call("init", *GIVEN)
    assert code == 0
    assert "qbnb cannot run on this machine: needs bitsandbytes, which is not installed" in err


def test_the_training_stack_is_not_needed(tmp_path: Path) -> None:
    questions(tmp_path / "qa.csv")
    program = (
        "import sys; sys.argv = ['surogate-bench', 'init', '--model', 'tiny-qwen3-en', '--data', 'qa.csv', '--yes']\n"
        "from surogate_bench_orchestrator.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print({'torch', 'transformers', 'datasets'} & sys.modules.keys())"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ended.stdout.splitlines()[-1] == "set()"
