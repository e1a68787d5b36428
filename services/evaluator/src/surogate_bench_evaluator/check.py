"""The check of a task before anything is trained: the reference answers must score 1."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from surogate_bench.contract import split_file
from surogate_bench.errors import BenchError, ConfigError
from surogate_bench.layout import manifest_key
from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench.results import CheckResult, ScoredData
from surogate_bench.specs.sweep import RecipeSweep
from surogate_bench.specs.tasks import TaskEntry
from surogate_bench.stages.publication import new_manifest, publish_stage
from surogate_bench.stages.requests import CheckRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_evaluator.answers import Answers
from surogate_bench_evaluator.measures import FLEXIBLE, STRICT
from surogate_bench_evaluator.scoring import Scores, score
from surogate_bench_evaluator.stage import isolate_libraries
from surogate_bench_evaluator.tasks import prepare_task, require_records

if TYPE_CHECKING:
    from surogate_bench_evaluator.harness import Harness

_log = logging.getLogger(__name__)


def check_stage(request: CheckRequest, work_dir: Path) -> None:
    """Score every reference answer against itself with the same task, and publish which data the task scores.

    Raises:
        ConfigError: the task is unknown or cannot be used, there are too few test records, or the reference answer of a
            record is not scored as correct.
        TransientError: the store, or the hub that has the task's own data, is unavailable.
    """
    store = open_store(request.store)
    prefix, sweep = request.layout.check(request.subject, request.task), request.sweep.of_task(request.task)
    if store.exists(manifest_key(prefix)):
        return
    write_progress(work_dir, Progress(phase=Activity.CHECKING))
    isolate_libraries(work_dir / "cache", sweep.evaluation)
    entry = None if request.task is None else request.sweep.evaluation.entry(request.task)
    scored = check_task(sweep, prepare_task(request, store, work_dir), entry)
    output = work_dir / "output"
    output.mkdir(parents=True, exist_ok=True)
    publish_stage(store, prefix, output, new_manifest(request, CheckResult(scored=scored)))
    _log.info("all %d reference answers are scored as correct by %s", scored.records, sweep.evaluation.task)


def check_task(sweep: RecipeSweep, task_file: Path, entry: TaskEntry | None = None) -> ScoredData:
    """Check a task that was adapted to a sweep.

    Args:
        sweep: The sweep as of that task.
        task_file: The adapted task.
        entry: The task's entry; None for the primary task.

    Returns:
        The records that it scores.

    Raises:
        ConfigError: see :func:`check_stage`.
        TransientError: the hub that has the task's own data is unavailable.
    """
    # Not at the top: this import takes seconds, which a stage that is already complete must not take.
    from surogate_bench_evaluator.harness import Harness, explain_task_error, unusable  # noqa: PLC0415
    from surogate_bench_evaluator.references import ReferenceAnswers  # noqa: PLC0415

    harness = Harness(task_file, sweep.evaluation, Answers(lambda *_: None))
    try:
        _require_effect(harness, entry)
        scored = harness.scored_data(sweep)
        require_records(scored.records)
        if scored.prompt == "sweep":
            _require_prompts(harness, sweep, task_file)
        lenient = sweep.evaluation.model_copy(update={"max_empty_fraction": 1.0})
        scores = score(harness.evaluate(ReferenceAnswers(harness.task)), lenient, model="references")
    except BenchError:
        raise
    except Exception as error:  # templates and functions of a task may raise anything
        raise unusable(sweep.evaluation.task, explain_task_error(error)) from error
    _require_right(scores, sweep, generates=harness.generates)
    return scored


def _require_effect(harness: "Harness", entry: TaskEntry | None) -> None:
    """Check that settings of a further task have an effect. Those of the primary task also apply to further tasks.

    Raises:
        ConfigError: one has not.
    """
    if entry is not None and entry.max_gen_toks is not None and not harness.generates:
        raise ConfigError(
            f"has no effect: {entry.name} is a multiple-choice task, which generates no answers",
            field="evaluation.max_gen_toks",
            value=entry.max_gen_toks,
            remedy="Remove it.",
        )


def _require_prompts(harness: "Harness", sweep: RecipeSweep, task_file: Path) -> None:
    """Check that a task uses the records as they were written for it: its own functions may change them.

    Raises:
        ConfigError: it does not.
    """
    from surogate_bench_evaluator.harness import unusable  # noqa: PLC0415 - see check_task

    task = harness.task
    records = list(task.eval_docs)
    with (task_file.parent / split_file("test")).open(encoding="utf-8") as lines:
        expected = sum(1 for _ in lines)
    fields = {"question", "answer", "prompt", "completion"}
    if len(records) != expected or not all(fields <= record.keys() for record in records):
        raise unusable(
            sweep.evaluation.task,
            f"its process_docs or custom_dataset replaces the {expected} test records by {len(records)} others; remove "
            "it, or let the task keep its own data and prompt (primary: keep_from_task; others: without data)",
        )


def _require_right(scores: Scores, sweep: RecipeSweep, *, generates: bool) -> None:
    """Check that reference answers score 1.

    Raises:
        ConfigError: naming the first that does not, and how many do not.
    """
    wrong = [line for line in scores.samples if not (line.strict_match and line.flexible_match)]
    if not wrong:
        return
    first, result = wrong[0], scores.result
    first_metric, second = (
        result.metric or STRICT.under,
        result.second_metric if result.metric else FLEXIBLE.under,
    )
    match = (second or first_metric) if first.strict_match else first_metric
    others = f"; so are those of {len(wrong) - 1} more records" if len(wrong) > 1 else ""
    own = "data" in sweep.evaluation.keep_from_task
    raise ConfigError(
        f"the reference answer itself is scored as wrong by {match} of {sweep.evaluation.task}{others}",
        field=f"{sweep.evaluation.task}:{first.index + 1}" if own else f"data.test:{first.index + 1}",
        value=(first.response if generates else first.target)[-80:],
        remedy=_remedy(generates=generates, reads_numbers=result.metric is None),
    )


def _remedy(*, generates: bool, reads_numbers: bool) -> str:
    if not generates:
        return (
            "Correct the record, or the task's file: doc_to_target has to name one of the choices of doc_to_choice, by "
            "its number from 0 or its text."
        )
    if not reads_numbers:
        return (
            "Correct the answer, or the task's file: its filters must extract from an answer what doc_to_target gives."
        )
    return (
        "End each test answer with one line '#### ' and a bare number, without unit, space, percent sign or text after "
        "it, and use '####' nowhere else; or score by a task whose filters take such answers."
    )
