"""The evaluation stage from request to manifest."""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from surogate_bench.contract import (
    DATASETS_OFFLINE_VARIABLE,
    HUB_HOME_VARIABLE,
    HUB_OFFLINE_VARIABLE,
    RESULTS_FILE,
    SAMPLES_FILE,
    VLLM_API_KEY_VARIABLE,
)
from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.layout import manifest_key
from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench.results import CheckResult, ScoredData
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench.stages.prepared import answer_ends, special_tokens
from surogate_bench.stages.publication import new_manifest, publish_stage, read_result
from surogate_bench.stages.requests import EvaluateRequest
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_evaluator.answers import Answers
from surogate_bench_evaluator.scoring import Scores, score
from surogate_bench_evaluator.server import ModelServer, ServerLostError
from surogate_bench_evaluator.tasks import prepare_task
from surogate_bench_evaluator.tokens import Boundaries

_log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""Maximum number of attempts of an evaluation; another one follows the loss of the model server."""


def evaluate_stage(request: EvaluateRequest, work_dir: Path) -> None:
    """Score one run and publish its answers and figures, unless the stage is already complete.

    Raises:
        ConfigError: the task is unknown or cannot be used, or there are too few test records.
        TransientError: the model server or the store remained unavailable.
        PermanentError: the adapter was refused, vLLM mixes up the models it serves, or the task's own data has changed
            since its check.
    """
    store = open_store(request.store)
    prefix = request.layout.eval(request.run, request.under, merged=request.merged, task=request.task)
    if store.exists(manifest_key(prefix)):
        _log.info("already evaluated", extra={"run": request.run})
        return
    write_progress(work_dir, Progress(phase=Activity.STARTING))
    isolate_libraries(work_dir / "cache", request.sweep.of_task(request.task).evaluation)
    task_file = prepare_task(request, store, work_dir)
    scores, served_by = _evaluate(request, store, task_file, work_dir)
    write_progress(work_dir, Progress(phase=Activity.UPLOADING))
    output = work_dir / "output"
    _write_output(output, scores)
    manifest = new_manifest(request, scores.result, served_by=served_by)
    if not publish_stage(store, prefix, output, manifest):
        _log.info("another evaluator finished first", extra={"run": request.run})
        return
    figures = scores.result.model_dump(include={"strict", "flexible", "empty_answers", "seconds"})
    _log.info("evaluated: accuracy %.4f", scores.result.strict.accuracy, extra=figures)


def _evaluate(
    request: EvaluateRequest, store: ObjectStore, task_file: Path, work_dir: Path
) -> tuple[Scores, Mapping[str, str]]:
    """Run lm-eval, and continue after the loss of the server, until attempts or time are exhausted.

    Returns:
        The scores, and the versions of the packages that served the model.
    """
    # Not at the top: this import takes seconds, and reads the environment that has just been set.
    from surogate_bench_evaluator.harness import Harness  # noqa: PLC0415

    sweep = request.sweep.of_task(request.task)
    deadline = time.monotonic() + sweep.evaluation.timeout_s

    reported_tenths = -1

    def report(done: int, total: int) -> None:
        nonlocal reported_tenths
        write_progress(work_dir, Progress(phase=Activity.EVALUATING, step=done, total=total))
        if (tenths := done * 10 // max(1, total)) > reported_tenths:
            reported_tenths = tenths
            _log.info("%d of %d requests answered", done, total)

    added = special_tokens(store, request.layout)
    answers = Answers(report)
    harness = Harness(
        task_file,
        sweep.evaluation,
        answers,
        api_key=os.environ.get(VLLM_API_KEY_VARIABLE),
        boundaries=Boundaries(special_tokens=added is not None, ends=answer_ends(store, request.layout)),
        template_arguments=sweep.data.chat_template_arguments,
    )
    scored = harness.scored_data(sweep)
    _require_checked(scored, request, store)
    timeout = sweep.serving.start_timeout_s
    merged = request.run if request.merged else None
    with ModelServer(request.server_url, under=request.under, merged=merged, start_timeout_s=timeout) as server:
        attempt = 1
        while True:
            try:
                with server.serving(request.run, request.layout.train(request.run)) as model:
                    outcome = harness.run(model, deadline=deadline)
                scores = score(outcome, sweep.evaluation, model=model.name)
                return scores.describing(scored, added, model), model.versions
            except ServerLostError as error:
                _log.warning("%s", error, extra={"attempt": attempt, "answers": len(answers)})
                if attempt == MAX_ATTEMPTS or time.monotonic() >= deadline:
                    raise TransientError(f"given up after {attempt} attempts; {error}") from error
                attempt += 1


def _require_checked(scored: ScoredData, request: EvaluateRequest, store: ObjectStore) -> None:
    """Check that the records are those that the task's check found: data of the hub may change in between.

    Raises:
        PermanentError: they are others.
    """
    check = request.layout.check("task", request.task)
    checked = read_result(store, check, CheckResult)
    if checked is None or checked.scored is None or checked.scored.sha256 == scored.sha256:
        return
    raise PermanentError(
        f"the data of {scored.source} has changed since its task was checked: {scored.records} records with digest "
        f"{scored.sha256[:12]} instead of {checked.scored.records} with {checked.scored.sha256[:12]}. Scores of "
        "different records cannot be compared: restore the data, or run the sweep under another name"
    )


def isolate_libraries(cache: Path, evaluation: EvaluationSpec) -> None:
    """Configure lm-eval's libraries to write to ``cache`` only, and to use no network, processes or progress bars.

    Concurrent evaluators share nothing, the root file system may be read-only, and everything that is read is local,
    except for a task's own data, which comes from the hub through the user's cache.
    """
    os.environ.update(HF_DATASETS_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TQDM_DISABLE="1")
    # A forked pool of lm-eval may never end: its processes inherit the handler of SIGTERM, and may be about to wait.
    os.environ["DISABLE_MULTIPROC"] = "1"
    if "data" not in evaluation.keep_from_task:
        os.environ.update({HUB_HOME_VARIABLE: str(cache), HUB_OFFLINE_VARIABLE: "1", DATASETS_OFFLINE_VARIABLE: "1"})


def _write_output(folder: Path, scores: Scores) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    results = json.dumps(scores.lm_eval, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / RESULTS_FILE).write_text(results + "\n", encoding="utf-8")
    samples = "".join(line.model_dump_json() + "\n" for line in scores.samples)
    (folder / SAMPLES_FILE).write_text(samples, encoding="utf-8")
