"""The questions on their way to vLLM: concurrency, proxies, failures and empty answers. Real lm-eval."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from waiting import until
from worlds.evaluator import ANSWERS, RUN, answer_by_table, index_of, make_request, published, serving, sweep

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.stages.publication import read_manifest
from surogate_bench.store.object_store import open_store
from surogate_bench_evaluator.answers import Answers
from surogate_bench_evaluator.stage import evaluate_stage


def test_a_lost_server_costs_only_the_answers_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing, received, places = {"left": 3}, set[str](), dict[str, int]()
    add = Answers.add_partial

    def note(answers: Answers, method: str, request: Sequence[Any], given: str) -> None:
        add(answers, method, request, given)
        received.add(str(request[0]))

    def hold(prompt: str) -> None:
        """Let nothing follow the first seven prompts before their answers have arrived."""
        if places.setdefault(prompt, len(places)) >= 7:
            until(lambda: received >= {each for each in tuple(places) if places[each] < 7}, "the first answers")

    def answer(prompt: str) -> str | int:
        if places[prompt] >= 7 and failing["left"]:
            failing["left"] -= 1
            fake.adapters.clear()
            return 500
        return answer_by_table(prompt)

    monkeypatch.setattr(Answers, "add_partial", note)
    with serving(answer) as fake:
        fake.hold = hold
        request = make_request(tmp_path, fake.url, spec=sweep(num_concurrent=2))
        evaluate_stage(request, tmp_path / "work")
    result, samples, _ = published(open_store(request.store), request, tmp_path / "out")
    assert [(line.response, line.strict_match) for line in samples] == [(text, right) for text, right, _ in ANSWERS]
    assert result.samples == len(ANSWERS)
    asked = fake.prompts()
    repeated = {prompt for prompt in asked if asked.count(prompt) > 1}
    assert repeated
    assert all(places[prompt] >= 7 for prompt in repeated)
    assert len([call for call in fake.calls if call[0] == "PUT"]) > 1


def test_a_server_that_keeps_failing_is_given_up_as_transient(tmp_path: Path) -> None:
    with serving(lambda _: 500) as fake:
        request = make_request(tmp_path, fake.url)
        with pytest.raises(TransientError, match="given up after 5 attempts"):
            evaluate_stage(request, tmp_path / "work")
    assert not fake.adapters
    assert read_manifest(open_store(request.store), request.layout.eval(RUN)) is None


def test_an_evaluation_that_takes_too_long_is_given_up_as_transient(tmp_path: Path) -> None:
    def slow(prompt: str) -> str:
        time.sleep(0.4)
        return answer_by_table(prompt)

    with serving(slow) as fake:
        request = make_request(tmp_path, fake.url, spec=sweep(timeout_s=1.0, num_concurrent=2))
        with pytest.raises(TransientError, match="given up after 1 attempts"):
            evaluate_stage(request, tmp_path / "work")


def test_a_refused_question_is_permanent_and_names_the_settings(tmp_path: Path) -> None:
    with serving(lambda _: 400) as fake:
        request = make_request(tmp_path, fake.url)
        with pytest.raises(PermanentError, match=r"max_gen_toks .* serving.max_model_len \(512 tokens\).*too long"):
            evaluate_stage(request, tmp_path / "work")
    assert not fake.adapters


def test_vllms_key_is_sent_and_kept_out_of_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUROGATE_BENCH_VLLM_API_KEY", "sesame-open")
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url)
        evaluate_stage(request, tmp_path / "work")
    assert fake.authorization == {"Bearer sesame-open"}
    store = open_store(request.store)
    for info in store.list(request.layout.root):
        assert b"sesame-open" not in (store.get(info.key) or b"")


def test_empty_answers_are_counted_and_scored_as_wrong_however_many(tmp_path: Path) -> None:
    with serving(lambda prompt: "" if index_of(prompt) < 13 else " \n#### 1234") as fake:
        request = make_request(tmp_path, fake.url)
        evaluate_stage(request, tmp_path / "work")
    result, _, _ = published(open_store(request.store), request, tmp_path / "out")
    assert (result.empty_answers, result.strict.accuracy) == (13, 1 / 14)


def test_an_answer_that_was_aborted_is_a_failed_request_and_not_an_empty_answer(tmp_path: Path) -> None:
    with serving(lambda _prompt: "") as fake:
        fake.finish_reason = "abort"
        request = make_request(tmp_path, fake.url, spec=sweep(max_retries=1))
        with pytest.raises(TransientError, match="did not finish \\(finish_reason 'abort'\\)"):
            evaluate_stage(request, tmp_path / "work")


@pytest.mark.parametrize("num_concurrent", [1, 50])
def test_no_request_to_the_model_server_goes_through_a_proxy(
    tmp_path: Path, num_concurrent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port, on which nothing listens
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url, spec=sweep(num_concurrent=num_concurrent))
        evaluate_stage(request, tmp_path / "work")
    assert len(fake.prompts()) == len(ANSWERS)


def test_one_request_at_a_time_means_one(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        evaluate_stage(make_request(tmp_path, fake.url, spec=sweep(num_concurrent=1)), tmp_path / "work")
    assert fake.most_at_once == 1
