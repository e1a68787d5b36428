"""Scoring with prompts as messages, which vLLM renders by the chat template."""

from pathlib import Path
from typing import Any

import pytest
from worlds.evaluator import ANSWERS, answer_by_table, make_request, published, serving, sweep

from surogate_bench.errors import PermanentError
from surogate_bench.specs import RecipeSweep
from surogate_bench.store.object_store import open_store
from surogate_bench_evaluator.stage import evaluate_stage


def chat_sweep(arguments: dict[str, Any], **evaluation: Any) -> RecipeSweep:
    plain = sweep(chat_template=True, **evaluation)
    return plain.model_copy(update={"data": plain.data.model_copy(update={"chat_template_arguments": arguments})})


@pytest.mark.parametrize("num_concurrent", [1, 4])
def test_prompts_are_messages_and_answers_are_scored_as_those_of_completions(
    tmp_path: Path, num_concurrent: int
) -> None:
    spec = chat_sweep({"enable_thinking": False}, num_concurrent=num_concurrent)
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url, spec=spec)
        evaluate_stage(request, tmp_path / "work")
    result, samples, _ = published(open_store(request.store), request, tmp_path / "out")
    assert [(line.response, line.strict_match, line.flexible_match) for line in samples] == list(ANSWERS)
    assert result.scored is not None
    assert result.scored.chat_template
    assert fake.prompts() == []
    asked = fake.conversations()
    assert len(asked) == len(ANSWERS)
    for body in asked:
        (message,) = body["messages"]
        assert message["role"] == "user"
        assert message["content"].startswith("Întrebare: test ")
        assert message["content"].endswith("?\nRăspuns:")
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
        assert body["add_special_tokens"] is False, "the template writes its own"
        assert (body["max_tokens"], body["temperature"]) == (32, 0)


def test_solved_examples_are_earlier_messages(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url, spec=chat_sweep({}, num_fewshot=2))
        evaluate_stage(request, tmp_path / "work")
    for body in fake.conversations():
        assert [message["role"] for message in body["messages"]] == ["user", "assistant"] * 2 + ["user"]
        assert body["messages"][1]["content"] == " Gândim.\n#### 1,234"
        assert "chat_template_kwargs" not in body


def test_messages_that_vllm_refuses_are_a_permanent_error(tmp_path: Path) -> None:
    with serving(lambda _: 400) as fake:
        request = make_request(tmp_path, fake.url, spec=chat_sweep({}))
        with pytest.raises(PermanentError, match="vLLM refuses a question"):
            evaluate_stage(request, tmp_path / "work")


def test_an_answer_that_did_not_finish_is_not_scored(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        fake.finish_reason = "abort"
        request = make_request(tmp_path, fake.url, spec=chat_sweep({}, timeout_s=5))
        with pytest.raises(Exception, match=r"did not finish|given up"):
            evaluate_stage(request, tmp_path / "work")
