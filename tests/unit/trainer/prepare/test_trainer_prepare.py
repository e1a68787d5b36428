"""The prepare stage: what it publishes, and what it refuses with which message."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeps import MakeSweep

from surogate_bench.errors import ConfigError
from surogate_bench.results import PrepareResult
from surogate_bench.specs import DataSpec, RecipeSweep
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_trainer.data.records import read_prepared
from surogate_bench_trainer.prepare import prepare_stage
from surogate_bench_trainer.prepare.dataset.sources import load_splits
from surogate_bench_trainer.prepare.disk import translate_disk_errors


def prepare(sweep: RecipeSweep, tmp_path: Path) -> tuple[PrepareResult, Path]:
    request = PrepareRequest(sweep=sweep, store=str(tmp_path / "store"))
    work_dir = tmp_path / "work"
    work_dir.mkdir(exist_ok=True)
    prepare_stage(request, work_dir)
    manifest = read_manifest(open_store(request.store), request.layout.prepare)
    assert manifest is not None
    return manifest.require_result(PrepareResult), tmp_path / "store" / request.layout.prepare


def refused(sweep: RecipeSweep, tmp_path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        prepare(sweep, tmp_path)
    return caught.value


def copy_of(data_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(data_folder, tmp_path / "data")


def rewrite(path: Path, number: int, text: str) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_local_folder_is_published_as_three_splits(make_sweep: MakeSweep, tmp_path: Path) -> None:
    sweep = make_sweep(data={"train_size": 50, "test_size": 5, "validation_size": 7})
    result, published = prepare(sweep, tmp_path)
    assert {name: info.records for name, info in result.data.items()} == {"train": 50, "validation": 7, "test": 5}
    records = read_prepared(published / "data" / "train.jsonl")
    assert len(records) == 50
    assert records[0].answer.splitlines()[-1].startswith("#### ")
    assert not result.model_in_store


def test_the_sweep_in_the_notes_of_the_chart_can_be_prepared(tmp_path: Path) -> None:
    notes = (Path(__file__).parents[4] / "charts" / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    _, _, shown = notes.partition("<<'EOF'\n")
    resource = yaml.safe_load(shown.partition("   EOF")[0])
    sweep = parse_sweep({"name": resource["metadata"]["name"], **resource["spec"]})
    result, _ = prepare(sweep, tmp_path)
    assert result.data["test"].records == 500


def test_a_builtin_data_set_is_generated_with_disjoint_splits(make_sweep: MakeSweep, tmp_path: Path) -> None:
    spec = DataSpec(builtin="word-problems-ro", train_size=30, validation_size=5, test_size=8)
    splits = load_splits(spec)
    assert {name: len(records) for name, records in splits.items()} == {"train": 30, "validation": 5, "test": 8}
    questions = [record.question for records in splits.values() for record in records]
    assert len(set(questions)) == 43
    document = spec.model_dump(mode="json", exclude_none=True)
    result, _ = prepare(make_sweep(data=document), tmp_path)
    assert result.data["test"].records == 8


def test_without_a_validation_split_the_end_of_train_is_held_out(data_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(data_folder, tmp_path)
    (folder / "validation.jsonl").unlink()
    whole = read_prepared(folder / "train.jsonl")
    splits = load_splits(DataSpec(path=folder, validation_size=12))
    assert splits["train"] == whole[:-12]
    assert splits["validation"] == whole[-12:]


def test_a_second_prepare_does_nothing(make_sweep: MakeSweep, tmp_path: Path) -> None:
    sweep = make_sweep()
    _, published = prepare(sweep, tmp_path)
    before = (published / "manifest.json").read_bytes()
    prepare(sweep, tmp_path)
    assert (published / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "number", "text", "field", "message"),
    [
        ("train.jsonl", 17, '{"question": "x", ', "data.train:17", "is not JSON"),
        ("test.jsonl", 3, "[1, 2]", "data.test:3", "must be an object"),
        ("test.jsonl", 4, '{"question": "x", "reply": "y"}', "data.test:4", "no text in its field 'answer'"),
        ("train.jsonl", 5, '{"question": " ", "answer": "y"}', "data.train:5", "no text in its field 'question'"),
        ("train.jsonl", 5, '{"question": [5], "answer": "y"}', "data.train:5", "no text in its field 'question'"),
        ("test.jsonl", 9, '{"question": "x", "answer": 9}', "data.test:9", "does not end with '#### N'"),
        ("test.jsonl", 9, '{"question": "x", "answer": "It is 9."}', "data.test:9", "does not end with '#### N'"),
    ],
)
def test_a_bad_record_is_named_with_file_and_line(
    make_sweep: MakeSweep,
    data_folder: Path,
    tmp_path: Path,
    file: str,
    number: int,
    text: str,
    field: str,
    message: str,
) -> None:
    folder = copy_of(data_folder, tmp_path)
    rewrite(folder / file, number, text)
    error = refused(make_sweep(data={"path": str(folder)}), tmp_path)
    assert error.field == field
    assert message in str(error)
    assert error.remedy


def test_a_task_of_the_users_own_may_score_answers_of_another_form(
    make_sweep: MakeSweep, data_folder: Path, tmp_path: Path
) -> None:
    folder = copy_of(data_folder, tmp_path)
    rewrite(folder / "test.jsonl", 9, '{"question": "x", "answer": 9}')
    (tmp_path / "mine.yaml").write_text("task: mine\n", encoding="utf-8")
    evaluation = {"task": "mine", "tasks_dir": str(tmp_path)}
    _, published = prepare(make_sweep(data={"path": str(folder)}, evaluation=evaluation), tmp_path)
    assert read_prepared(published / "data" / "test.jsonl")[8].answer == "9"


def test_other_field_names_can_be_chosen(make_sweep: MakeSweep, data_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(data_folder, tmp_path)
    for path in folder.glob("*.jsonl"):
        path.write_text(path.read_text(encoding="utf-8").replace('"question"', '"frage"'), encoding="utf-8")
    result, _ = prepare(make_sweep(data={"path": str(folder), "question_field": "frage"}), tmp_path)
    assert result.data["train"].records == 60


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"data": {"path": "/nowhere"}}, "data.path", "no such folder"),
        ({"data": {"train_size": 61}}, "data.train_size", "available records, 60"),
        ({"data": {"test_size": 11}}, "data.test_size", "available records, 10"),
        ({"training": {"max_length": 100}}, "training.max_length", "samples are never cut"),
        ({"training": {"max_length": 2048}}, "training.max_length", "at most 1024 positions"),
        ({"serving": {"max_model_len": 2048}}, "serving.max_model_len", "at most 1024 positions"),
        ({"serving": {"max_model_len": 100}}, "serving.max_model_len", "tokens together"),
        ({"evaluation": {"task": "mmlu"}}, "evaluation.task", "Choose one of en_gsm8k, gsm8k, ro_gsm8k"),
        ({"evaluation": {"tasks_dir": "/nowhere"}}, "evaluation.tasks_dir", "is not a folder"),
        ({"evaluation": {"num_fewshot": 8}}, "serving.max_model_len", "tokens together"),
        ({"model": {"path": "/nowhere"}}, "model.path", "no config.json"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(
    make_sweep: MakeSweep, tmp_path: Path, changes: dict[str, Any], field: str, message: str
) -> None:
    error = refused(make_sweep(**changes), tmp_path)
    assert error.field == field
    assert message in str(error)


def test_the_longest_sample_is_named_with_its_tokens(make_sweep: MakeSweep, data_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(data_folder, tmp_path)
    rewrite(folder / "train.jsonl", 6, json.dumps({"question": "q" * 600, "answer": "#### 1"}))
    error = refused(make_sweep(data={"path": str(folder)}), tmp_path)
    tokens = len("Question: \nAnswer:") + 600 + len(" #### 1") + 1
    assert f"1 of 60 train samples are longer than training.max_length; the longest, record 6, has {tokens}" in str(
        error
    )
    assert str(tokens) in error.remedy


@pytest.mark.parametrize("missing", ["train.jsonl", "test.jsonl"])
def test_a_missing_split_is_refused(make_sweep: MakeSweep, data_folder: Path, tmp_path: Path, missing: str) -> None:
    folder = copy_of(data_folder, tmp_path)
    (folder / missing).unlink()
    error = refused(make_sweep(data={"path": str(folder)}), tmp_path)
    assert missing in str(error)


def test_an_empty_split_is_refused(make_sweep: MakeSweep, data_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(data_folder, tmp_path)
    (folder / "test.jsonl").write_text("\n", encoding="utf-8")
    assert "no test records" in str(refused(make_sweep(data={"path": str(folder)}), tmp_path))


def test_a_validation_size_that_leaves_nothing_to_train_on_is_refused(
    make_sweep: MakeSweep, data_folder: Path, tmp_path: Path
) -> None:
    folder = copy_of(data_folder, tmp_path)
    (folder / "validation.jsonl").unlink()
    error = refused(make_sweep(data={"path": str(folder), "validation_size": 60}), tmp_path)
    assert error.field == "data.validation_size"


def test_a_data_file_that_is_not_utf8_is_refused(make_sweep: MakeSweep, data_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(data_folder, tmp_path)
    (folder / "train.jsonl").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in str(refused(make_sweep(data={"path": str(folder)}), tmp_path))


def test_test_questions_in_the_training_split_are_counted_in_a_warning(
    make_sweep: MakeSweep, data_folder: Path, tmp_path: Path
) -> None:
    folder = copy_of(data_folder, tmp_path)
    leaked = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]
    rewrite(folder / "test.jsonl", 2, leaked)
    result, _ = prepare(make_sweep(data={"path": str(folder)}), tmp_path)
    assert result.warnings == (
        "1 of 10 test questions is in the training split too, so accuracies may reflect memorized answers.",
    )


def test_a_test_split_that_equals_the_training_split_gives_one_warning(
    make_sweep: MakeSweep, data_folder: Path, tmp_path: Path
) -> None:
    folder = copy_of(data_folder, tmp_path)
    shutil.copy(folder / "train.jsonl", folder / "test.jsonl")
    result, _ = prepare(make_sweep(data={"path": str(folder)}), tmp_path)
    assert [warning.partition(",")[0] for warning in result.warnings] == [
        "All 60 test questions are in the training split too"
    ]


def test_records_that_are_repeated_within_a_split_are_counted(
    make_sweep: MakeSweep, data_folder: Path, tmp_path: Path
) -> None:
    folder = copy_of(data_folder, tmp_path)
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    for number in (3, 4, 5):
        rewrite(folder / "train.jsonl", number, lines[0])
    result, _ = prepare(make_sweep(data={"path": str(folder)}), tmp_path)
    assert result.warnings == ("3 of 60 train records are repetitions of an earlier one.",)


def test_validation_questions_in_the_training_split_give_a_warning(
    make_sweep: MakeSweep, data_folder: Path, tmp_path: Path
) -> None:
    folder = copy_of(data_folder, tmp_path)
    shutil.copy(folder / "train.jsonl", folder / "validation.jsonl")
    result, _ = prepare(make_sweep(data={"path": str(folder)}), tmp_path)
    (warning,) = result.warnings
    assert warning.startswith("All 10 validation questions are in the training split too")


def test_data_without_repetitions_is_prepared_without_a_warning(make_sweep: MakeSweep, tmp_path: Path) -> None:
    assert prepare(make_sweep(), tmp_path)[0].warnings == ()


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ({"skip_first_layers": 1, "skip_last_layers": 1, "compute": "fp8-hybrid"}, {}, "none of the model's 2"),
        ({"compute": "nvfp4"}, {"intermediate_size": 72}, "intermediate_size is 72"),
        ({"weight_storage": "nvfp4"}, {"hidden_size": 72}, "hidden_size is 72"),
    ],
)
def test_a_recipe_that_does_not_fit_the_model_is_refused_before_training(
    make_sweep: MakeSweep,
    model_folder: Path,
    tmp_path: Path,
    recipe: dict[str, Any],
    changes: dict[str, int],
    message: str,
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    spelled_out = {"name": "mine", "title": "Mine", "weight_storage": "bf16", "compute": "bf16"} | recipe
    error = refused(make_sweep(model={"path": str(folder)}, recipes=[spelled_out]), tmp_path)
    assert error.field.startswith("recipe mine")
    assert message in str(error)


TASK_ENDS = "answers end at the task's stop strings,"


@pytest.mark.parametrize(
    ("configured", "template", "ends", "warning"),
    [
        ({"eos_token_id": 0}, None, (0,), f"{TASK_ENDS} at <|endoftext|>, or after evaluation.max_gen_toks tokens"),
        ({"eos_token_id": [0, 70]}, None, (0,), f"{TASK_ENDS} at <|endoftext|>, or after"),  # 70 is a letter
        ({"eos_token_id": 70}, None, (), f"{TASK_ENDS} or after"),
        ({}, None, (), f"{TASK_ENDS} or after"),
        ({}, "{% for m in messages %}{{ m.content }}\n<|pad|>\n{% endfor %}", (1,), "at <|pad|>, or after"),
        ({}, "{% for m in messages %}{{ m.content }}\n{% endfor %}", (), f"{TASK_ENDS} or after"),
        ({}, "{{ raise_exception('no') }}", (), f"{TASK_ENDS} or after"),
    ],
)
def test_a_model_without_an_end_of_text_token_ends_at_special_tokens_alone_with_a_warning(
    make_sweep: MakeSweep,
    model_folder: Path,
    tmp_path: Path,
    configured: dict[str, Any],
    template: str | None,
    ends: tuple[int, ...],
    warning: str,
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    changed = {"config.json": configured, "generation_config.json": configured, "tokenizer_config.json": {}}
    for name, values in changed.items():
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        for end in ("eos_token", "eos_token_id"):
            settings.pop(end, None)
        (folder / name).write_text(json.dumps(settings | values), encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    result, _ = prepare(make_sweep(model={"path": str(folder)}), tmp_path)
    assert result.answer_ends == ends
    (said,) = result.warnings
    assert said.startswith("the tokenizer has no end-of-text token, so none is appended in training, which does not")
    assert warning in said


def test_the_end_of_a_configuration_counts_where_nothing_is_said_of_generation(
    make_sweep: MakeSweep, model_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    (folder / "generation_config.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    del settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    result, _ = prepare(make_sweep(model={"path": str(folder)}), tmp_path)
    assert result.answer_ends == (0,)


def test_a_tokenizer_with_an_end_of_text_token_leaves_ends_to_the_server(make_sweep: MakeSweep, tmp_path: Path) -> None:
    result, _ = prepare(make_sweep(), tmp_path)
    assert (result.answer_ends, result.warnings) == (None, ())
    assert "answer_ends" not in result.model_dump()


def test_a_sample_without_a_token_to_learn_is_refused(
    make_sweep: MakeSweep, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    model, data = shutil.copytree(model_folder, tmp_path / "model"), copy_of(data_folder, tmp_path)
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    del settings["eos_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    for split in ("train", "validation"):  # "a" follows no token
        (data / f"{split}.jsonl").write_text('{"text": "ab"}\n{"text": "a"}\n', encoding="utf-8")
    sweep = make_sweep(model={"path": str(model)}, data={"path": str(data), "validation_size": 1})
    assert "data.train:2: no token of this sample is included in the loss" in str(refused(sweep, tmp_path))


def test_a_model_folder_that_cannot_be_loaded_is_refused(make_sweep: MakeSweep, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}', encoding="utf-8")
    assert "this architecture is not supported" in str(refused(make_sweep(model={"path": str(tmp_path)}), tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    assert "cannot be loaded" in str(refused(make_sweep(model={"path": str(tmp_path)}), tmp_path))


def test_too_little_disk_space_is_refused_before_anything_is_written(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 << 20))
    error = refused(make_sweep(), tmp_path)
    assert error.field == "work-dir"
    assert "5 MiB free, and preparing needs at least" in str(error)


def test_a_store_that_cannot_be_written_is_refused(make_sweep: MakeSweep, tmp_path: Path) -> None:
    blocked = tmp_path / "store"
    blocked.mkdir()
    (blocked / ".probes").write_text("a file where a folder must go", encoding="utf-8")
    assert refused(make_sweep(), tmp_path).field == "store"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_fills_up_is_reported_as_such(tmp_path: Path, number: int) -> None:
    with pytest.raises(ConfigError, match="work-dir: cannot be written"), translate_disk_errors(tmp_path):
        raise OSError(number, "no")


def test_other_operating_system_errors_are_not_disguised(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError), translate_disk_errors(tmp_path):
        raise ConnectionError
