"""What local inputs contain, and how a sweep refuses those that changed after they were prepared."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweeps import small_sweep

from surogate_bench.errors import ConfigError, ExitCode
from surogate_bench.inputs.content import combined, digests_of, model_files, task_files
from surogate_bench.inputs.data_files import split_files
from surogate_bench.inputs.task_files import CONFIGS_VARIABLE
from surogate_bench.layout import SweepLayout
from surogate_bench.results import PrepareResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.local_inputs import digest_inputs, require_unchanged
from surogate_bench.stages.model_source import locate_model
from surogate_bench.stages.publication import new_manifest, publish_stage
from surogate_bench.stages.requests import EvaluateRequest, PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_evaluator.stage import prepare_task


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A folder each of data, model and tasks; the files' contents do not matter here."""
    for name in ("data", "model", "tasks"):
        (tmp_path / name).mkdir()
    for path in ("data/train.jsonl", "data/test.jsonl", "model/config.json", "model/tokenizer.json"):
        (tmp_path / path).write_text("{}", encoding="utf-8")
    (tmp_path / "model/model.safetensors").write_bytes(b"weights")
    (tmp_path / "tasks/ours.yaml").write_text(
        "include: _base.yaml\ndoc_to_text: !function helpers.text\n", encoding="utf-8"
    )
    (tmp_path / "tasks/_base.yaml").write_text("output_type: generate_until\n", encoding="utf-8")
    (tmp_path / "tasks/helpers.py").write_text("def text(doc): return doc\n", encoding="utf-8")
    return tmp_path


def sweep_on(folder: Path, **sections: Any) -> RecipeSweep:
    local: dict[str, Any] = {
        "name": "local",
        "model": {"path": str(folder / "model")},
        "data": {"path": str(folder / "data"), "train_size": None, "test_size": None},
        "evaluation": {"task": "ours", "tasks_dir": str(folder / "tasks")},
    }
    return small_sweep(**local | sections)


def prepared(sweep: RecipeSweep, **changes: Any) -> PrepareResult:
    values = {"data": {}, "model_source": "local", "model_in_store": False, "inputs": digest_inputs(sweep)} | changes
    return PrepareResult.model_validate(values)


def test_the_digest_of_a_model_depends_on_names_and_bytes_and_on_nothing_else(folders: Path, tmp_path: Path) -> None:
    model = folders / "model"
    first = combined(digests_of(model_files(model)))
    copy = shutil.copytree(model, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    os.utime(copy / "model.safetensors", (1, 1))
    (copy / "README.md").write_text("not loaded", encoding="utf-8")
    (copy / "pytorch_model.bin").write_bytes(b"not loaded where there are safetensors")
    (copy / ".cache").mkdir()
    assert combined(digests_of(model_files(copy))) == first
    (copy / "model.safetensors").write_bytes(b"Weights")
    assert combined(digests_of(model_files(copy))) != first
    (copy / "model.safetensors").write_bytes(b"weights")
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    assert combined(digests_of(model_files(copy))) != first


def test_weights_that_are_not_safetensors_count_where_there_are_no_others(folders: Path) -> None:
    (folders / "model/model.safetensors").rename(folders / "model/pytorch_model.bin")
    assert list(model_files(folders / "model")) == ["config.json", "pytorch_model.bin", "tokenizer.json"]


def test_a_model_whose_files_are_links_is_digested_by_what_they_point_to(folders: Path, tmp_path: Path) -> None:
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for path in (folders / "model").iterdir():
        (linked / path.name).symlink_to(path)
    assert digests_of(model_files(linked)) == digests_of(model_files(folders / "model"))


def test_a_task_is_its_file_with_what_that_includes_and_the_functions_it_names(folders: Path) -> None:
    (folders / "tasks/unrelated.yaml").write_text("task: another\n", encoding="utf-8")
    assert list(task_files(folders / "tasks/ours.yaml")) == ["_base.yaml", "helpers.py", "ours.yaml"]


def test_a_task_that_is_a_link_counts_as_what_it_points_to(folders: Path) -> None:
    (folders / "tasks").rename(folders / "tasks-1")  # as Kubernetes mounts a ConfigMap
    (folders / "tasks").mkdir()
    (folders / "tasks/ours.yaml").symlink_to("../tasks-1/ours.yaml")
    sweep = sweep_on(folders)
    result = prepared(sweep)
    assert sorted(result.inputs["tasks"]) == ["_base.yaml", "helpers.py", "ours.yaml"]
    (folders / "tasks-1/_base.yaml").write_text("output_type: multiple_choice\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"evaluation\.tasks_dir: _base\.yaml was changed"):
        require_unchanged(result, sweep)


def test_a_built_in_task_that_is_edited_is_noticed(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    tasks = shutil.copytree(folders / "tasks", tmp_path / "configs/tasks")
    monkeypatch.setenv(CONFIGS_VARIABLE, str(tmp_path / "configs"))
    sweep = sweep_on(folders, evaluation={"task": "ours"})
    result = prepared(sweep)
    with (tasks / "ours.yaml").open("a", encoding="utf-8") as file:
        file.write("num_fewshot: 1\n")
    with pytest.raises(ConfigError, match=r"evaluation\.task: ours\.yaml was changed"):
        require_unchanged(result, sweep)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("data/train.jsonl", "data.path"),
        ("data/test.jsonl", "data.path"),
        ("model/model.safetensors", "model.path"),
        ("model/config.json", "model.path"),
        ("model/tokenizer.json", "model.path"),
        ("tasks/ours.yaml", "evaluation.tasks_dir"),
        ("tasks/_base.yaml", "evaluation.tasks_dir"),
        ("tasks/helpers.py", "evaluation.tasks_dir"),
    ],
)
def test_a_local_file_that_changed_after_it_was_prepared_is_named_with_both_digests(
    folders: Path, path: str, field: str
) -> None:
    sweep = sweep_on(folders)
    result = prepared(sweep)
    before = digests_of({"it": folders / path})["it"]
    with (folders / path).open("a", encoding="utf-8") as file:
        file.write("\n")
    after = digests_of({"it": folders / path})["it"]
    with pytest.raises(ConfigError) as caught:
        require_unchanged(result, sweep)
    assert caught.value.field == field
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    message = str(caught.value)
    assert f"{Path(path).name} was changed" in message
    assert f"sha256 {before[:12]} then, {after[:12]} now" in message
    assert "restore it, or give the sweep another name" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: (folder / "data/validation.jsonl").touch(), "validation.jsonl was added"),
        (
            lambda folder: (folder / "data/train.jsonl").rename(folder / "data/train.json"),
            "train.json (and 1 more file",
        ),
        (lambda folder: (folder / "model/tokenizer.json").unlink(), "tokenizer.json was removed"),
        (lambda folder: (folder / "model/chat_template.jinja").touch(), "chat_template.jinja was added"),
    ],
)
def test_files_that_come_or_go_are_changes_too(folders: Path, change: Callable[[Path], None], expected: str) -> None:
    sweep = sweep_on(folders)
    result = prepared(sweep)
    change(folders)
    with pytest.raises(ConfigError) as caught:
        require_unchanged(result, sweep)
    assert expected in str(caught.value)


