"""Foreign trainers: what a command is given, what it may leave, and every way in which it fails."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models.foreign_trainers import GOOD, entry, lines_of, write_trainer
from peft import PeftModel
from sweeps import MakeSweep
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from waiting import has_ended, until

from surogate_bench.contract import PARENT_PID_VARIABLE, TASK_DIR_VARIABLE
from surogate_bench.errors import ConfigError, ForeignTrainerError, TransientError
from surogate_bench.processes.progress import read_progress
from surogate_bench.processes.service import Terminated
from surogate_bench.results import ForeignTrainResult
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.model_source import ModelLocation
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import ForeignTrainRequest, PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.data.records import Rendered
from surogate_bench_trainer.foreign.trainers import command
from surogate_bench_trainer.foreign.trainers.request import TrainerInput, write_trainer_request
from surogate_bench_trainer.main import handle

pytestmark = pytest.mark.usefixtures("restored_threads")

Train = Callable[..., tuple[ForeignTrainResult, Path]]


@pytest.fixture
def request_for(make_sweep: MakeSweep, template: Path, tmp_path: Path) -> Callable[..., ForeignTrainRequest]:
    """Prepare a sweep whose trainer runs a script, and ask for a run."""

    def make(body: str = GOOD, *, seed: int = 0, **changes: Any) -> ForeignTrainRequest:
        script = write_trainer(tmp_path, body)
        trainer = entry(script, template, **changes.pop("entry", {}))
        sweep = make_sweep(recipes=["bf16"], trainers=[trainer], seeds=[0, 1], **changes)
        store = str(tmp_path / "store")
        handle(PrepareRequest(sweep=sweep, store=store), tmp_path / "prepare")
        return ForeignTrainRequest(sweep=sweep, store=store, trainer="other", seed=seed, threads=1)

    return make


@pytest.fixture
def train(request_for: Callable[..., ForeignTrainRequest], tmp_path: Path) -> Train:
    """Train with a script; gives the result and the folder of the published files."""

    def run(body: str = GOOD, **changes: Any) -> tuple[ForeignTrainResult, Path]:
        request = request_for(body, **changes)
        handle(request, tmp_path / "work")
        return published(request).require_result(ForeignTrainResult), folder_of(request)

    return run


def folder_of(request: ForeignTrainRequest) -> Path:
    return Path(request.store) / request.layout.train(f"other-s{request.seed}")


def published(request: ForeignTrainRequest) -> Manifest:
    manifest = read_manifest(open_store(request.store), request.layout.train(f"other-s{request.seed}"))
    assert manifest is not None
    return manifest


def test_what_a_trainer_leaves_is_published_as_a_training_with_the_figures_that_it_reported(
    train: Train, model_folder: Path
) -> None:
    result, folder = train()
    assert (result.steps, result.tokens, result.train_seconds, result.tokens_per_second) == (6, 600, 3.0, 200.0)
    assert result.final_train_loss == pytest.approx(sum(3.0 / step for step in range(1, 7)) / 6)
    assert [(point.step, point.loss) for point in result.validation] == [(6, 1.25)]
    assert (result.ranks, result.alphas, result.warnings) == ((4,), (8.0,), ())
    assert result.peak_memory_bytes is not None
    assert result.peak_memory_bytes > 100 << 20
    assert sorted(path.name for path in (folder / "adapter").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    assert lines_of(folder / "metrics.jsonl")[0] == {"step": 1, "loss": 3.0, "tokens": 100, "seconds": 0.5}
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), str(folder / "adapter"))
    assert loaded.peft_config["default"].r == 4


def test_its_validation_loss_as_served_is_computed_here_whatever_it_reports(
    train: Train, model_folder: Path, tmp_path: Path
) -> None:
    result, folder = train(
        'save(8, lora_alpha=6, use_rslora=True, alpha_pattern={"v_proj": 3})\nreport({"step": 6, "loss": 0.0})'
    )
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(base, str(folder / "adapter"), autocast_adapter_dtype=False)
    total = counted = 0.0
    with torch.no_grad():
        for line in lines_of(tmp_path / "work" / "request" / "validation.jsonl"):
            logits = model(torch.tensor([line["input_ids"]])).logits[0, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits, torch.tensor(line["input_ids"][1:]), reduction="none")
            mask = torch.tensor(line["loss_mask"][1:])
            total, counted = total + float((losses * mask).sum()), counted + float(mask.sum())
    assert result.served_validation_loss == pytest.approx(total / counted, rel=2e-3)
    assert "ranks (8,)" in result.warnings[0]


def test_the_request_has_the_model_the_records_as_text_and_tokens_and_all_settings(
    request_for: Callable[..., ForeignTrainRequest], tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    body = (
        '(output / "seen.json").write_text(json.dumps([request, dict(os.environ), sys.argv[1:], os.getcwd()]))\nsave()'
    )
    request = request_for(body, seed=1, entry={
        "command": [sys.executable, str(tmp_path / "trainer.py"), "--config={request}", "{python}"],
        "environment": {"LEVEL": "high"}, "trained_under": "bf16",
    })  # fmt: skip
    handle(request, tmp_path / "work")
    seen, environment, arguments, folder = json.loads((tmp_path / "work" / "left" / "seen.json").read_text())
    assert (seen["version"], seen["run"], seen["seed"], seen["threads"], seen["steps"]) == (1, "other-s1", 1, 1, 6)
    assert seen["training"]["lora"] == {
        "r": 4, "alpha": 8, "dropout": 0.0, "target_modules": list(request.sweep.training.lora.target_modules),
    }  # fmt: skip
    assert (seen["trained_under"], seen["end_of_text"]) == ("bf16", "<|endoftext|>")
    place = str(tmp_path / "work" / "request" / "request.json")
    assert arguments == [f"--config={place}", sys.executable]
    assert environment["LEVEL"] == "high"
    assert environment["SUROGATE_BENCH_TRAINER_REQUEST"] == place
    assert folder == str(tmp_path / "work" / "scratch")
    lines = lines_of(Path(seen["train"]))
    assert (len(lines), len(lines_of(Path(seen["validation"])))) == (60, 10)
    prompt, completion = lines[0]["prompt"], lines[0]["completion"]
    assert prompt.startswith("Question: ")
    assert completion.startswith(" ")
    expected = tokenizer(prompt)["input_ids"], tokenizer(completion)["input_ids"]
    assert lines[0]["input_ids"] == [*expected[0], *expected[1], 0]
    assert lines[0]["loss_mask"] == [0] * len(expected[0]) + [1] * (len(expected[1]) + 1)
    rows = -(-60 // seen["samples_per_step"])
    assert 1 <= rows <= 60


def test_records_that_are_whole_texts_are_given_as_tokens_alone_with_the_parts_that_count(
    tmp_path: Path, make_sweep: MakeSweep, tokenizer: PreTrainedTokenizerFast, model_folder: Path
) -> None:
    sweep = make_sweep(trainers=[{"name": "other", "command": ["other"]}])
    records = [Rendered(text="abcdef", counted=((1, 2), (4, 6)), special_tokens=False)]
    given = TrainerInput(
        request=ForeignTrainRequest(sweep=sweep, store="store", trainer="other", seed=0),
        location=ModelLocation(str(model_folder)),
        tokenizer=tokenizer,
        splits={"train": records, "validation": records},
        special_tokens=True,
    )
    _, content = write_trainer_request(given, tmp_path / "request", tmp_path / "left")
    (line,) = lines_of(content.train)
    assert (line["prompt"], line["completion"], line["loss_mask"]) == (None, None, [0, 1, 0, 0, 1, 1])
    assert tokenizer.decode(line["input_ids"]) == "abcdef"


def test_a_trainer_gets_no_credentials_and_none_of_this_softwares_variables_but_the_mark_of_its_task(
    request_for: Callable[..., ForeignTrainRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_KEY", "GOOGLE_SERVICE_ACCOUNT", "HF_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv(PARENT_PID_VARIABLE, str(os.getppid()))
    monkeypatch.setenv(TASK_DIR_VARIABLE, str(tmp_path))
    request = request_for('(output / "seen.json").write_text(json.dumps(dict(os.environ)))\nsave()')
    handle(request, tmp_path / "work")
    seen = json.loads((tmp_path / "work" / "left" / "seen.json").read_text())
    assert "secret" not in seen.values()
    assert {name for name in seen if name.startswith("SUROGATE_BENCH_")} == {
        TASK_DIR_VARIABLE, "SUROGATE_BENCH_TRAINER_REQUEST",
    }  # fmt: skip


LEFT: dict[str, tuple[str, str]] = {
    "nothing": ("", "there is no folder adapter in the output folder"),
    "a file of that name": ('(output / "adapter").write_text("x")', "there is no folder adapter"),
    "a link out of the folder": ('(output / "adapter").symlink_to(request["model"])', "there is no folder adapter"),
    "a merged model": (
        '(output / "adapter").mkdir()\n(output / "adapter" / "model.safetensors").write_bytes(b"x")',
        "has no adapter_config.json and no adapter_model.safetensors",
    ),
    "half an adapter": ('save()\nedit(lambda it: it.pop(next(n for n in it if "lora_B" in n)))', "without lora_B"),
    "truncated weights": (
        'save()\nos.truncate(output / "adapter" / "adapter_model.safetensors", 5000)', "truncated",
    ),
    "NaN": ('save()\nedit(lambda it: next(iter(it.values())).fill(float("nan")))', "NaN or infinite values"),
    "a pickle": (
        'save()\nfolder = output / "adapter"\n'
        '(folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")',
        "not in safetensors format",
    ),
    "DoRA": ("save(use_dora=True)", "uses DoRA"),
    "another base": (
        "save()\nedit(lambda it: it.update({n: v[:, :5].copy() for n, v in it.items() if 'lora_A' in n}))",
        "where the sweep's model needs rank x",
    ),
    "a link to a file of the machine": (
        'save()\npath = output / "adapter" / "adapter_config.json"\npath.unlink()\npath.symlink_to("/etc/hostname")',
        "symbolic link that leaves the folder",
    ),
    "a high rank": ("save(100)", "above serving.max_lora_rank"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "problem"), LEFT.values(), ids=LEFT)
def test_what_is_no_usable_adapter_fails_the_run_with_its_reason_and_what_was_said_last(
    body: str, problem: str, train: Train, tmp_path: Path
) -> None:
    with pytest.raises(ForeignTrainerError, match=problem) as caught:
        train(f'{body}\nprint("all is well")')
    assert "trainers.other.command" in str(caught.value)
    assert str(caught.value).endswith("all is well")
    assert not list((tmp_path / "store").glob("sweeps/*/*/runs/other-s0/train/manifest.json"))


ENDS: dict[str, tuple[str | list[str], type[Exception], str]] = {
    "with an error": ('save()\nsys.exit("no kernel")', ForeignTrainerError, r"exit code 1\.\n[^$]*no kernel"),
    "with an exception": ('raise MemoryError("of what")', ForeignTrainerError, "MemoryError: of what"),
    "asking for another attempt": ('print("busy")\nsys.exit(75)', TransientError, r"another attempt[^$]*busy"),
    "by a signal": ('print("so far")\nsys.stdout.flush()\nos.kill(os.getpid(), 9)', TransientError, "signal 9"),
    "asking again in silence": (["sh", "-c", "exit 75"], TransientError, r"exit code 75\)\.\nIt wrote nothing\.$"),
    "by a signal in silence": (["sh", "-c", "kill -9 $$"], TransientError, r"signal 9\.\nIt wrote nothing\.$"),
}


@pytest.mark.parametrize(("body", "kind", "problem"), ENDS.values(), ids=ENDS)
def test_a_command_that_fails_says_how(body: Any, kind: type[Exception], problem: str, train: Train) -> None:
    given = {"entry": {"command": body}} if isinstance(body, list) else {"body": body}
    with pytest.raises(kind, match=problem):
        train(**given)


def test_a_command_that_hangs_is_killed_at_its_deadline_with_all_that_it_started(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    body = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
children = [subprocess.Popen(["sleep", "600"]).pid, os.getpid()]
(output / "pids.json").write_text(json.dumps(children))
print("waiting for a lock", flush=True)
time.sleep(600)
"""

    def monotonic() -> float:
        """Run past the deadline once the command hangs."""
        return time.monotonic() + (3600 if "waiting for a lock" in caplog.text else 0)

    monkeypatch.setattr(command, "_GRACE_S", 0.2)
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(ForeignTrainerError, match=r"had not ended after 3600 s\.\n[^$]*waiting for a lock"),
    ):
        train(body, entry={"timeout_s": 3600})
    for pid in json.loads((tmp_path / "work" / "left" / "pids.json").read_text()):
        until(lambda pid=pid: has_ended(pid), f"the end of {pid}")


