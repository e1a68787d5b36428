"""``evaluation.tasks``: one primary task, equal to ``evaluation.task``, and further ones."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeps import small_document, small_sweep

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.content import output_type
from surogate_bench.inputs.task_files import TaskFolders
from surogate_bench.results import PrepareResult, SplitInfo
from surogate_bench.specs import RecipeSweep, load_sweep
from surogate_bench.specs.task_errors import errors_of_task
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.stages.identity import evaluation_identity

ENGLISH = {"name": "en", "data": {"builtin": "word-problems-en", "test_size": 5}}
TASKS_DIR = {"tasks_dir": "/tasks"}


def with_data(**changes: Any) -> dict[str, Any]:
    """A further task with other settings of its data."""
    return {**ENGLISH, "data": {"builtin": "word-problems-en", "test_size": 5, **changes}}


def scored(tasks: list[Any], **evaluation: Any) -> RecipeSweep:
    return small_sweep(evaluation={"tasks": tasks, **evaluation})


@pytest.mark.parametrize(
    "tasks",
    [
        ["mine"],
        [{"name": "mine"}],
        [{"name": "mine", "primary": True}],
    ],
)
def test_a_single_task_in_the_list_is_the_same_sweep_as_without_a_list(tasks: list[Any]) -> None:
    assert scored(tasks).spec_hash == small_sweep(evaluation={"task": "mine"}).spec_hash


@pytest.mark.parametrize("name", ["Ro-GSM8K_v1.1", "a", "x" * 50])
def test_the_primary_task_may_be_called_as_any_further_one(name: str) -> None:
    primary = small_sweep(evaluation={"task": name})
    assert scored([name]).spec_hash == primary.spec_hash
    assert scored(["mine", name]).evaluation.further_tasks == (name,)


@pytest.mark.parametrize("name", ["../b", "a/b", "-a", "x" * 51, "a.", ""])
def test_both_spellings_refuse_the_same_names(name: str) -> None:
    for evaluation in ({"task": name}, {"tasks": [name]}, {"tasks": ["mine", name]}):
        with pytest.raises(ConfigError, match="pattern"):
            small_sweep(evaluation=evaluation)


def test_settings_of_the_primary_task_are_those_of_the_evaluation() -> None:
    listed = scored([ENGLISH, {"name": "mine", "primary": True, "limit": 4, "max_gen_toks": 9, **TASKS_DIR}])
    plain = small_sweep(
        evaluation={"task": "mine", "limit": 4, "max_gen_toks": 9, "tasks": [ENGLISH], **TASKS_DIR},
    )
    assert listed == plain
    assert listed.evaluation.further_tasks == ("en",)


def test_the_first_task_is_primary_where_none_is_marked() -> None:
    assert scored(["mine", ENGLISH]).evaluation.task == "mine"


def test_a_sweep_that_is_written_out_is_read_as_the_same() -> None:
    sweep = scored(["mine", ENGLISH, {"name": "other", "num_fewshot": 3}])
    assert parse_sweep(sweep.model_dump(mode="json", exclude_none=True)) == sweep
    assert RecipeSweep.model_validate_json(sweep.model_dump_json()).spec_hash == sweep.spec_hash


@pytest.mark.parametrize(
    ("evaluation", "why"),
    [
        ({"tasks": ["mine", "mine"]}, "mine appears more than once"),
        ({"task": "mine", "tasks": [{"name": "mine"}]}, "mine appears more than once"),
        (
            {"tasks": [{"name": "a", "primary": True}, {"name": "b", "primary": True}]},
            "only one may be primary, and a and b are",
        ),
        ({"task": "mine", "tasks": [{"name": "b", "primary": True}]}, "only one may be primary, and mine and b are"),
        ({"tasks": [{"name": "mine", "limit": 3}], "limit": 4}, "limit is given in evaluation and for mine"),
        ({"tasks": [ENGLISH]}, "en is primary and scores the test records of data"),
        ({"tasks": ["mine", {"name": "b", "keep_from_task": ["prompt"]}]}, "remove its keep_from_task"),
        ({"tasks": ["mine", ENGLISH | {"num_fewshot": 2}]}, "remove its num_fewshot"),
        ({"tasks": ["mine", {"name": "b", "data": {"builtin": "word-problems-en"}}]}, "needs test_size"),
        ({"tasks": ["mine", {"name": "b", "data": {}}]}, "exactly one"),
        (
            {"tasks": ["mine", with_data(prompt="Q: {question} {other}")]},
            r"^evaluation.tasks.1.data: prompt has {other}",
        ),
        ({"tasks": ["mine", with_data(prompt="Q:")]}, "^evaluation.tasks.1.data: prompt must contain {question}"),
        ({"tasks": ["mine", with_data(fields={"question": "q"})]}, "is generated as it is: remove fields"),
        ({"tasks": ["mine", with_data(revision="main")]}, "^evaluation.tasks.1.data: revision only applies to hub"),
        ({"tasks": ["mine", {"name": "b", "data": {"path": "/x", "config": "main"}}]}, "config only applies to hub"),
        (
            {"tasks": ["mine", {"name": "b", "data": {"path": "/x", "seed": 1}}]},
            "seed only applies to a built-in data set",
        ),
        ({"tasks": ["mine", {"name": "b", "primary": 1}]}, r"^evaluation.tasks.1.primary: .* valid boolean"),
        ({"tasks": [{"name": "mine", "primary": "true"}]}, r"^evaluation.tasks.0.primary: .* valid boolean"),
        ({"tasks": [{"name": "mine", "task": "other"}, "b"]}, r"^evaluation.tasks.0.task: there is no such field"),
        ({"tasks": ["b", {"name": "mine", "primary": True, "timeout_s": 5}]}, r"^evaluation.tasks.1.timeout_s: there"),
        ({"tasks": [{"name": "mine", "limits": 5}]}, r"^evaluation.tasks.0.limits: there is no such field"),
        ({"tasks": [{"limit": 5}]}, r"^evaluation.tasks.0.name: Field required"),
        ({"tasks": ["mine", {"name": "../b"}]}, r"^evaluation.tasks.1.name: .*pattern"),
        ({"tasks": ["../mine", "b"]}, r"^evaluation.tasks.0: .*pattern"),
        ({"tasks": ["b", {"name": "../mine", "primary": True}]}, r"^evaluation.tasks.1.name: .*pattern"),
        ({"tasks": [{"name": "b", "limit": 1}, {"name": "mine", "primary": True}]}, r"^evaluation.tasks.0.limit: "),
        ({"tasks": ["b", {"name": "mine", "primary": True, "limit": 1}]}, r"^evaluation.tasks.1.limit: "),
        ({"tasks": ["mine", {"name": "b", "limit": 1}], "limit": 1}, r"^evaluation.tasks.1.limit: .*evaluation.limit"),
        ({"task": "mine", "tasks": [{"name": "b", "limit": 1}]}, r"^evaluation.tasks.0.limit: "),
        ({"tasks": ["mine", {"name": "b", "seed": 1}]}, "no such field"),
        ({"tasks": [7]}, "must be a mapping"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(evaluation: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_sweep(small_document(evaluation=evaluation))


def test_a_further_task_is_scored_on_its_own_file_s_data_unless_others_are_given() -> None:
    sweep = scored(["mine", ENGLISH, "other"], max_gen_toks=50)
    english, other = sweep.of_task("en"), sweep.of_task("other")
    assert (english.data.builtin, english.data.test_size) == ("word-problems-en", 5)
    assert english.evaluation.keep_from_task == ()
    assert english.evaluation.max_gen_toks == 50
    assert other.evaluation.keep_from_task == ("data", "prompt", "num_fewshot")
    assert other.data == sweep.data
    assert sweep.of_task(None) is sweep


def test_paths_of_further_tasks_are_relative_to_the_sweep_file(tmp_path: Path) -> None:
    document = small_document(
        evaluation={"tasks": ["mine", {"name": "b", "tasks_dir": "tasks", "data": {"path": "records"}}]}
    )
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(document))
    sweep = load_sweep(tmp_path / "sweep.yaml")
    assert sweep.evaluation.tasks[0].tasks_dir == tmp_path / "tasks"
    assert sweep.of_task("b").data.path == tmp_path / "records"


def prepared(**tasks: str) -> PrepareResult:
    return PrepareResult(
        data={"train": SplitInfo(records=8, sha256="a"), "test": SplitInfo(records=8, sha256="b")},
        model_source="tiny",
        model_in_store=False,
        tasks={name: SplitInfo(records=5, sha256=digest) for name, digest in tasks.items()},
    )


def test_a_further_task_is_the_same_evaluation_as_that_task_alone() -> None:
    english = {"builtin": "word-problems-en", "test_size": 5}
    sweep = scored(["gsm8k", {"name": "ro_gsm8k", "data": english}], max_gen_toks=128)
    found = evaluation_identity(sweep.of_task("ro_gsm8k"), prepared(ro_gsm8k="c").of_task("ro_gsm8k"), "adapter")
    alone = small_sweep(
        data={"builtin": "word-problems-en", "test_size": 5, "prompt": "Question: {question}\nAnswer:"},
        evaluation={"task": "ro_gsm8k", "max_gen_toks": 128},
    )
    other = prepared().model_copy(update={"data": {"test": SplitInfo(records=5, sha256="c")}})
    assert found is not None
    assert found == evaluation_identity(alone, other, "adapter")
    assert found != evaluation_identity(sweep, prepared(ro_gsm8k="c"), "adapter")


def test_a_metric_is_part_of_what_determines_an_evaluation() -> None:
    sweeps = (small_sweep(evaluation=each) for each in ({}, {"metric": "exact_match,flexible-extract"}))
    assert len({evaluation_identity(each, prepared(), "adapter") for each in sweeps}) == 2


def test_any_task_of_lm_evals_collection_is_found_by_name() -> None:
    folders = TaskFolders.of(None)
    assert folders.find("arc_challenge").name == "arc_challenge.yaml"
    assert folders.find("gsm8k").name == "gsm8k.yaml"
    with pytest.raises(ConfigError, match="there is no such task"):
        folders.require("arc_impossible")


@pytest.mark.parametrize(
    ("field", "of_entry"),
    [
        ("evaluation.task", "evaluation.tasks.en"),
        ("evaluation.limit", "evaluation.tasks.en.limit"),
        ("evaluation.max_gen_toks", "evaluation.tasks.en.max_gen_toks"),
        ("data", "evaluation.tasks.en.data"),
        ("data.test:3", "evaluation.tasks.en.data.test:3"),
        ("data.test_size", "evaluation.tasks.en.data.test_size"),
        ("serving.max_model_len", "serving.max_model_len"),
        ("test.jsonl:3", "test.jsonl:3"),
    ],
)
def test_an_error_about_a_further_task_names_the_settings_of_its_entry(field: str, of_entry: str) -> None:
    sweep = RecipeSweep.model_validate_json(scored(["mine", {**ENGLISH, "limit": 4}]).model_dump_json())
    for task, expected in ((None, field), ("en", of_entry)):
        with pytest.raises(ConfigError) as caught, errors_of_task(sweep.evaluation, task):
            raise ConfigError("is wrong", field=field, value=3, remedy="Correct it.")
        assert (caught.value.field, caught.value.value, caught.value.remedy) == (expected, 3, "Correct it.")
        assert caught.value.problem == "is wrong"


def test_problem_and_remedy_name_the_settings_of_the_entry_too() -> None:
    sweep = scored(["mine", ENGLISH])
    remedy = "Set data.question_field or evaluation.limit."
    with pytest.raises(ConfigError) as caught, errors_of_task(sweep.evaluation, "en"):
        raise ConfigError("data.path has no data", field="data.path", remedy=remedy)
    assert caught.value.problem == "evaluation.tasks.en.data.path has no data"
    assert caught.value.remedy == "Set evaluation.tasks.en.data.fields.question or evaluation.tasks.en.limit."


def test_an_error_about_the_sweeps_data_stays_where_a_task_has_none_of_its_own() -> None:
    sweep = scored(["mine", "other"])
    with pytest.raises(ConfigError) as caught, errors_of_task(sweep.evaluation, "other"):
        raise ConfigError("is wrong", field="data.path", remedy="Correct it.")
    assert caught.value.field == "data.path"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.yaml": "task: a\noutput_type: multiple_choice  # of four\n"}, "multiple_choice"),
        ({"a.yaml": "task: a\n"}, None),
        ({"a.yaml": "include: b.yaml\n", "b.yaml": "output_type: 'multiple_choice'\n"}, "multiple_choice"),
        ({"a.yaml": "include: b.yaml\noutput_type: generate_until\n", "b.yaml": "output_type: x\n"}, "generate_until"),
        ({"a.yaml": "include: b.yaml\n", "b.yaml": "include: a.yaml\n"}, None),
        ({"a.yaml": "include: gone.yaml\n"}, None),
    ],
)
def test_the_output_type_of_a_task_is_read_without_lm_eval(
    tmp_path: Path, files: dict[str, str], expected: str | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert output_type(tmp_path / "a.yaml") == expected
