"""Each answer keeps how it ended: the finish reason, the number of tokens, whether it has the task's format."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from worlds.evaluator import (
    ANSWERS,
    FakeServer,
    answer_by_table,
    index_of,
    make_request,
    published,
    serving,
    sweep,
)

from surogate_bench.inputs.task_files import builtin_tasks
from surogate_bench.results import EvalResult, SampleLine
from surogate_bench.store.object_store import open_store
from surogate_bench_evaluator.stage import evaluate_stage


def evaluated(tmp_path: Path, fake: FakeServer, **evaluation: Any) -> tuple[EvalResult, list[SampleLine]]:
    request = make_request(tmp_path, fake.url, spec=sweep(**evaluation))
    evaluate_stage(request, tmp_path / "work")
    result, samples, _ = published(open_store(request.store), request, tmp_path / "out")
    return result, samples


@pytest.mark.parametrize("chat_template", [False, True])
def test_every_sample_has_its_finish_reason_and_tokens_and_the_result_their_sums(
    tmp_path: Path, chat_template: bool
) -> None:
    with serving(answer_by_table) as fake:
        fake.is_cut_off = lambda text: "none" in text or "99" in text
        result, samples = evaluated(tmp_path, fake, chat_template=chat_template)
    texts = [text for text, *_ in ANSWERS]
    assert [line.finish_reason for line in samples] == ["length" if fake.is_cut_off(text) else "stop" for text in texts]
    assert [line.tokens for line in samples] == [len(text.split()) for text in texts]
    assert result.cut_off_answers == 3
    assert result.answer_tokens == sum(len(text.split()) for text in texts)


def test_answers_without_one_in_the_format_are_counted_and_wrong_ones_in_the_format_are_not(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        result, samples = evaluated(tmp_path, fake)
    unformatted = [text for (text, *_), line in zip(ANSWERS, samples, strict=True) if not line.formatted]
    assert unformatted == [" so\n#### $1234", " 1234", " it is $1,234.", " none at all", "", "####1234"]
    assert result.unformatted_answers == len(unformatted)


@pytest.mark.parametrize("chat_template", [False, True])
@pytest.mark.parametrize(
    ("ends", "sent"),
    [
        (None, (None, None)),
        ((), (True, [])),
        ((7, 9), (True, [7, 9])),
    ],
)
def test_without_an_end_of_text_token_answers_end_at_the_tokens_that_preparation_found_alone(
    tmp_path: Path, chat_template: bool, ends: tuple[int, ...] | None, sent: tuple[bool | None, list[int] | None]
) -> None:
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url, spec=sweep(chat_template=chat_template), answer_ends=ends)
        evaluate_stage(request, tmp_path / "work")
    bodies = [body for _, path, body in fake.calls if path.endswith("completions")]
    assert len(bodies) == len(ANSWERS)
    assert {(body.get("ignore_eos"), str(body.get("stop_token_ids"))) for body in bodies} == {(sent[0], str(sent[1]))}


def test_a_filter_with_a_fallback_of_its_own_is_understood(tmp_path: Path) -> None:
    folder = builtin_tasks()
    assert folder is not None
    task = yaml.safe_load((folder / "ro_gsm8k.yaml").read_text()) | {"task": "mine"}
    task["filter_list"][0]["filter"][0]["fallback"] = "nothing"
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(yaml.safe_dump(task))
    with serving(answer_by_table) as fake:
        result, _ = evaluated(tmp_path, fake, task="mine", tasks_dir=tmp_path / "tasks")
    assert result.unformatted_answers == 6


def test_a_filter_that_searches_for_nothing_finds_every_answer_and_none(tmp_path: Path) -> None:
    folder = builtin_tasks()
    assert folder is not None
    task = yaml.safe_load((folder / "ro_gsm8k.yaml").read_text()) | {"task": "mine"}
    task["filter_list"] = [
        {"name": "trimmed", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
    ]
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(yaml.safe_dump(task))
    given = {"task": "mine", "tasks_dir": tmp_path / "tasks", "metric": "exact_match,trimmed"}
    with serving(answer_by_table) as fake:
        result, samples = evaluated(tmp_path, fake, **given)
    assert (result.unformatted_answers, result.cut_off_answers) == (None, 0)
    assert {line.formatted for line in samples} == {None}


def test_a_server_that_states_no_usage_gives_no_number_of_tokens(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        fake.states_usage = False
        result, samples = evaluated(tmp_path, fake)
    assert {line.tokens for line in samples} == {None}
    assert (result.answer_tokens, result.cut_off_answers) == (None, 0)


def test_answers_that_arrived_before_the_loss_of_the_server_keep_how_they_ended(tmp_path: Path) -> None:
    lost = []

    def answer(prompt: str) -> str | int:
        if index_of(prompt) == 5 and not lost:
            lost.append(prompt)
            return 503
        return answer_by_table(prompt)

    with serving(answer) as fake:
        _, samples = evaluated(tmp_path, fake, num_concurrent=1)
    assert lost
    asked = fake.prompts()
    assert all(asked.count(prompt) == 1 for prompt in asked if index_of(prompt) < 5)
    assert [line.tokens for line in samples] == [len(text.split()) for text, *_ in ANSWERS]
