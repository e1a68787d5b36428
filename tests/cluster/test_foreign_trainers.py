"""Foreign trainers run in images of their own: one that trains, and ones that fail in every way a container can."""

import json
from typing import Any

import pytest
from real_cluster.release import IMAGE_TAG, Release, Small, Until
from real_cluster.tools import kubectl

from surogate_bench.results import ForeignTrainResult
from surogate_bench_orchestrator.resource.status import StatusRow

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

NAME = "others"
IMAGE = f"surogate-bench/trainer:{IMAGE_TAG}"
"""Stands for a user's: it has PEFT, and is on the nodes. What is ours in it is not used."""

TRAIN = """
import json, os, pathlib
request = json.loads(pathlib.Path(os.environ["SUROGATE_BENCH_TRAINER_REQUEST"]).read_text())
print("I may read", sorted(name for name in os.listdir("/") if os.path.ismount("/" + name)), flush=True)
print("I know", sorted(os.environ), flush=True)
print("I am", os.getuid(), os.path.exists("/var/run/secrets/kubernetes.io"), flush=True)
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
lora = request["training"]["lora"]
config = LoraConfig(r=lora["r"], lora_alpha=lora["alpha"], target_modules=lora["target_modules"], task_type="CAUSAL_LM")
model = get_peft_model(AutoModelForCausalLM.from_pretrained(request["model"]), config)
output = pathlib.Path(request["output"])
model.save_pretrained(output / "adapter")
lines = [{"step": step, "loss": 2.5, "tokens": 10, "seconds": 0.5} for step in range(1, request["steps"] + 1)]
(output / "metrics.jsonl").write_text("".join(json.dumps(line) + chr(10) for line in lines))
"""
WAIT = """
import os, time
while not os.path.exists("go"):
    time.sleep(0.2)
"""
"""Before the training: until there is a file in its folder."""


def is_running(pod: dict[str, Any]) -> bool:
    """Whether a pod has neither ended nor been asked to."""
    return "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] not in {"Succeeded", "Failed"}


def shell(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", script], **more}


TRAINERS: list[dict[str, Any]] = [
    {"name": "good", "image": IMAGE, "command": ["{python}", "-c", TRAIN], "environment": {"LEVEL": "high"}},
    shell("failing", "echo no kernel for this; exit 3"),
    shell("asking", "echo the licence server is busy; exit 75"),
    shell("killed", "echo so far; sh -c 'kill -9 $$'; exit $?"),
    shell("hanging", "echo waiting; exec sleep 600", timeout_s=5),
    shell("lazy", "exit 0"),
    {"name": "absent", "image": "surogate-bench/no-such-trainer:1", "command": ["train"]},
    {"name": "missing", "image": IMAGE, "command": ["no-such-program"]},
]
LAST_LINES = "The last lines of its output:"
FAILURES = {
    "failing": ("ForeignTrainerError", f"exit code 3.\n{LAST_LINES}\nno kernel for this", 1),
    "asking": ("TransientError", f"another attempt (exit code 75).\n{LAST_LINES}\nthe licence server is busy", 2),
    "killed": ("Killed", f"killed by signal 9.\n{LAST_LINES}\nso far", 2),
    "hanging": ("ForeignTrainerError", "the command had not ended after 5 s", 1),
    "lazy": ("ForeignTrainerError", "there is no folder adapter in the output folder", 1),
    "absent": ("Image", "no-such-trainer:1", 1),
    "missing": ("ForeignTrainerError", "the command cannot be started", 1),
}
"""Reason, message and attempts."""


@pytest.fixture(scope="module")
def ended(release: Release, small: Small, until: Until) -> dict[str, StatusRow]:
    """Rows of a sweep with all of them, once it is over."""
    spec = small(recipes=["bf16"], trainers=TRAINERS, max_attempts=2, training__max_steps=10)
    release.submit(NAME, spec)
    until(lambda: release.finished(NAME), f"{NAME} ends", 1000)
    return release.runs(NAME)


def test_a_trainer_in_an_image_is_scored_beside_the_recipes(ended: dict[str, StatusRow], release: Release) -> None:
    assert ended["bf16-s0"].state == "Succeeded", ended["bf16-s0"]
    row = ended["good-s0"]
    assert (row.state, row.recipe) == ("Succeeded", "good"), row
    assert row.accuracy is not None
    with release.store() as store:
        result = release.results(store, NAME)["good-s0/train"].require_result(ForeignTrainResult)
    assert (result.image, result.seconds, result.steps, result.final_train_loss) == (IMAGE, None, 10, 2.5)
    assert result.served_validation_loss is not None


def test_the_image_can_use_the_shared_folder_and_no_credentials(ended: dict[str, StatusRow], release: Release) -> None:
    del ended
    log = release.cli("logs", NAME, "good-s0", "--stage", "train", "--tail", "200").stdout
    read, known, identity = (
        next(line.partition(what)[2] for line in log.splitlines() if line.startswith(what))
        for what in ("I may read ", "I know ", "I am ")
    )
    mounted = set(json.loads(read.replace("'", '"')))
    assert {"trainer", "tmp"} <= mounted
    assert not {"work", "cache"} & mounted
    assert identity == "10001 False"
    assert "'LEVEL'" in known
    assert not [word for word in ("AWS", "HF_", "TOKEN", "METRICS") if word in known]
    assert "the trained adapter is checked and stored" in log


@pytest.mark.parametrize(("name", "expected"), FAILURES.items(), ids=FAILURES)
def test_a_trainer_that_fails_says_how_and_changes_no_other_row(
    name: str, expected: tuple[str, str, int], ended: dict[str, StatusRow]
) -> None:
    reason, message, attempts = expected
    row = ended[f"{name}-s0"]
    assert row.state == "Failed", row
    assert reason in row.reason, row
    assert message in row.message, row
    assert row.attempt == attempts, row


def test_nothing_runs_any_more(ended: dict[str, StatusRow], release: Release, until: Until) -> None:
    del ended
    until(lambda: not release.active(NAME), f"nothing of {NAME} runs any more", 120)
    release.remove(NAME)


@pytest.mark.exhaustive
def test_a_pod_that_is_lost_and_a_suspended_sweep_begin_the_command_anew(
    release: Release, small: Small, until: Until
) -> None:
    name, run = "again", "good-s0"
    held = TRAINERS[0] | {"command": ["{python}", "-c", f"{WAIT}{TRAIN}"]}
    release.submit(name, small(recipes=["bf16"], trainers=[held], training__max_steps=10))

    def trains() -> bool:
        rows = release.runs(name)
        return run in rows and rows[run].detail == "training"

    until(trains, "the command runs", 200)
    [lost] = release.pods(sweep=name, run=run, stage="train")
    release.kill(lost)
    until(lambda: trains() and release.runs(name)[run].attempt == 2, "it runs again", 200)
    release.change(name, suspend=True)
    until(lambda: not release.active(name), "nothing of it runs", 120)
    release.change(name, suspend=False)
    until(trains, "it runs once more", 200)
    [again] = [pod for pod in release.pods(sweep=name, run=run, stage="train") if is_running(pod)]
    inside = ("exec", again["metadata"]["name"], "--container", "trainer", "--")
    kubectl("--namespace", release.namespace, *inside, "touch", "/trainer/scratch/go")
    until(lambda: release.state(name, run) in {"Trained", "Evaluating", "Succeeded"}, "it has trained", 200)
    release.remove(name)
