"""Run lm-eval in this process.

Through ``lm_eval.evaluate`` and not ``simple_evaluate``: the latter imports torch and transformers to describe the
environment, which costs every evaluator of a sweep seconds of CPU time; the manifest has that information already.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub.errors import OfflineModeIsEnabled
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from surogate_bench.contract import DATASETS_OFFLINE_VARIABLE
from surogate_bench.errors import BenchError, ConfigError, TransientError
from surogate_bench.inputs.content import MULTIPLE_CHOICE
from surogate_bench.inputs.hub_environment import OFFLINE_SWITCHES
from surogate_bench.results import ScoredData
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench.specs.sweep import RecipeSweep
from surogate_bench.variables import is_on
from surogate_bench_evaluator.answers import Answers
from surogate_bench_evaluator.completions import HTTP_ERRORS, ResumableChat, ResumableCompletions, explain_http_error
from surogate_bench_evaluator.scoring import Outcome
from surogate_bench_evaluator.server import ServedModel
from surogate_bench_evaluator.tokens import Boundaries

_FEWSHOT_SEED = 1234  # lm-eval's own default
_FEWEST_RESAMPLES = 2
"""Two bootstrap samples in lm-eval: every reported metric is a fraction of questions, whose standard error has a closed
form."""
_MOST_STOPS = 4
_GENERATION = "generate_until"
_UNMARKED = Boundaries()


class Harness:
    """One task, ready to be scored on a served model. A further attempt sends only the prompts that have no answer yet.

    Args:
        task_file: Rendered task, alone in its folder and named after the task.
        evaluation: Settings of the run.
        answers: Stores answers between attempts.
        api_key: Key of vLLM; None if it requires none.
        boundaries: How sequences begin and end.
        template_arguments: Further arguments of the chat template, if prompts are rendered by one.

    Raises:
        ConfigError: lm-eval cannot use the task.
        TransientError: the hub that has the task's own data cannot be reached.
    """

    def __init__(
        self,
        task_file: Path,
        evaluation: EvaluationSpec,
        answers: Answers,
        *,
        api_key: str | None = None,
        boundaries: Boundaries = _UNMARKED,
        template_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self._task = _load_task(task_file)
        if self.generates:
            self._task.set_config(key="generation_kwargs", value={"max_gen_toks": evaluation.max_gen_toks}, update=True)
        self._name = task_file.stem
        self._evaluation = evaluation
        self._answers = answers
        self._api_key = api_key
        self._boundaries = boundaries
        self._template_arguments = template_arguments or {}
        self._seconds = 0.0

    @property
    def task(self) -> Any:  # noqa: ANN401 - lm-eval is not typed
        """lm-eval's task."""
        return self._task

    def scored_data(self, sweep: RecipeSweep) -> ScoredData:
        """Return a description of the records that are scored."""
        config = self._task.config
        if "data" in self._evaluation.keep_from_task:
            source = str(config.dataset_path)
            if (config.dataset_kwargs or {}).get("data_files"):
                source = f"{source}:{config.dataset_kwargs['data_files']}"
            elif config.dataset_name:
                source = f"{source}:{config.dataset_name}"
        else:
            source = sweep.data.label
        digest, records = hashlib.sha256(), 0
        for record in islice(self._task.eval_docs, self._evaluation.limit):
            digest.update(json.dumps(record, ensure_ascii=False, sort_keys=True, default=str).encode() + b"\n")
            records += 1
        return ScoredData(
            source=source,
            split=str(config.test_split or config.validation_split),
            records=records,
            sha256=digest.hexdigest(),
            prompt="task" if "prompt" in self._evaluation.keep_from_task else "sweep",
            num_fewshot=config.num_fewshot or 0,
            chat_template=self._uses_messages,
        )

    @property
    def generates(self) -> bool:
        """Whether answers are generated, and not chosen."""
        return bool(self._task.get_config("output_type") == _GENERATION)

    @property
    def _uses_messages(self) -> bool:
        """Whether prompts are sent as messages, for which servers give no log-likelihoods of choices."""
        return self._evaluation.chat_template and self.generates

    def run(self, model: ServedModel, *, deadline: float) -> Outcome:
        """Send the prompts and score the answers.

        Args:
            model: The model to score.
            deadline: On the monotonic clock, for all attempts together.

        Raises:
            ServerLostError: vLLM stopped answering.
            PermanentError: vLLM refuses a question.
        """
        chat = self._uses_messages
        make = partial(ResumableChat, template_arguments=self._template_arguments) if chat else ResumableCompletions
        completions = make(
            model,
            self._evaluation,
            self._answers,
            deadline=deadline,
            api_key=self._api_key,
            boundaries=self._boundaries,
        )
        try:
            return self.evaluate(completions, chat=chat)
        except HTTP_ERRORS as error:
            raise explain_http_error(error, model) from error

    def evaluate(self, model: LM, *, chat: bool = False) -> Outcome:
        """Run the task on one of lm-eval's models, on a chat model with messages, and score its answers."""
        self._task.set_fewshot_seed(seed=_FEWSHOT_SEED)
        started = time.monotonic()
        try:
            results = evaluate(
                lm=model,
                task_dict={"tasks": {self._name: self._task}, "groups": {}, "group_map": {}},
                limit=self._evaluation.limit,
                bootstrap_iters=_FEWEST_RESAMPLES,
                log_samples=True,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,  # as lm-eval's command does
            )
        finally:
            self._seconds += time.monotonic() - started
        return Outcome(task=self._name, results=results, seconds=self._seconds)


