"""The two steps of ours around a foreign trainer's command that runs in a container of its own."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from models.foreign_trainers import GOOD, entry, lines_of, write_trainer
from sweeps import MakeSweep
from transformers import AutoModelForCausalLM

from surogate_bench.errors import ForeignTrainerError, PermanentError
from surogate_bench.results import ForeignTrainResult, PrepareResult
from surogate_bench.stages.publication import read_manifest, read_result
from surogate_bench.stages.requests import ContainerStep, ForeignTrainRequest, PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.data.records import PreparedRecord
from surogate_bench_trainer.foreign.trainers import attempt
from surogate_bench_trainer.main import handle

pytestmark = pytest.mark.usefixtures("restored_threads")


@dataclass(frozen=True)
class Pod:
    """A training in three processes that share a folder, as in a pod."""

    request: ForeignTrainRequest
    script: Path
    folder: Path
    template: Path

    @property
    def shared(self) -> Path:
        return self.folder / "shared"

    def step(self, step: Literal["prepare", "collect"]) -> None:
        own = ContainerStep(step=step, folder=self.shared)
        handle(self.request.model_copy(update={"in_container": own}), self.folder / "work")

    def run_command(self) -> None:
        """Run the script in an environment that has nothing else, as in a container."""
        place = self.shared / "request" / "request.json"
        environment = {"SUROGATE_BENCH_TRAINER_REQUEST": str(place), "TEMPLATE": str(self.template)}
        command = [sys.executable, str(self.script)]
        subprocess.run(command, env=environment, cwd=self.shared / "scratch", check=True)

    def run_all(self) -> None:
        self.step("prepare")
        self.run_command()
        self.step("collect")

    def result(self) -> ForeignTrainResult | None:
        prefix = self.request.layout.train(f"other-s{self.request.seed}")
        return read_result(open_store(self.request.store), prefix, ForeignTrainResult)


@pytest.fixture
def pod_of(make_sweep: MakeSweep, template: Path, tmp_path: Path) -> Callable[..., Pod]:
    """Prepare a sweep whose trainer runs a script in an image."""

    def make(body: str = GOOD, **changes: Any) -> Pod:
        script = write_trainer(tmp_path, body)
        in_image = {"command": ["/in/the/image.py"], "image": "team/other:1"}
        trainer = entry(script, template, **in_image | changes)
        sweep = make_sweep(recipes=["bf16"], trainers=[trainer], seeds=[0, 1])
        store = str(tmp_path / "store")
        handle(PrepareRequest(sweep=sweep, store=store, in_images=True), tmp_path / "prepare")
        request = ForeignTrainRequest(sweep=sweep, store=store, trainer="other", seed=1, threads=1)
        return Pod(request, script, tmp_path, template)

    return make


def test_a_command_between_two_steps_of_ours_leaves_a_training_like_that_of_one_machine(
    pod_of: Callable[..., Pod],
) -> None:
    pod = pod_of()
    pod.run_all()
    result = pod.result()
    assert result is not None
    assert (result.command, result.image) == (("/in/the/image.py",), "team/other:1")
    assert (result.steps, result.tokens, result.train_seconds) == (6, 600, 3.0)
    assert result.served_validation_loss is not None
    assert (result.seconds, result.peak_memory_bytes, result.warnings) == (None, None, ())


def test_one_process_reads_the_modules_of_the_base_and_the_training_records_once(
    pod_of: Callable[..., Pod], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Counter[str]()
    build, records = AutoModelForCausalLM.from_config, attempt.read_prepared

    def counted_build(*given: Any, **named: Any) -> Any:
        read["modules"] += 1
        return build(*given, **named)

    def counted_records(path: Path) -> list[PreparedRecord]:
        read[path.name] += 1
        return records(path)

    pod = pod_of(command=[sys.executable, str(tmp_path / "trainer.py")], image=None)
    monkeypatch.setattr(AutoModelForCausalLM, "from_config", counted_build)
    monkeypatch.setattr(attempt, "read_prepared", counted_records)
    handle(pod.request, tmp_path / "work")
    assert pod.result() is not None
    assert (read["modules"], read["train.jsonl"]) == (1, 1)


def test_preparation_leaves_programs_that_are_in_an_image_alone(pod_of: Callable[..., Pod]) -> None:
    request = pod_of().request
    prepared = read_result(open_store(request.store), request.layout.prepare, PrepareResult)
    assert prepared is not None
    assert "trainers" not in prepared.inputs


def test_all_that_the_command_is_given_is_in_the_shared_folder(pod_of: Callable[..., Pod], model_folder: Path) -> None:
    pod = pod_of()
    pod.step("prepare")
    request = json.loads((pod.shared / "request" / "request.json").read_text())
    paths = [Path(request[name]) for name in ("model", "train", "validation", "output")]
    assert all(path.is_relative_to(pod.shared) for path in paths)
    assert len(lines_of(Path(request["train"]))) == 60
    copied = {path.name for path in Path(request["model"]).iterdir()}
    assert (
        {"config.json", "tokenizer.json", "model.safetensors"}
        <= copied
        <= {path.name for path in model_folder.iterdir()}
    )
    assert not any(path.is_symlink() for path in pod.shared.rglob("*"))


def test_what_the_command_changes_beside_its_output_is_not_read(pod_of: Callable[..., Pod]) -> None:
    body = """
import shutil
save()
Path(os.environ["SUROGATE_BENCH_TRAINER_REQUEST"]).write_text("no JSON")
Path(request["validation"]).write_text("no JSON")
shutil.rmtree(request["model"])
"""
    pod = pod_of(body)
    pod.step("prepare")
    pod.run_command()
    pod.step("collect")
    result = pod.result()
    assert result is not None
    assert result.served_validation_loss is not None


@pytest.mark.parametrize("linked", ["left", "left/adapter", "left/adapter/adapter_config.json"])
def test_a_link_in_place_of_the_output_is_not_followed(linked: str, pod_of: Callable[..., Pod]) -> None:
    pod = pod_of()
    pod.step("prepare")
    pod.run_command()
    place, elsewhere = pod.shared / linked, pod.folder / "elsewhere"
    shutil.move(place, elsewhere)
    place.symlink_to(elsewhere)
    with pytest.raises(ForeignTrainerError, match=r"no folder adapter|symbolic link"):
        pod.step("collect")
    assert pod.result() is None


def test_what_is_no_usable_adapter_fails_without_a_claim_about_what_the_command_said(
    pod_of: Callable[..., Pod],
) -> None:
    pod = pod_of("pass")
    pod.step("prepare")
    pod.run_command()
    with pytest.raises(ForeignTrainerError, match="there is no folder adapter") as caught:
        pod.step("collect")
    assert "wrote nothing" not in str(caught.value)


def test_another_attempt_begins_without_what_the_one_before_it_left(pod_of: Callable[..., Pod]) -> None:
    pod = pod_of()
    pod.step("prepare")
    pod.run_command()
    (pod.shared / "scratch" / "cache").touch()
    pod.step("prepare")
    assert [list((pod.shared / name).iterdir()) for name in ("left", "scratch")] == [[], []]


def test_a_finished_training_is_not_prepared_again_and_collecting_it_again_changes_nothing(
    pod_of: Callable[..., Pod],
) -> None:
    pod = pod_of()
    pod.run_all()
    prefix = pod.request.layout.train("other-s1")
    first = read_manifest(open_store(pod.request.store), prefix)
    pod.step("collect")
    assert read_manifest(open_store(pod.request.store), prefix) == first
    with pytest.raises(PermanentError, match="nothing left to train"):
        pod.step("prepare")
