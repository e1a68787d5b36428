"""The check of a task before training: would the reference answers themselves be scored as right?"""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from sweeps import small_sweep
from worlds.evaluator import publish_prepared, serving

from surogate_bench.contract import task_file
from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.results import CheckResult, ScoredData
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import CheckRequest, EvaluateRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_evaluator.main import handle

RO_GSM8K = Path(__file__).parents[3] / "configs" / "tasks" / "ro_gsm8k.yaml"
GOOD = "Are 9*2=18 mere.\n#### 18"


def request_of(folder: Path, **evaluation: Any) -> CheckRequest:
    sweep = small_sweep(data={"path": str(folder)}, evaluation=evaluation)
    return CheckRequest(sweep=sweep, store=str(folder / "store"), subject="task")


def prepare(request: CheckRequest, folder: Path, answers: list[str]) -> None:
    """Prepare records with these answers."""
    data = folder / "prepared" / "data"
    data.mkdir(parents=True)
    for split in ("train", "test"):
        records = [{"question": f"{split} {i}?", "answer": answer} for i, answer in enumerate(answers)]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    publish_prepared(request, data.parent)


def check(folder: Path, answers: list[str], *, task: str | None = None, **evaluation: Any) -> ScoredData:
    """Check a task on prepared records with these reference answers.

    Args:
        folder: For everything.
        answers: One for each test record.
        task: YAML of the task, in which BASE is the shipped one; that itself if None.
        evaluation: Further settings.
    """
    if task is not None:
        (folder / "tasks").mkdir(exist_ok=True)
        (folder / "tasks" / "mine.yaml").write_text(task.replace("BASE", str(RO_GSM8K)))
        evaluation |= {"task": "mine", "tasks_dir": str(folder / "tasks")}
    request = request_of(folder, **evaluation)
    prepare(request, folder, answers)
    handle(request, folder / "work")
    manifest = read_manifest(open_store(request.store), request.layout.check("task"))
    assert manifest is not None
    scored = manifest.require_result(CheckResult).scored
    assert scored is not None
    return scored


@pytest.mark.parametrize(
    "answer",
    [
        "Costă 18 lei.\n#### 18 lei",
        "Reducerea este de 50%.\n#### 50%",
        "Pas 1: #### 3\nPas 2: #### 5\nTotal.\n#### 8",
        "Total 1 234.\n#### 1 234",
        "Total.\n#### 8\nVerificat.",
        "Întrebare: câte?\n#### 8",  # a stop string of the task ends the answer before its number
        "Opt.\n####8",
        "Opt.",
        "Jumătate.\n#### 1/2",
        "Opt.\n#### 8 (opt)",
    ],
)
def test_a_reference_answer_that_is_itself_scored_as_wrong_is_refused_with_its_record(
    tmp_path: Path, answer: str
) -> None:
    with pytest.raises(ConfigError, match=r"scored as wrong by .* of ro_gsm8k; so are those of 1 more") as caught:
        check(tmp_path, [GOOD, answer, GOOD, answer])
    assert caught.value.field == "data.test:2"
    assert "bare number" in caught.value.remedy
    assert not [info for info in open_store(str(tmp_path / "store")).list("sweeps") if "checks" in info.key]


@pytest.mark.parametrize("number", ["18", "-7", "1,234", "3.5", "$18", "1,234,567", "0", "5."])
def test_numbers_as_gsm8k_writes_them_pass(tmp_path: Path, number: str) -> None:
    if number.startswith("$"):  # lm-eval's strict filter takes no currency
        with pytest.raises(ConfigError, match="strict-match"):
            check(tmp_path, [GOOD, f"Deci.\n#### {number}"])
        return
    assert check(tmp_path, [GOOD, f"Deci.\n#### {number}"]).records == 2


def test_what_is_scored_is_recorded(tmp_path: Path) -> None:
    scored = check(tmp_path, [GOOD] * 5, num_fewshot=2)
    assert (scored.source, scored.split, scored.records) == (str(tmp_path), "test", 5)
    assert (scored.prompt, scored.num_fewshot, len(scored.sha256)) == ("sweep", 2, 64)