def test_a_stage_that_is_stopped_stops_the_command_and_the_next_attempt_begins_anew(
    request_for: Callable[..., ForeignTrainRequest], tmp_path: Path
) -> None:
    flag = tmp_path / "stopped-once"
    body = f"""
if not os.path.exists({str(flag)!r}):
    save()
    (output / "pid").write_text(str(os.getpid()))
    report({{"step": 1, "loss": 9.0}})
    import time; time.sleep(600)
assert list(output.iterdir()) == []
save()
"""
    request = request_for(body)

    def stop() -> None:
        until(lambda: (read_progress(tmp_path / "work") or Progress0).step == 1, "the first step")
        os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, _terminate)
    thread = threading.Thread(target=stop)
    thread.start()
    try:
        with pytest.raises(Terminated):
            handle(request, tmp_path / "work")
    finally:
        thread.join()
        signal.signal(signal.SIGTERM, previous)
    assert has_ended(int((tmp_path / "work" / "left" / "pid").read_text()))
    flag.touch()
    handle(request, tmp_path / "work")
    result = published(request).require_result(ForeignTrainResult)
    assert (result.steps, result.final_train_loss) == (None, None)
    assert "left no metrics.jsonl" in result.warnings[0]


class Progress0:
    step = 0


def _terminate(_number: int, _frame: object) -> None:
    raise Terminated