def unusable(task: str, why: object) -> ConfigError:
    """Return the error for a task that cannot be used."""
    return ConfigError(
        f"cannot be used: {' '.join(str(why).split())}",
        field="evaluation.task",
        value=task,
        remedy="Compare its file with configs/tasks/ro_gsm8k.yaml, or word_problem_choice.yaml for multiple choice.",
    )


def _load_task(task_file: Path) -> Any:  # noqa: ANN401 - lm-eval is not typed
    name = task_file.stem
    try:
        # By its path: the index of a folder silently omits files that cannot be parsed.
        task = TaskManager(include_defaults=False).load([str(task_file)])["tasks"][name]
    except (ConnectionError, TimeoutError, httpx.TransportError, OfflineModeIsEnabled) as error:
        _require_online(name)
        raise TransientError(
            f"the data of the task {name} cannot be loaded, because the hub cannot be reached: {error}. "
            "Check the network, or let the task score other data"
        ) from error
    except BenchError:
        raise
    except Exception as error:  # functions of a task may raise anything
        raise unusable(name, explain_task_error(error)) from error
    if (kind := task.get_config("output_type")) not in {_GENERATION, MULTIPLE_CHOICE}:
        raise unusable(name, f"its output_type is {kind}, not {_GENERATION} or {MULTIPLE_CHOICE}")
    if kind == MULTIPLE_CHOICE:
        return task
    if (stops := len(stops_of(task.get_config("generation_kwargs")))) > _MOST_STOPS:
        raise unusable(
            name, f"it has {stops} stop strings (generation_kwargs.until), and vLLM takes {_MOST_STOPS} at most"
        )
    return task


def _require_online(task: str) -> None:
    """Check that the hub, which has a task's data, may be asked.

    Raises:
        ConfigError: a variable forbids it.
    """
    switches = (*OFFLINE_SWITCHES, DATASETS_OFFLINE_VARIABLE)
    switch = next((each for each in switches if is_on(os.environ.get(each))), None)
    if switch is not None:
        raise ConfigError(
            f"disables requests to the hub, and the data of the task {task} is not in the cache",
            field=switch,
            value=os.environ[switch],
            remedy="Unset it, fill the cache first, or let the task score other data.",
        )


def stops_of(generation: dict[str, Any]) -> list[str]:
    """Return the stop strings of a task's generation settings: lm-eval accepts one or several."""
    stops = generation.get("until") or []
    return [stops] if isinstance(stops, str) else list(stops)


def explain_task_error(error: Exception) -> str:
    """Return a description of an error in a task; some errors are a bare name."""
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, (KeyError, AssertionError)) or not str(error) else str(error)