def test_only_what_is_scored_under_a_limit_is_checked(tmp_path: Path) -> None:
    assert check(tmp_path, [GOOD, GOOD, "#### 18 lei"], limit=2).records == 2


def test_a_single_record_has_no_standard_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few test records") as caught:
        check(tmp_path, [GOOD])
    assert caught.value.field == "data.test_size"


def filters(*names: str) -> str:
    shipped = yaml.safe_load(RO_GSM8K.read_text())
    kept = [each for each in shipped["filter_list"] if each["name"] in names]
    return yaml.safe_dump({"include": "BASE", "filter_list": kept})


OWN_PROMPT = {"keep_from_task": ["prompt"]}


@pytest.mark.parametrize(
    ("task", "evaluation", "why"),
    [
        (filters("strict-match"), {}, "no exact_match under a filter named flexible-extract"),
        (filters("flexible-extract"), {}, "no exact_match under a filter named strict-match"),
        ("include: BASE\nmetric_list: [{metric: bleu}]\n", {}, "no exact_match|cannot be used"),
        ("include: BASE\n  broken: [\n", {}, r"mine\.yaml.*line 2"),
        ("- a list\n", {}, "mine.yaml"),
        ("include: nowhere.yaml\n", {}, "nowhere.yaml"),
        ("include: BASE\nprocess_docs: !function gone.none\n", {}, "gone"),
        ("include: BASE\ndoc_to_text: '{{problem}}'\n", OWN_PROMPT, "'problem' is undefined"),
        ("include: BASE\ndoc_to_target: '{{solution}}'\n", OWN_PROMPT, "'solution' is undefined"),
        ("include: BASE\ndoc_to_text: '{{question'\n", OWN_PROMPT, "cannot be used"),
        ("include: BASE\ndoc_to_text: '{{question.upper(1)}}'\n", OWN_PROMPT, "cannot be used"),
        ("include: BASE\ngeneration_kwargs: {until: [a, b, c, d, e]}\n", {}, "it has 5 stop strings"),
        ("include: BASE\ndescription: '{{missing}}'\n", {}, "'missing' is undefined"),
        ("include: BASE\n", {"num_fewshot": 9}, "cannot be used"),
    ],
)
def test_a_task_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, task: str, evaluation: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        check(tmp_path, [GOOD] * 3, task=task, **evaluation)
    assert (caught.value.field, caught.value.value) == ("evaluation.task", "mine")
    assert "ro_gsm8k.yaml" in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_another_metric_of_the_task_starts_no_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SIGTERM has a handler, lm-eval's pool has been seen to wait for ever for its forked processes."""
    monkeypatch.setattr("multiprocessing.Pool", Mock(side_effect=AssertionError("a pool of processes")))
    metrics = yaml.safe_load(RO_GSM8K.read_text())["metric_list"]
    task = yaml.safe_dump({"include": "BASE", "metric_list": [*metrics, {"metric": "bleu"}]})
    check(tmp_path, [GOOD] * 3, task=task)


@pytest.mark.parametrize("body", ["docs.select(range(2))", "docs.remove_columns(['prompt'])"])
def test_a_task_whose_own_function_changes_the_sweeps_records_is_refused(tmp_path: Path, body: str) -> None:
    """Without its field, lm-eval would show the word "prompt" as the prompt of every record."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "own.py").write_text(f"def change(docs):\n    return {body}\n")
    with pytest.raises(ConfigError, match="process_docs"):
        check(tmp_path, [GOOD] * 3, task="include: BASE\nprocess_docs: !function own.change\n")


OWN = """
include: BASE
dataset_path: json
dataset_kwargs: {data_files: {validation: own/problems.jsonl}}
training_split: null
fewshot_split: null
test_split: null
validation_split: validation
doc_to_text: "{{problem}} ="
doc_to_target: "{{solution}}"
"""


KEPT = ["data", "prompt"]


def write_own(folder: Path, solutions: list[str]) -> None:
    """Write the data of a task beside its file."""
    own = folder / "tasks" / "own"
    own.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"problem": f"{i} + 1", "solution": solution}) for i, solution in enumerate(solutions)]
    (own / "problems.jsonl").write_text("\n".join(lines))


def check_own(folder: Path, solutions: list[str]) -> ScoredData:
    """Check a task on data of its own; the sweep's own test answers do not count."""
    write_own(folder, solutions)
    return check(folder, ["no number"] * 9, task=OWN, keep_from_task=KEPT)