def test_a_finished_training_is_not_repeated(request_for: Callable[..., ForeignTrainRequest], tmp_path: Path) -> None:
    request = request_for()
    handle(request, tmp_path / "work")
    first = published(request)
    (tmp_path / "trainer.py").write_text("raise SystemExit(1)", encoding="utf-8")
    handle(request, tmp_path / "work-2")
    assert published(request) == first


def test_a_script_that_changed_after_the_sweep_was_prepared_is_refused(
    request_for: Callable[..., ForeignTrainRequest], tmp_path: Path
) -> None:
    request = request_for()
    write_trainer(tmp_path, "save(2)")
    with pytest.raises(ConfigError, match="was changed since this sweep was prepared"):
        handle(request, tmp_path / "work")


MISSING: dict[str, tuple[list[str], str]] = {
    "no program": (["no-such-trainer"], "there is no such program"),
    "no path": (["/no/such/trainer"], "there is no such program"),
    "not executable": (["{folder}/plain.txt"], "is not an executable file"),
    "no script": (["{python}", "/no/such/script.py"], "there is no such file"),
}


@pytest.mark.parametrize(("command", "problem"), MISSING.values(), ids=MISSING)
def test_a_command_that_cannot_start_is_refused_while_the_sweep_is_prepared(
    command: list[str], problem: str, make_sweep: MakeSweep, tmp_path: Path
) -> None:
    (tmp_path / "plain.txt").write_text("x")
    arguments = [argument.replace("{folder}", str(tmp_path)) for argument in command]
    sweep = make_sweep(trainers=[{"name": "other", "command": arguments}])
    with pytest.raises(ConfigError, match=problem) as caught:
        handle(PrepareRequest(sweep=sweep, store=str(tmp_path / "store")), tmp_path / "prepare")
    assert caught.value.field == "trainers.other.command"
    assert caught.value.remedy
