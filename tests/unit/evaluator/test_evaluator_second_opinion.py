"""lm-eval's scores, recomputed by code that shares nothing with it, not even regular expressions."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench_evaluator.scoring import Outcome, score

DIGITS = "0123456789"
CONFIGS = Path(__file__).parents[3] / "configs"

# Pieces that answers are made of, chosen to be awkward: signs, thousands, currency, ends of sentences, other scripts.
PIECES = st.sampled_from(
    ["#### ", "####", "###", "12", "1,2", "-", "$", ".", ",", " ", "\n", "7", "12.", "12.0", "Ă", "lei", "#### 12", "٣"]
)
ANSWERS = st.lists(PIECES, max_size=9).map("".join)
TARGETS = st.sampled_from(["12", "1,2", "-7", "1,234", "12.5", "0"])


def canonical(number: str) -> str:
    """How two numbers are compared: no thousands commas, no dollar signs, nothing before ####, no final full stop."""
    number = number.replace(",", "").replace("$", "")
    if "#### " in number:
        number = number[number.rindex("#### ") + 5 :]
    return number.removesuffix(".").lower()


def taken_while(text: str, start: int, allowed: str) -> str:
    end = start
    while end < len(text) and text[end] in allowed:
        end += 1
    return text[start:end]


def strict_number(answer: str) -> str | None:
    """The number right after the first "#### " that a number follows."""
    position = answer.find("#### ")
    while position >= 0:
        start = position + 5
        sign = "-" if answer[start : start + 1] == "-" else ""
        if body := taken_while(answer, start + len(sign), DIGITS + ".,"):
            return sign + body
        position = answer.find("#### ", position + 1)
    return None


def flexible_number(answer: str) -> str | None:
    """The last run of two or more of 0-9 $ . , or, where a run is shorter, the last single digit; with its minus."""
    last, position = None, 0
    while position < len(answer):
        sign = "-" if answer[position] == "-" else ""
        start = position + len(sign)
        run = taken_while(answer, start, DIGITS + "$.,")
        found = run if len(run) >= 2 else taken_while(answer, start, DIGITS)
        if found:
            last = sign + found
            position = start + len(found)
        else:
            position += 1
    return last


def is_right(number: str | None, target: str) -> bool:
    return canonical("[invalid]" if number is None else number.strip()) == canonical(target)


def lm_eval_outcome(answers: list[str], target: str) -> Outcome:
    """Run lm-eval itself over canned answers."""
    from datasets import Dataset
    from lm_eval.api.model import LM
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    class Canned(LM):
        def generate_until(self, requests: list[Any]) -> list[str]:
            return [answers[int(request.args[0])] for request in requests]

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

        def loglikelihood_rolling(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

    def dataset(**_: Any) -> dict[str, Any]:
        rows = [{"question": str(i), "answer": f"So.\n#### {target}"} for i in range(len(answers))]
        return {"test": Dataset.from_list(rows)}

    shipped = yaml.safe_load((CONFIGS / "tasks" / "ro_gsm8k.yaml").read_text())
    canned = {"custom_dataset": dataset, "training_split": None, "fewshot_split": None, "doc_to_text": "{{question}}"}
    tasks = TaskManager(include_defaults=False).load([shipped | canned])
    return Outcome(task="ro_gsm8k", results=evaluate(lm=Canned(), task_dict=tasks), seconds=1.0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ANSWERS, min_size=20, max_size=60), TARGETS)
def test_accuracies_recomputed_from_the_samples_are_lm_evals_exactly(answers: list[str], target: str) -> None:
    evaluation = EvaluationSpec(max_empty_fraction=1.0)
    scores = score(lm_eval_outcome(answers, target), evaluation, model="m")
    assert [line.response for line in scores.samples] == answers
    assert {line.target for line in scores.samples} == {target}
    strict = [is_right(strict_number(line.response), line.target) for line in scores.samples]
    flexible = [is_right(flexible_number(line.response), line.target) for line in scores.samples]
    assert [line.strict_match for line in scores.samples] == strict
    assert [line.flexible_match for line in scores.samples] == flexible
    n = len(answers)
    for metric, right in ((scores.result.strict, sum(strict)), (scores.result.flexible, sum(flexible))):
        assert metric.accuracy == right / n
        assert metric.stderr == pytest.approx((right / n * (1 - right / n) / (n - 1)) ** 0.5, abs=1e-15)
    assert scores.result.empty_answers == sum(not answer.split() for answer in answers)


def recorded() -> dict[str, Any]:
    """Results of two samples, as lm-eval returns them."""
    samples = [
        {
            "doc_id": index,
            "doc": {"question": f"q{index}", "answer": "#### 5"},
            "target": "#### 5",
            "resps": [[" \n#### 5" if right else ""]],
            "filter": filter_name,
            "exact_match": float(right),
        }
        for filter_name in ("strict-match", "flexible-extract")
        for index, right in ((1, False), (0, True))
    ]
    figures: dict[str, Any] = {}
    for filter_name in ("strict-match", "flexible-extract"):
        figures |= {f"exact_match,{filter_name}": 0.5, f"exact_match_stderr,{filter_name}": 0.5}
    return {"results": {"t": figures}, "samples": {"t": samples}, "higher_is_better": {"t": {"x": {1, 2}.isdisjoint}}}


def test_samples_come_in_the_order_of_their_index() -> None:
    scores = score(
        Outcome(task="t", results=recorded(), seconds=2.5), EvaluationSpec(max_empty_fraction=0.5), model="m"
    )
    assert [(line.index, line.strict_match) for line in scores.samples] == [(0, True), (1, False)]
    assert scores.result.seconds == 2.5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("exact_match,strict-match", 1.0),
        ("exact_match_stderr,flexible-extract", 0.4),
        ("exact_match,strict-match", "N/A"),
    ],
)
def test_figures_that_do_not_follow_from_the_samples_are_refused(key: str, value: object) -> None:
    results = recorded()
    results["results"]["t"][key] = value
    with pytest.raises(PermanentError, match=r"but its samples give 0\.5 ± 0\.5"):
        score(Outcome(task="t", results=results, seconds=1), EvaluationSpec(max_empty_fraction=1), model="m")


def test_a_task_without_both_filters_is_refused() -> None:
    results = recorded()
    results["samples"]["t"] = [each for each in results["samples"]["t"] if each["filter"] == "strict-match"]
    with pytest.raises(ConfigError, match="no exact_match under a filter named flexible-extract"):
        score(Outcome(task="t", results=results, seconds=1), EvaluationSpec(), model="m")


def test_lm_evals_results_are_kept_as_plain_json() -> None:
    import numpy as np

    results = recorded() | {"n": np.int64(3), "nan": float("nan"), "path": Path("/x"), "mean": np.float64(0.5)}
    kept = score(Outcome(task="t", results=results, seconds=1), EvaluationSpec(max_empty_fraction=1), model="m").lm_eval
    assert (kept["n"], kept["nan"], kept["path"], kept["mean"]) == (3, None, "/x", 0.5)
    assert isinstance(kept["higher_is_better"]["t"]["x"], str)
    assert "samples" not in kept
