"""Task files: found, fitted to a sweep, and read by lm-eval as meant."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeps import small_sweep

from surogate_bench.contract import CONFIGS_VARIABLE
from surogate_bench.errors import ConfigError
from surogate_bench.inputs.task_files import TaskFolders, builtin_tasks
from surogate_bench.specs.sweep import RecipeSweep
from surogate_bench_evaluator.answers import Answers
from surogate_bench_evaluator.tasks import render_task

CONFIGS = Path(__file__).parents[3] / "configs"
RO_GSM8K = CONFIGS / "tasks" / "ro_gsm8k.yaml"


def sweep(*, evaluation: dict[str, Any] | None = None, **data: Any) -> RecipeSweep:
    return small_sweep(data=data, evaluation=evaluation or {})


def test_the_shipped_tasks_are_found_from_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIGS_VARIABLE, raising=False)
    assert TaskFolders.of(None).find("ro_gsm8k") == RO_GSM8K


def test_an_installed_service_finds_its_tasks_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "other.yaml").touch()
    monkeypatch.setenv(CONFIGS_VARIABLE, str(tmp_path))
    assert TaskFolders.of(None).find("other") == tmp_path / "tasks" / "other.yaml"
    monkeypatch.setenv(CONFIGS_VARIABLE, str(tmp_path / "absent"))
    assert builtin_tasks() is None


def test_the_users_own_task_comes_before_a_shipped_one_and_the_others_stay_available(tmp_path: Path) -> None:
    (tmp_path / "ro_gsm8k.yaml").touch()
    folders = TaskFolders.of(tmp_path)
    assert folders.find("ro_gsm8k") == tmp_path / "ro_gsm8k.yaml"
    (tmp_path / "ro_gsm8k.yaml").rename(tmp_path / "mine.yaml")
    assert folders.find("ro_gsm8k") == RO_GSM8K


def test_an_unknown_task_names_the_known_ones_but_not_the_included_parts(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "_common.yaml").touch()
    with pytest.raises(
        ConfigError,
        match=r"Choose one of en_gsm8k, gsm8k, mine, ro_gsm8k, word_problem_choice, another of .*, or add nope\.yaml",
    ) as caught:
        TaskFolders.of(tmp_path).find("nope")
    assert caught.value.field == "evaluation.task"


def test_without_any_folder_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CONFIGS_VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match=r"Choose one of gsm8k, another of .*folders searched: none"):
        TaskFolders.of(None).find("ro_gsm8k")


def test_a_tasks_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.tasks_dir: is not a folder"):
        TaskFolders.of(tmp_path / "absent")


def prepared(folder: Path) -> Path:
    folder.mkdir()
    for split in ("train", "test"):
        records = [{"question": "Câte {mere} {{are}} {% if %}?", "answer": f"{split}.\n#### 5"}]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.mark.parametrize(
    "prompt",
    [
        "Întrebare: {question}\nRăspuns:",
        "{question}",
        "{question}\n",
        "Twice: {question} / {question}?",
        "Braces: { other } {{question}} {% raw %} {# no #} 'quoted' \"double\"",
    ],
)
def test_lm_eval_shows_the_prompt_as_written_whatever_is_in_it(prompt: str, tmp_path: Path) -> None:
    from lm_eval.tasks import TaskManager

    path = render_task(RO_GSM8K, sweep(prompt=prompt), data=prepared(tmp_path / "data"), folder=tmp_path / "task")
    manager = TaskManager(include_path=str(path.parent), include_defaults=False)
    task = manager.load(["ro_gsm8k"])["tasks"]["ro_gsm8k"]
    (record,) = task.test_docs()
    assert task.doc_to_text(record) == prompt.replace("{question}", "Câte {mere} {{are}} {% if %}?")
    assert task.doc_to_target(record) == "test.\n#### 5"


def test_a_prompt_and_completion_of_the_data_are_shown_as_they_are(tmp_path: Path) -> None:
    from lm_eval.tasks import TaskManager

    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": "2 + 3 =", "completion": " 5\n#### 5"}) + "\n")
    path = render_task(RO_GSM8K, sweep(), data=tmp_path, folder=tmp_path / "task")
    task = TaskManager(include_path=str(path.parent), include_defaults=False).load(["ro_gsm8k"])["tasks"]["ro_gsm8k"]
    (record,) = task.test_docs()
    assert task.doc_to_text(record) == record["question"] == "2 + 3 ="
    assert task.doc_to_target(record) == record["completion"] == " 5\n#### 5"


def test_the_rendered_task_includes_the_base_and_reads_only_its_own_files(tmp_path: Path) -> None:
    path = render_task(RO_GSM8K, sweep(), data=prepared(tmp_path / "data"), folder=tmp_path / "task")
    document = yaml.safe_load(path.read_text())
    assert path.name == "ro_gsm8k.yaml"
    assert document["include"] == str(RO_GSM8K)
    assert document["dataset_path"] == "json"
    assert document["dataset_kwargs"] == {"data_files": {"test": str(tmp_path / "task" / "test.jsonl")}}
    assert (document["fewshot_split"], document["training_split"], document["num_fewshot"]) == (None, None, 0)


def test_examples_are_read_from_the_training_split_only_when_they_are_shown(tmp_path: Path) -> None:
    few_shot = sweep(evaluation={"num_fewshot": 3})
    path = render_task(RO_GSM8K, few_shot, data=prepared(tmp_path / "data"), folder=tmp_path / "task")
    document = yaml.safe_load(path.read_text())
    assert set(document["dataset_kwargs"]["data_files"]) == {"train", "test"}
    assert (document["fewshot_split"], document["num_fewshot"]) == ("train", 3)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("task: mine\noutput_type: multiple_choice\n", "cannot be used"),
        ("include: BASE\nfilter_list: [{name: strict-match, filter: [{function: nope}]}]\n", "cannot be used"),
        ("include: BASE\noutput_type: loglikelihood\nmetric_list: [{metric: acc}]\n", "output_type is loglikelihood"),
        ("include: BASE\ngeneration_kwargs: {until: [a, b, c, d, e]}\n", "it has 5 stop strings"),
    ],
)
def test_a_task_that_lm_eval_or_vllm_could_not_use_is_refused(tmp_path: Path, text: str, why: str) -> None:
    from surogate_bench_evaluator.harness import Harness

    (tmp_path / "mine.yaml").write_text(text.replace("BASE", str(RO_GSM8K)))
    mine = sweep(evaluation={"task": "mine"})
    path = render_task(tmp_path / "mine.yaml", mine, data=prepared(tmp_path / "data"), folder=tmp_path / "task")
    with pytest.raises(ConfigError, match=why):
        Harness(path, mine.evaluation, Answers(lambda *_: None))


def test_by_hand_the_shipped_task_is_lm_evals_gsm8k_on_the_romanian_data() -> None:
    """What scores an answer is the same as in the stock task; the data set, examples and stop strings differ."""
    import lm_eval

    (package,) = lm_eval.__path__
    stock = yaml.safe_load((Path(package) / "tasks" / "gsm8k" / "gsm8k.yaml").read_text())
    ours = yaml.safe_load(RO_GSM8K.read_text())
    for key in ("metric_list", "filter_list", "output_type", "doc_to_text", "doc_to_target", "repeats", "test_split"):
        assert ours[key] == stock[key], key
    assert ours["dataset_path"] == "OpenLLM-Ro/ro_gsm8k"
    assert ours["num_fewshot"] == 0
    assert set(stock["generation_kwargs"]["until"]) < set(ours["generation_kwargs"]["until"])
    assert {key: value for key, value in ours["generation_kwargs"].items() if key != "until"} == {
        "do_sample": False,
        "temperature": 0.0,
    }
