"""How a sweep names trainers of other software, and what identifies their results."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeps import small_document, small_sweep

from surogate_bench.errors import ConfigError
from surogate_bench.results import PrepareResult, SplitInfo
from surogate_bench.specs import RecipeSweep, load_sweep
from surogate_bench.stages.identity import foreign_training_identity, training_identity
from surogate_bench.stages.local_inputs import local_input


def trainer(**changes: Any) -> dict[str, Any]:
    return {"name": "other", "command": ["{python}", "/other/train.py"]} | changes


def test_a_sweep_without_trainers_has_the_hash_that_it_always_had() -> None:
    assert small_sweep(trainers=[]).spec_hash == small_sweep().spec_hash
    assert small_sweep(trainers=[trainer()]).spec_hash != small_sweep().spec_hash


@pytest.mark.parametrize(
    "image",
    [
        "other",
        "team/other:1.2_a",
        "registry.example.com:5000/team/my_other--one/x:latest",
        f"localhost/other@sha256:{'0' * 64}",
        f"nvcr.io/nvidia/pytorch:25.01-py3@sha256:{'f' * 64}",
    ],
)
def test_an_image_is_a_reference_as_registries_know_them(image: str) -> None:
    assert small_sweep(trainers=[trainer(image=image)]).trainers[0].image == image


def test_a_trainer_without_an_image_leaves_the_hash_as_it_was_before_there_were_images() -> None:
    assert small_sweep(trainers=[trainer()]).spec_hash == "c79aeff6dff1"


def test_for_images_arguments_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(small_document(trainers=[trainer(command=["./run", "../x"])])), encoding="utf-8")
    assert load_sweep(path, for_images=True).trainers[0].command == ("./run", "../x")


def test_arguments_that_begin_with_a_dot_and_slash_are_relative_to_the_sweep_file(tmp_path: Path) -> None:
    command = ["../run", "./train.py", "--lr=../x", "{request}", "../../up.yaml"]
    document = small_document(trainers=[trainer(command=command)])
    (tmp_path / "sweeps").mkdir()
    path = tmp_path / "sweeps" / "sweep.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    (found,) = load_sweep(path).trainers
    assert found.command == (
        str(tmp_path / "run"), str(tmp_path / "sweeps" / "train.py"), "--lr=../x", "{request}",
        str(tmp_path.parent / "up.yaml"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "field", "message"),
    [
        (trainer(name="../up"), "trainers.0.name", "match pattern"),
        (trainer(name="base"), "trainers.base.name", "is the name of another row or run"),
        (trainer(name="bf16"), "trainers.bf16.name", "is the name of another row or run"),
        (trainer(name="bf16-s0"), "trainers.bf16-s0.name", "is the name of another row or run"),
        (trainer(command=[]), "trainers.0.command", "at least 1 item"),
        (trainer(command="python train.py"), "trainers.0.command", "must be a list"),
        (trainer(command=["python", ""]), "trainers.0.command.1", "at least 1 character"),
        (trainer(command=["python", "a\0b"]), "trainers.0.command.1", "NUL"),
        (trainer(timeout_s=0), "trainers.0.timeout_s", "greater than 0"),
        (trainer(environment={"A": "b\0"}), "trainers.0.environment.A", "NUL"),
        (trainer(environment={"A": 1}), "trainers.0.environment.A", "must be text"),
        (trainer(environment={"A=B": "1"}), "trainers.0.environment.A=B.[key]", "not a name of an environment"),
        (
            trainer(environment={"SUROGATE_BENCH_TASK_DIR": "/"}),
            "trainers.0.environment.SUROGATE_BENCH_TASK_DIR.[key]",
            "is reserved",
        ),
        (trainer(trained_under="fp7"), "trainers.other.trained_under", "there is no such recipe"),
        (trainer(imag="other:latest"), "trainers.0.imag", "no such field"),
        (trainer(image="Other:latest"), "trainers.0.image", "is not a reference of a container image"),
        (trainer(image="https://registry/other"), "trainers.0.image", "is not a reference of a container image"),
        (trainer(image="other:1 --privileged"), "trainers.0.image", "is not a reference of a container image"),
        (trainer(image="other:1\n"), "trainers.0.image", "is not a reference of a container image"),
        (trainer(image="../other"), "trainers.0.image", "is not a reference of a container image"),
        (trainer(image="other@sha256:abc"), "trainers.0.image", "is not a reference of a container image"),
        (trainer(image=""), "trainers.0.image", "at least 1 character"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_field(entry: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        small_sweep(trainers=[entry])
    assert caught.value.field == field


@pytest.mark.parametrize(
    "changes",
    [
        {"trainers": [trainer(), trainer(command=["b"])]},
        {"trainers": [trainer()], "adapters": [{"name": "other", "hub": "lab/adapter"}]},
        {"trainers": [trainer()], "adapters": [{"name": "other-s0", "hub": "lab/adapter"}]},
        {"trainers": [trainer(), trainer(name="other-s0")]},
    ],
    ids=["twice", "as an adapter", "its run as an adapter", "its run as a trainer"],
)
def test_names_of_rows_and_runs_are_different(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is the name of another row or run of this sweep"):
        small_sweep(**changes)


@pytest.mark.parametrize(("trained_under", "problem"), [(None, "is not known"), ("qbnb", "does not have the recipe")])
def test_a_trainer_of_unknown_precision_is_not_served_under_its_own(trained_under: str | None, problem: str) -> None:
    entry = trainer(trained_under=trained_under)
    with pytest.raises(ConfigError, match=problem) as caught:
        small_sweep(trainers=[entry], serving={"under": ["own"]})
    assert caught.value.field == "trainers.other.trained_under"
    small_sweep(recipes=["bf16", "qbnb"], trainers=[trainer(trained_under="qbnb")], serving={"under": ["own"]})


PREPARED = PrepareResult(
    data={name: SplitInfo(records=1, sha256=name) for name in ("train", "validation", "test")},
    model_source="tiny",
    model_in_store=False,
)


def with_script(digest: str) -> PrepareResult:
    """The result of preparing a sweep whose trainer's first argument is a file."""
    return PREPARED.model_copy(update={"inputs": {"trainers": {"other/1": digest}}})