def test_a_task_may_keep_its_own_data_and_prompt(tmp_path: Path) -> None:
    scored = check_own(tmp_path, [f"#### {i + 1}" for i in range(4)])
    assert (scored.split, scored.records, scored.prompt) == ("validation", 4, "task")
    assert "own/problems.jsonl" in scored.source


@pytest.mark.parametrize(("now", "scored"), [(["#### 1", "#### 2"], True), (["#### 1", "#### 3"], False)])
def test_data_of_a_tasks_own_is_scored_only_as_it_was_checked(tmp_path: Path, now: list[str], scored: bool) -> None:
    check_own(tmp_path, ["#### 1", "#### 2"])
    write_own(tmp_path, now)
    sweep = request_of(tmp_path, task="mine", tasks_dir=str(tmp_path / "tasks"), keep_from_task=KEPT).sweep
    refused = pytest.raises(PermanentError, match="has changed since its task was checked: 2 records with digest")
    with serving(lambda _: " #### 1") as fake, nullcontext() if scored else refused:
        request = EvaluateRequest(sweep=sweep, store=str(tmp_path / "store"), run="base", server_url=fake.url)
        handle(request, tmp_path / "evaluation")
    assert bool(fake.prompts()) == scored


def test_the_references_of_a_tasks_own_data_are_checked_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="strict-match of mine") as caught:
        check_own(tmp_path, ["#### 1", "2", "#### 3"])
    assert caught.value.field == "mine:2"


def test_an_answer_under_a_filter_of_its_own_is_not_advised_to_be_as_in_gsm8k(tmp_path: Path) -> None:
    steps = [{"function": "regex", "regex_pattern": "^(yes|no)"}, {"function": "take_first"}]
    task = yaml.safe_dump({"include": "BASE", "filter_list": [{"name": "first", "filter": steps}]})
    with pytest.raises(ConfigError, match="scored as wrong by exact_match,first of mine") as caught:
        check(tmp_path, ["no", "perhaps"], task=task, metric="exact_match,first")
    assert "doc_to_target" in caught.value.remedy
    assert "####" not in caught.value.remedy


def check_english(folder: Path, answers: list[str], **entry: Any) -> ConfigError:
    """Check a further task with data of its own; return the error."""
    data = {"path": str(folder)}
    request = request_of(folder, tasks=["ro_gsm8k", {"name": "en_gsm8k", "data": data, **entry}])
    lines = [json.dumps({"question": "Why?", "answer": answer}) + "\n" for answer in answers]
    prepared = folder / "prepared" / "data" / task_file("en_gsm8k")
    prepared.parent.mkdir(parents=True)
    prepared.write_text("".join(lines))
    publish_prepared(request, folder / "prepared")
    with pytest.raises(ConfigError) as caught:
        handle(request.model_copy(update={"task": "en_gsm8k"}), folder / "work")
    return caught.value


def test_errors_about_the_data_of_a_further_task_name_it(tmp_path: Path) -> None:
    error = check_english(tmp_path, [GOOD, "18 lei\n#### 18 lei"])
    assert error.field == "evaluation.tasks.en_gsm8k.data.test:2"
    assert "bare number" in error.remedy


def test_a_further_task_that_lacks_a_metric_is_named_itself(tmp_path: Path) -> None:
    error = check_english(tmp_path, [GOOD, GOOD], metric="bleu")
    assert (error.field, error.value) == ("evaluation.tasks.en_gsm8k", "en_gsm8k")


def test_a_finished_check_is_not_repeated(tmp_path: Path) -> None:
    check(tmp_path, [GOOD] * 3)
    handle(request_of(tmp_path), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_serving_check_is_not_for_the_evaluator(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not for the evaluator"):
        handle(request_of(tmp_path).model_copy(update={"subject": "serving"}), tmp_path / "work")
