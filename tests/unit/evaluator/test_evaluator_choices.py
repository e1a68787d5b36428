"""Multiple choice: log-likelihoods of the choices through vLLM's completions, scored by lm-eval."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from worlds.evaluator import RUN, FakeServer, make_request, published, serving, sweep

from surogate_bench.contract import task_file
from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.results import CheckResult, EvalResult, SampleLine
from surogate_bench.stages.publication import read_result
from surogate_bench.stages.requests import CheckRequest, EvaluateRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_evaluator.check import check_stage
from surogate_bench_evaluator.main import handle
from surogate_bench_evaluator.stage import evaluate_stage
from surogate_bench_trainer.embedded.word_problems import split

TASK = """
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: capitals.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "The capital of {{land}} is"
doc_to_choice: choices
doc_to_target: right
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
RECORDS = [
    {"land": "France", "choices": ["Paris", "Rome", "Bern"], "right": 0},
    {"land": "Italy", "choices": ["Paris", "Rome", "Bern"], "right": 1},
    {"land": "Austria", "choices": ["Paris", "Rome", "Vienna"], "right": 2},
    {"land": "Spain", "choices": ["Paris", "Madrid", "Bern"], "right": 1},
]


def request_of(folder: Path, url: str, task: str = TASK, records: Any = RECORDS, **entry: Any) -> EvaluateRequest:
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    (tasks / "capitals.yaml").write_text(task)
    (tasks / "capitals.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    further = {"name": "capitals", "tasks_dir": str(tasks), **entry}
    spec = sweep(tasks=["ro_gsm8k", further])
    return make_request(folder, url, spec=spec).model_copy(update={"task": "capitals"})


def evaluated(folder: Path, fake: FakeServer, **entry: Any) -> tuple[EvalResult, list[SampleLine]]:
    request = request_of(folder, fake.url, **entry)
    evaluate_stage(request, folder / "work")
    store = open_store(request.store)
    result = read_result(store, request.layout.eval(request.run, task="capitals"), EvalResult)
    assert result is not None
    lines = store.get(f"{request.layout.eval(request.run, task='capitals')}/samples.jsonl") or b""
    return result, [SampleLine.model_validate_json(line) for line in lines.splitlines()]


def by_length(text: str) -> str:
    """Each byte of a text that ends in Rome is likelier than of any other, so that shorter ones win among those."""
    return "-1.0" if text.endswith("Rome") else "-2.0"


def test_the_likeliest_choice_is_the_answer_and_lm_evals_accuracies_are_recorded(tmp_path: Path) -> None:
    with serving(by_length) as fake:
        result, samples = evaluated(tmp_path, fake)
    assert [line.response for line in samples] == [" Rome", " Rome", " Rome", " Bern"]
    assert [line.strict_match for line in samples] == [False, True, False, False]
    assert samples[0].question == "The capital of France is"
    assert (result.metric, result.second_metric, result.task) == ("acc", "acc_norm", "capitals")
    assert (result.strict.accuracy, result.empty_answers, result.cut_off_answers) == (0.25, 0, None)


def test_choices_are_sent_as_tokens_behind_their_prompt_each_once(tmp_path: Path) -> None:
    with serving(by_length) as fake:
        evaluated(tmp_path, fake)
    bodies = [body for _, path, body in fake.calls if path == "/v1/completions"]
    assert len(bodies) == 12
    assert {(body["max_tokens"], body["echo"], body["logprobs"]) for body in bodies} == {(1, True, 1)}
    sent = {bytes(body["prompt"][0]).decode() for body in bodies}
    assert "The capital of Austria is Vienna" in sent


def test_what_was_answered_before_the_loss_of_the_server_is_not_asked_again(tmp_path: Path) -> None:
    lost = []

    def answer(text: str) -> str:
        if text.endswith("Spain is Bern") and not lost:
            lost.append(text)
            raise ConnectionError
        return by_length(text)

    with serving(answer) as fake:
        result, _ = evaluated(tmp_path, fake)
    assert lost
    assert result.samples == 4
    sent = [bytes(body["prompt"][0]).decode() for _, path, body in fake.calls if path == "/v1/completions"]
    assert sent.count("The capital of Austria is Vienna") == 1
    assert len(sent) < 24


def test_another_metric_may_be_the_accuracy(tmp_path: Path) -> None:
    with serving(by_length) as fake:
        result, _ = evaluated(tmp_path, fake, metric="acc_norm")
    assert (result.metric, result.second_metric) == ("acc_norm", None)


def check(folder: Path, **changes: Any) -> CheckResult:
    request = request_of(folder, "http://127.0.0.1:9", **changes)
    handle(CheckRequest(sweep=request.sweep, store=request.store, subject="task", task="capitals"), folder / "check")
    checked = read_result(open_store(request.store), request.layout.check("task", "capitals"), CheckResult)
    assert checked is not None
    return checked


def test_the_reference_choices_of_a_task_score_one(tmp_path: Path) -> None:
    scored = check(tmp_path).scored
    assert scored is not None
    assert scored.records == 4


@pytest.mark.parametrize("metric", ["bleu", "exact_match,strict-match"])
def test_a_metric_that_a_task_lacks_is_refused_with_those_it_has(tmp_path: Path, metric: str) -> None:
    with pytest.raises(ConfigError, match=f"has no {metric.partition(',')[0]}.*it has acc, acc_norm"):
        check(tmp_path, metric=metric)


def test_a_task_without_accuracy_of_choices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no acc \(it has acc_norm\)"):
        check(tmp_path, task=TASK.replace("[{metric: acc}, {metric: acc_norm}]", "[{metric: acc_norm}]"))


def test_a_question_whose_answer_is_no_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="capitals:5: the reference answer itself is scored as wrong by acc"):
        check(tmp_path, records=[*RECORDS, {"land": "Peru", "choices": ["Bern"], "right": 7}])


