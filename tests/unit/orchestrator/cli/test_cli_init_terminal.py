"""``surogate-bench init`` on a terminal, a real one: a pseudo-terminal on which the command runs as a process."""

import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from waiting import PATIENCE_S, until

MAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
from surogate_bench_orchestrator.cli.app import main
main()
"""


class Terminal:
    """A process on a pseudo-terminal of its own, and everything that it has shown."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._main, theirs = pty.openpty()
        self.shown = ""
        self._read_to = 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAIN, *arguments],
            cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env=os.environ | {"TERM": "dumb", "COLUMNS": "200"},
        )  # fmt: skip
        os.close(theirs)

    def until(self, text: str) -> str:
        """Read until the process shows a text, and return what came before it since the last one."""
        while (found := self.shown.find(text, self._read_to)) < 0:
            self.shown += self._read() or pytest.fail(f"ended without {text!r}:\n{self.shown}")
        before = self.shown[self._read_to : found]
        self._read_to = found + len(text)
        return before

    def answer(self, question: str, typed: str) -> str:
        """Wait for a question, answer it, and return what was shown up to it."""
        before = self.until(f"{question}: ")
        os.write(self._main, f"{typed}\n".encode())
        return before

    def end(self) -> int:
        """Read everything and return the exit code."""
        while read := self._read():
            self.shown += read
        return self.process.wait(timeout=PATIENCE_S)

    def interrupt(self) -> None:
        """Send what Ctrl-C sends, once the process waits for input: just before that, Python would not notice it."""
        until(self._reads_input, "it waits for input")
        self.process.send_signal(signal.SIGINT)

    def end_input(self) -> None:
        """Send Ctrl-D."""
        os.write(self._main, b"\x04")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)

    def _reads_input(self) -> bool:
        """Whether the process is in the system call read (63 on ARM) of standard input."""
        return Path(f"/proc/{self.process.pid}/syscall").read_text(encoding="ascii").startswith(("0 0x0 ", "63 0x0 "))

    def _read(self) -> str:
        ready, _, _ = select.select([self._main], [], [], PATIENCE_S)
        assert ready, f"nothing more was shown:\n{self.shown}"
        try:
            return os.read(self._main, 65536).decode(errors="replace")
        except OSError:  # the process has closed its end
            return ""


def document(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_questions_are_answered_explained_and_asked_again(tmp_path: Path) -> None:
    lines = ["q,a", *(f"{number} + 1?,#### {number + 1}" for number in range(40))]
    (tmp_path / "odd.csv").write_text("\n".join(lines), encoding="utf-8")
    terminal = Terminal(tmp_path, "init")
    try:
        terminal.answer("\nmodel", "./nowhere")
        assert "model.path: is not a model folder" in terminal.answer("\nmodel", "tiny-qwen3-en")
        terminal.answer("data", "odd.csv")
        assert "q, a" in terminal.answer("data.format", "question-answer")
        terminal.answer("data.fields.question", "Q")
        assert "Choose one of q, a" in terminal.answer("\ndata.fields.question", "q")
        terminal.answer("data.fields.answer", "a")
        assert "40 training records" in terminal.answer("data.hold_out.test [4]", "6")
        terminal.answer("tasks [en_gsm8k]", "")
        assert "engine here" in terminal.answer("[bf16 fp8 fp4 qbnb qfp8-fp8-hybrid qfp8-bf16 qfp4]", "bf16, fp9")
        assert "no such recipe" in terminal.answer("[bf16 fp8 fp4 qbnb qfp8-fp8-hybrid qfp8-bf16 qfp4]", "bf16 qbnb")
        terminal.answer("seeds [0 1]", "0 1 2")
        terminal.answer("serving.under [bf16 own]", "")
        assert "max_steps: 300" in terminal.answer("change these? [no]", "y")
        terminal.answer("training.max_steps [300]", "none")
        assert "training.max_steps: Input should be a valid integer" in terminal.answer("training.max_steps [300]", "9")
        for question in ("learning_rate [0.004]", "micro_batch_size [2]", "gradient_accumulation_steps [1]"):
            terminal.answer(question, "")
        for question in ("max_length [512]", "lora.r [16]", "lora.alpha [32]", "up_proj down_proj]"):
            terminal.answer(question, "")
        terminal.answer("name [tiny-qwen3-en-odd]", "mine")
        assert terminal.end() == 0
    finally:
        terminal.close()
    assert "surogate-bench run sweep.yaml" in terminal.shown
    written = document(tmp_path / "sweep.yaml")
    fields = {"question": "q", "answer": "a"}
    hold_out = {"validation": 2, "test": 6}
    assert written["data"] == {"path": "odd.csv", "format": "question-answer", "fields": fields, "hold_out": hold_out}
    assert (written["name"], written["recipes"], written["seeds"]) == ("mine", ["bf16", "qbnb"], [0, 1, 2])
    assert (written["training"]["max_steps"], written["serving"]["under"]) == (9, ["bf16", "own"])


@pytest.mark.parametrize("how", ["interrupted", "input ended"])
def test_ending_it_writes_nothing(tmp_path: Path, how: str) -> None:
    terminal = Terminal(tmp_path, "init", "--model", "tiny-qwen3-en")
    try:
        terminal.until("data: ")
        if how == "interrupted":
            terminal.interrupt()
        else:
            os.write(terminal._main, b"\x04")
        assert terminal.end() == 130
    finally:
        terminal.close()
    assert "nothing was written" in terminal.shown
    assert not list(tmp_path.iterdir())


def test_data_of_the_hub_is_asked_for_by_its_parts_and_an_empty_file_again(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    terminal = Terminal(tmp_path, "init", "-", "--model", "Qwen/Qwen3-0.6B", "--recipe", "bf16", "--name", "mine")
    try:
        terminal.answer("data", "empty.jsonl")
        assert "has no training records" in terminal.answer("\ndata", "openai/gsm8k")
        terminal.answer("data.config [none]", "main")
        assert "Input should be 'auto'" in terminal.answer("data.format [auto]", "csv") + terminal.answer(
            "data.format [auto]", ""
        )
        terminal.answer("data.splits.train [train]", "")
        terminal.answer("data.splits.test [test]", "exam")
        for question in ("tasks [en_gsm8k]", "seeds [0 1]", "serving.under [bf16]", "change these? [no]"):
            terminal.answer(question, "")
        assert terminal.end() == 0
    finally:
        terminal.close()
    written = yaml.safe_load(terminal.shown[terminal.shown.index("# A sweep of") :])
    assert written["data"] == {"hub": "openai/gsm8k", "config": "main", "splits": {"test": "exam"}}
    assert not (tmp_path / "sweep.yaml").exists()


def test_nothing_is_asked_if_no_questions_are_allowed(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "init", "--yes", "--model", "tiny-qwen3-en")
    try:
        assert terminal.end() == 2
    finally:
        terminal.close()
    assert "--data: has no default" in terminal.shown