def identity(sweep: RecipeSweep, prepared: PrepareResult = PREPARED, seed: int = 0) -> str | None:
    return foreign_training_identity(sweep, sweep.trainer("other"), seed, prepared)


def test_command_environment_seed_settings_and_data_identify_a_training_and_names_and_deadlines_do_not() -> None:
    base = identity(small_sweep(trainers=[trainer()]))
    assert base == identity(small_sweep(name="b", trainers=[trainer(timeout_s=5, trained_under="bf16")], seeds=[0, 1]))
    different = [
        identity(small_sweep(trainers=[trainer(command=["{python}", "/other/train2.py"])])),
        identity(small_sweep(trainers=[trainer(environment={"A": "1"})])),
        identity(small_sweep(trainers=[trainer(image="other:1")])),
        identity(small_sweep(trainers=[trainer(image="other:2")])),
        identity(small_sweep(trainers=[trainer()], training={"learning_rate": 1e-3})),
        identity(small_sweep(trainers=[trainer()]), seed=1),
        identity(small_sweep(trainers=[trainer()]), PREPARED.model_copy(update={"data": {}})),
        identity(
            small_sweep(trainers=[trainer()]), PREPARED.model_copy(update={"inputs": {"trainers": {"other/1": "f"}}})
        ),
        training_identity(small_sweep(), small_sweep().recipes[0], 0, PREPARED),
    ]
    assert len({base, *different}) == 1 + len(different)


def test_a_script_is_identified_by_its_content_and_not_by_its_path() -> None:
    prepared = with_script("digest")
    here, there = (small_sweep(trainers=[trainer(command=["{python}", path])]) for path in ("/a/train.py", "/b/t.py"))
    assert identity(here, prepared) == identity(there, prepared)
    assert identity(here) != identity(there)


def test_files_of_a_command_are_inputs_of_the_sweep_and_programs_are_not(tmp_path: Path) -> None:
    script, settings, program = (tmp_path / name for name in ("train.sh", "settings.yaml", "train.bin"))
    script.write_text("#!/bin/sh\n")
    settings.write_text("a: 1\n")
    program.write_bytes(b"\x7fELF")
    for each in (script, program):
        each.chmod(0o755)
    commands = {"one": [str(script), str(settings), str(tmp_path), "--x=/y.py"], "two": [str(program), "{request}"]}
    sweep = small_sweep(trainers=[{"name": name, "command": command} for name, command in commands.items()])
    found = local_input(sweep, "trainers")
    assert found is not None
    assert found.files == {"one/0": script, "one/1": settings}
    assert local_input(small_sweep(), "trainers") is None