def test_a_task_that_needs_the_hub_is_refused_by_name_while_the_hub_is_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    local = "dataset_path: json\ndataset_kwargs: {data_files: {test: capitals.jsonl}}"
    with pytest.raises(ConfigError, match="the data of the task capitals is not in the cache") as caught:
        check(tmp_path, task=TASK.replace(local, "dataset_path: someone/capitals"))
    assert caught.value.field == "HF_DATASETS_OFFLINE"


@pytest.mark.parametrize("task", ["en_gsm8k", "word_problem_choice"])
def test_the_shipped_tasks_give_every_reference_right(tmp_path: Path, task: str) -> None:
    entry = {"name": task, "data": {"builtin": "word-problems-en", "test_size": 40}}
    problems = split("test", language="en", size=40, seed=0)
    lines = [json.dumps({"question": each.question, "answer": each.answer}) + "\n" for each in problems]
    prepared = tmp_path / "prepared" / "data" / task_file(task)
    prepared.parent.mkdir(parents=True)
    prepared.write_text("".join(lines))
    request = make_request(tmp_path, "http://127.0.0.1:9", spec=sweep(tasks=["ro_gsm8k", entry]))
    check_stage(CheckRequest(sweep=request.sweep, store=request.store, subject="task", task=task), tmp_path / "check")
    checked = read_result(open_store(request.store), request.layout.check("task", task), CheckResult)
    assert checked is not None
    assert checked.scored is not None
    assert (checked.scored.records, checked.scored.source) == (40, "word-problems-en")


def test_the_choices_of_a_word_problem_differ_in_its_last_result_alone(tmp_path: Path) -> None:
    answers = ["Sara has 12*3=36 candies.\nTogether 12+36=48 candies.\n#### 48", "No step.\n#### 1,235"]
    entry = {"name": "word_problem_choice", "data": {"builtin": "word-problems-en", "test_size": 2}}
    prepared = tmp_path / "prepared" / "data" / task_file("word_problem_choice")
    prepared.parent.mkdir(parents=True)
    prepared.write_text("".join(json.dumps({"question": "Why?", "answer": answer}) + "\n" for answer in answers))
    with serving(lambda text: "-1.0" if text.endswith(("48", "1,235")) else "-2.0") as fake:
        spec = sweep(tasks=["ro_gsm8k", entry])
        request = make_request(tmp_path, fake.url, spec=spec).model_copy(update={"task": "word_problem_choice"})
        evaluate_stage(request, tmp_path / "work")
    sent = {bytes(body["prompt"][0]).decode() for _, path, body in fake.calls if path == "/v1/completions"}
    begin = "Question: Why?\nAnswer: "
    assert {text.removeprefix(begin) for text in sent} == {
        f"Sara has 12*3=36 candies.\nTogether 12+36={n} candies.\n#### {n}" for n in (48, 49, 50, 58)
    } | {f"No step.\n#### {n}" for n in ("1,235", "1236", "1237", "1245")}
    result = read_result(open_store(request.store), request.layout.eval(RUN, task="word_problem_choice"), EvalResult)
    assert result is not None
    assert result.strict.accuracy == 1


WINOGRANDE = f"""
include: {files("lm_eval")}/tasks/winogrande/default.yaml
task: capitals
dataset_path: json
dataset_name: null
dataset_kwargs: {{data_files: {{validation: capitals.jsonl}}}}
training_split: null
"""
"""lm-eval's own, on these records: choices are prompts, and what follows them is the same."""
SENTENCES = [
    {"sentence": "Ana thanked Ion, as _ had helped.", "option1": "Ana", "option2": "Ion", "answer": "2"},
    {"sentence": "A cup is in the box, as the _ fits.", "option1": "cup", "option2": "box", "answer": "1"},
]


