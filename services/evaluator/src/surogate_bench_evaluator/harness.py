"""Run lm-eval in this process.

Through ``lm_eval.evaluate`` and not ``simple_evaluate``: the latter imports torch and transformers to describe the
environment, which costs every evaluator of a sweep seconds of CPU time and the manifest tells already.
"""

import time
from pathlib import Path
from typing import Any

from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from surogate_bench.errors import ConfigError
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench_evaluator.answers import Answers
from surogate_bench_evaluator.completions import HTTP_ERRORS, ResumableCompletions, explain_http_error
from surogate_bench_evaluator.scoring import Outcome
from surogate_bench_evaluator.server import ServedModel

_FEWSHOT_SEED = 1234  # lm-eval's own default
_MOST_STOPS = 4


class Harness:
    """One task, ready to be put to a served model; again, if the model server was lost, and only what is unanswered.

    Args:
        task_file: Rendered task, alone in its folder and named after the task.
        evaluation: Settings of the run.
        answers: Where answers are kept from one try to the next.
        api_key: vLLM's, where it has one.

    Raises:
        ConfigError: lm-eval cannot use the task.
    """

    def __init__(
        self, task_file: Path, evaluation: EvaluationSpec, answers: Answers, *, api_key: str | None = None
    ) -> None:
        self._task = _load_task(task_file)
        self._task.set_config(key="generation_kwargs", value={"max_gen_toks": evaluation.max_gen_toks}, update=True)
        self._name = task_file.stem
        self._evaluation = evaluation
        self._answers = answers
        self._api_key = api_key
        self._seconds = 0.0

    def run(self, model: ServedModel, *, deadline: float) -> Outcome:
        """Ask and score.

        Args:
            model: What to ask.
            deadline: On the monotonic clock, for all tries together.

        Raises:
            ServerLostError: vLLM stopped answering.
            PermanentError: vLLM refuses a question.
        """
        completions = ResumableCompletions(
            model, self._evaluation, self._answers, deadline=deadline, api_key=self._api_key
        )
        self._task.set_fewshot_seed(seed=_FEWSHOT_SEED)
        started = time.monotonic()
        try:
            results = evaluate(
                lm=completions,
                task_dict={"tasks": {self._name: self._task}, "groups": {}, "group_map": {}},
                limit=self._evaluation.limit,
                log_samples=True,
            )
        except HTTP_ERRORS as error:
            raise explain_http_error(error, model) from error
        finally:
            self._seconds += time.monotonic() - started
        return Outcome(task=self._name, results=results, seconds=self._seconds)


def _load_task(task_file: Path) -> Any:  # noqa: ANN401 - lm-eval is not typed
    def unusable(why: object) -> ConfigError:
        return ConfigError(
            f"cannot be used: {why}",
            field="evaluation.task",
            value=task_file.stem,
            remedy="Compare its file with configs/tasks/ro_gsm8k.yaml.",
        )

    try:
        manager = TaskManager(include_path=str(task_file.parent), include_defaults=False)
        task = manager.load([task_file.stem])["tasks"][task_file.stem]
    except (KeyError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise unusable(error) from error
    if (kind := task.get_config("output_type")) != "generate_until":
        raise unusable(f"its output_type is {kind}, not generate_until")
    if (stops := len(task.get_config("generation_kwargs")["until"])) > _MOST_STOPS:
        raise unusable(f"it has {stops} stop strings (generation_kwargs.until), and vLLM takes {_MOST_STOPS} at most")
    return task