def test_what_an_older_version_prepared_passes(folders: Path) -> None:
    sweep = sweep_on(folders)
    (folders / "data/train.jsonl").write_text("other", encoding="utf-8")
    require_unchanged(prepared(sweep, inputs={}), sweep)


def test_every_stage_that_loads_the_model_refuses_another_one_in_its_folder(folders: Path, tmp_path: Path) -> None:
    sweep = sweep_on(folders)
    store, layout = open_store(str(tmp_path / "store")), SweepLayout(sweep.name, sweep.spec_hash)
    (tmp_path / "outputs").mkdir()
    request = PrepareRequest(sweep=sweep, store=store.url)
    publish_stage(store, layout.prepare, tmp_path / "outputs", new_manifest(request, prepared(sweep)))
    located = locate_model(sweep.model, store=store, layout=layout, cache=tmp_path / "cache")
    assert located.name_or_path == str(folders / "model")
    (folders / "model/model.safetensors").write_bytes(b"another")
    with pytest.raises(ConfigError, match=r"model\.path: model\.safetensors was changed"):
        locate_model(sweep.model, store=store, layout=layout, cache=tmp_path / "cache")


def test_an_evaluation_refuses_a_task_that_was_edited_between_two_of_them(folders: Path, tmp_path: Path) -> None:
    sweep = sweep_on(folders)
    request = EvaluateRequest(sweep=sweep, store=str(tmp_path / "store"), run="base", server_url="http://unused")
    (tmp_path / "outputs/data").mkdir(parents=True)
    (tmp_path / "outputs/data/test.jsonl").write_text('{"question": "q", "answer": "#### 1"}\n' * 2, encoding="utf-8")
    store = open_store(request.store)
    prepare = PrepareRequest(sweep=sweep, store=request.store)
    publish_stage(store, request.layout.prepare, tmp_path / "outputs", new_manifest(prepare, prepared(sweep)))
    assert prepare_task(request, store, tmp_path / "first").name == "ours.yaml"
    (folders / "tasks/_base.yaml").write_text("output_type: multiple_choice\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"evaluation\.tasks_dir: _base\.yaml was changed"):
        prepare_task(request, store, tmp_path / "second")


def test_a_link_to_nothing_in_place_of_a_split_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(ConfigError, match=r"train\.jsonl is not a file, or a link to one that exists"):
        split_files(tmp_path)


@pytest.mark.parametrize("name", ["json", "csv", "parquet", "jsonl.gz", "json.gz", "csv.gz", "parquet.gz"])
def test_a_split_is_found_in_any_format_and_two_files_for_it_are_refused(folders: Path, name: str) -> None:
    (folders / "data/train.jsonl").rename(folders / f"data/train.{name}")
    assert split_files(folders / "data") == {
        "train": (folders / f"data/train.{name}",),
        "test": (folders / "data/test.jsonl",),
    }
    (folders / "data/train.jsonl").touch()
    with pytest.raises(ConfigError, match=rf"2 files for the train split: train\.jsonl, train\.{name}"):
        split_files(folders / "data")


def test_a_folder_that_a_further_task_names_is_missed_by_that_setting(folders: Path) -> None:
    missing, doubled = str(folders / "nowhere"), folders / "data"
    (doubled / "test.csv").touch()
    for entry, why in (
        ({"data": {"path": missing}}, r"^evaluation\.tasks\.other\.data\.path: there is no such folder or file"),
        ({"data": {"path": str(doubled)}}, r"^evaluation\.tasks\.other\.data\.path: .* or give the file itself"),
        ({"tasks_dir": missing}, r"^evaluation\.tasks\.other\.tasks_dir: is not a folder"),
        ({}, r"^evaluation\.tasks\.other: .* add other\.yaml to its tasks_dir"),
    ):
        sweep = sweep_on(folders, evaluation={"task": "ro_gsm8k", "tasks": [{"name": "other", **entry}]})
        with pytest.raises(ConfigError, match=why):
            digest_inputs(sweep, ["further_tasks"] if "data" not in entry else ["task_data"])