def test_choices_may_be_prompts_that_the_same_text_follows(tmp_path: Path) -> None:
    check(tmp_path, task=WINOGRANDE, records=SENTENCES)
    with serving(lambda text: "-1.0" if "as Ion" in text or "as the box" in text else "-2.0") as fake:
        (tmp_path / "scored").mkdir()
        result, samples = evaluated(tmp_path / "scored", fake, task=WINOGRANDE, records=SENTENCES)
    assert [line.response for line in samples] == [
        "Ana thanked Ion, as Ion had helped.",
        "A cup is in the box, as the box fits.",
    ]
    assert ([line.strict_match for line in samples], result.strict.accuracy) == ([True, False], 0.5)


def test_prompts_as_choices_whose_right_one_does_not_exist_are_refused(tmp_path: Path) -> None:
    numbered = [each | {"answer": answer} for each, answer in zip(SENTENCES, (1, 2), strict=True)]
    with pytest.raises(ConfigError, match="scored as wrong by acc of capitals") as caught:
        check(tmp_path, task=f"{WINOGRANDE}doc_to_text: answer\n", records=numbered)
    assert caught.value.field == "capitals:2"


@pytest.mark.parametrize("prompt", ["", " ", "\n"])
def test_a_question_without_a_prompt_is_refused_before_training(tmp_path: Path, prompt: str) -> None:
    bare = TASK.replace("The capital of {{land}} is", "{{land}}")
    with pytest.raises(ConfigError, match="a choice without a prompt, of record 2,") as caught:
        check(tmp_path, task=bare, records=[RECORDS[0], RECORDS[1] | {"land": prompt}])
    assert (caught.value.field, caught.value.value) == ("evaluation.tasks.capitals", "capitals")
    assert "word_problem_choice.yaml" in caught.value.remedy


def longest(tokens: int) -> list[dict[str, Any]]:
    """Records of which the longest prompt and choice have so many tokens, which are bytes here."""
    land = "a" * (tokens - len("The capital of  is Paris"))
    return [RECORDS[1], {"land": land, "choices": ["Paris", "Rome"], "right": 1}]


def test_a_question_fits_if_one_token_of_the_server_is_left_and_is_never_cut(tmp_path: Path) -> None:
    with serving(by_length) as fake:
        evaluated(tmp_path, fake, records=longest(511))
        sent = [body["prompt"][0] for _, path, body in fake.calls if path == "/v1/completions"]
        assert max(map(len, sent)) == 511
        (tmp_path / "longer").mkdir()
        fake.calls.clear()
        with pytest.raises(PermanentError, match=r"512 tokens.* must fit into serving.max_model_len \(512 tokens\)"):
            evaluated(tmp_path / "longer", fake, records=longest(512))
    assert not [path for _, path, _ in fake.calls if path == "/v1/completions"]


def test_progress_is_counted_in_requests_of_which_a_question_has_one_for_each_choice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(by_length) as fake, caplog.at_level("INFO", "surogate_bench_evaluator"):
        evaluated(tmp_path, fake)
    assert "12 of 12 requests answered" in caplog.messages


def test_a_maximum_of_generated_tokens_is_refused_where_none_are_generated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no effect: capitals is a multiple-choice task") as caught:
        check(tmp_path, max_gen_toks=8)
    assert (caught.value.field, caught.value.value) == ("evaluation.tasks.capitals.max_gen_toks", 8)


def test_a_right_choice_that_is_scored_as_wrong_is_refused_with_what_can_be_done_about_choices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scored as wrong by acc of capitals") as caught:
        check(tmp_path, records=[*RECORDS, {"land": "Peru", "choices": ["Lima", "Bern"], "right": 7}])
    assert (caught.value.field, caught.value.value) == ("capitals:5", "7")
    assert "doc_to_choice" in caught.value.remedy
    assert "####" not in caught.value.remedy


def test_a_metric_that_a_further_task_lacks_is_refused_under_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no acc_bytes") as caught:
        check(tmp_path, metric="acc_bytes")
    assert caught.value.field == "evaluation.tasks.capitals"
    assert "word_problem_choice.yaml" in caught.value.remedy


def test_the_primary_task_is_scored_beside_it(tmp_path: Path) -> None:
    with serving(lambda _: " so\n#### 1234") as fake:
        request = request_of(tmp_path, fake.url).model_copy(update={"task": None})
        evaluate_stage(request, tmp_path / "work")
    result, _, _ = published(open_store(request.store), request, tmp_path / "out")
    assert (result.task, result.metric) == ("ro_gsm8k", None)
