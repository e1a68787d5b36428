"""The whole stage, with real lm-eval, against an HTTP server that plays the model server and vLLM."""

import subprocess
import sys
from pathlib import Path

import pytest
from gates import Gate
from waiting import PATIENCE_S, until
from worlds.evaluator import (
    ANSWERS,
    MODEL,
    RUN,
    answer_by_table,
    index_of,
    make_request,
    manifest_of,
    published,
    serving,
    sweep,
)

from surogate_bench.errors import ConfigError, ExitCode, PermanentError, TransientError
from surogate_bench.layout import manifest_key
from surogate_bench.processes.progress import read_progress, read_termination
from surogate_bench.results import EvalResult
from surogate_bench.stages.publication import fetch_stage, publish_stage, read_manifest, read_result
from surogate_bench.stages.requests import EvaluateRequest, PrepareRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_evaluator.main import handle
from surogate_bench_evaluator.stage import evaluate_stage


@pytest.mark.parametrize("num_concurrent", [1, 4])
def test_a_run_is_scored_and_published_with_every_sample_in_order(tmp_path: Path, num_concurrent: int) -> None:
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url, spec=sweep(num_concurrent=num_concurrent))
        evaluate_stage(request, tmp_path / "work")
    result, samples, lm_eval = published(open_store(request.store), request, tmp_path / "out")
    assert [line.index for line in samples] == list(range(len(ANSWERS)))
    assert [(line.response, line.strict_match, line.flexible_match) for line in samples] == list(ANSWERS)
    assert samples[3].question == "test 3?"
    assert {line.target for line in samples} == {"1,234"}
    assert fetch_stage(open_store(request.store), request.layout.eval(request.run), tmp_path).versions["vllm"] == "7.0"
    n = len(ANSWERS)
    strict = sum(right for _, right, _ in ANSWERS) / n
    assert (result.samples, result.empty_answers, result.model, result.task) == (n, 1, MODEL, "ro_gsm8k")
    assert result.strict.accuracy == strict
    assert result.strict.stderr == pytest.approx((strict * (1 - strict) / (n - 1)) ** 0.5, abs=1e-15)
    assert lm_eval["results"]["ro_gsm8k"]["exact_match,strict-match"] == strict


def test_an_evaluation_under_a_recipe_lies_beside_that_of_the_base_as_published_and_records_it(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        requests = [make_request(tmp_path, fake.url, under=under) for under in (None, "fp8")]
        for request in requests:
            fake.under = request.under
            evaluate_stage(request, tmp_path / f"work-{request.under}")
    store, layout = open_store(requests[0].store), requests[0].layout
    results = [read_result(store, layout.eval(RUN, under), EvalResult) for under in (None, "fp8")]
    assert [result and result.served_under for result in results] == [None, "fp8"]
    assert [result and result.serving_version for result in results] == [None, 7]


def test_a_merged_adapter_is_asked_as_the_base_model_of_its_server_and_recorded_beside_the_others(
    tmp_path: Path,
) -> None:
    with serving(answer_by_table) as fake:
        fake.under, fake.merged = "fp8", RUN
        request = make_request(tmp_path, fake.url, under="fp8", merged=True)
        evaluate_stage(request, tmp_path / "work")
    assert not [call for call in fake.calls if call[0] in {"PUT", "DELETE"}]
    result = read_result(open_store(request.store), request.layout.eval(RUN, "fp8", merged=True), EvalResult)
    assert result is not None
    assert (result.merged, result.served_under, result.model) == (True, "fp8", "base")


def test_a_merged_result_names_the_version_of_the_server_that_merged(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        fake.merged = RUN
        request = make_request(tmp_path, fake.url, merged=True)
        evaluate_stage(request, tmp_path / "work")
    result = read_result(open_store(request.store), request.layout.eval(RUN, merged=True), EvalResult)
    assert result is not None
    assert result.serving_version == 7


@pytest.mark.parametrize(("merged", "served"), [(True, None), (True, "bf16-s1"), (False, RUN)])
def test_a_server_with_another_adapter_merged_into_its_base_is_asked_nothing(
    tmp_path: Path, merged: bool, served: str | None
) -> None:
    with serving(answer_by_table) as fake:
        fake.merged = served
        request = make_request(tmp_path, fake.url, merged=merged)
        with pytest.raises(TransientError, match=r"serves the base .*, and this evaluation is of the base .*"):
            evaluate_stage(request, tmp_path / "work")
    assert not fake.prompts()


def test_a_server_that_starts_vllm_again_may_be_asked_later(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        fake.max_model_len = None
        with pytest.raises(TransientError, match="is restarting vLLM"):
            evaluate_stage(make_request(tmp_path, fake.url), tmp_path / "work")
    assert not fake.prompts()


@pytest.mark.parametrize("run", ["base", RUN])
@pytest.mark.parametrize(("requested", "served"), [("fp8", None), ("fp8", "fp4"), (None, "fp8")])
def test_a_server_of_another_way_of_serving_is_asked_nothing(
    tmp_path: Path, run: str, requested: str | None, served: str | None
) -> None:
    with serving(answer_by_table) as fake:
        fake.under = served
        request = make_request(tmp_path, fake.url, run=run, under=requested)
        with pytest.raises(TransientError, match=r"serves the base .*, and this evaluation is of the base"):
            evaluate_stage(request, tmp_path / "work")
    assert not fake.prompts()
    assert not fake.adapters
    assert not open_store(request.store).exists(manifest_key(request.layout.eval(run, requested)))


def test_the_prompt_is_the_sweeps_and_decoding_is_greedy(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        evaluate_stage(make_request(tmp_path, fake.url), tmp_path / "work")
    bodies = {body["prompt"]: body for _, path, body in fake.calls if path == "/v1/completions"}
    assert set(bodies) == {f"Întrebare: test {i}?\nRăspuns:" for i in range(len(ANSWERS))}
    body = bodies["Întrebare: test 0?\nRăspuns:"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == (MODEL, 0.0, 32)
    assert {"Întrebare:", "Question:"} <= set(body["stop"])
    assert body["add_special_tokens"] is False


def test_the_adapter_is_loaded_before_the_questions_and_unloaded_after_them(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url)
        evaluate_stage(request, tmp_path / "work")
    control = [call for call in fake.calls if call[1] == f"/adapters/{RUN}"]
    assert control == [
        ("PUT", f"/adapters/{RUN}", {"prefix": request.layout.train(RUN)}),
        ("DELETE", f"/adapters/{RUN}", None),
    ]
    assert fake.calls[-1][0] == "DELETE"


def test_the_base_model_is_scored_without_loading_anything(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url, run="base")
        evaluate_stage(request, tmp_path / "work")
    assert {path for _, path, _ in fake.calls} == {"/readyz", "/probe", "/status", "/v1/completions"}
    assert {body["model"] for _, path, body in fake.calls if path == "/v1/completions"} == {"base"}


@pytest.mark.parametrize("run", ["base", RUN])
def test_a_server_of_a_version_without_a_probe_goes_on_serving(tmp_path: Path, run: str) -> None:
    with serving(answer_by_table) as fake:
        fake.probe_status = 404
        request = make_request(tmp_path, fake.url, run=run)
        evaluate_stage(request, tmp_path / "work")
    assert open_store(request.store).exists(manifest_key(request.layout.eval(run)))


@pytest.mark.parametrize("run", ["base", RUN])
def test_nothing_is_scored_where_models_are_mixed_up(tmp_path: Path, run: str) -> None:
    with serving(answer_by_table) as fake:
        fake.probe_status = 422
        request = make_request(tmp_path, fake.url, run=run)
        with pytest.raises(PermanentError, match="vLLM mixes up"):
            evaluate_stage(request, tmp_path / "work")
    assert not fake.prompts()
    assert not fake.adapters


def test_finished_work_is_not_done_again(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url)
        evaluate_stage(request, tmp_path / "work")
        asked = len(fake.calls)
        evaluate_stage(request, tmp_path / "again")
        assert len(fake.calls) == asked


def test_an_adapter_that_cannot_be_unloaded_does_not_spoil_the_evaluation(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        fake.can_unload = False
        request = make_request(tmp_path, fake.url)
        evaluate_stage(request, tmp_path / "work")
    assert read_manifest(open_store(request.store), request.layout.eval(RUN)) is not None


def test_of_two_evaluators_of_one_run_the_first_to_finish_stands(tmp_path: Path) -> None:
    def answer(prompt: str) -> str:
        other = tmp_path / "other"
        other.mkdir(exist_ok=True)
        publish_stage(open_store(request.store), request.layout.eval(RUN), other, manifest_of(request))
        return answer_by_table(prompt)

    with serving(answer) as fake:
        request = make_request(tmp_path, fake.url)
        evaluate_stage(request, tmp_path / "work")
    stored = read_manifest(open_store(request.store), request.layout.eval(RUN))
    assert stored is not None
    assert stored.files == {}


def test_a_refused_adapter_is_permanent_and_gives_the_servers_reason(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        fake.load_answers = [(422, {"reason": "RankTooHigh", "message": "rank 128 is above 64"})]
        with pytest.raises(PermanentError, match="RankTooHigh: rank 128 is above 64"):
            evaluate_stage(make_request(tmp_path, fake.url), tmp_path / "work")


def test_a_server_that_is_not_ready_yet_is_waited_for(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        fake.load_answers = [(503, {"reason": "NotReady", "message": "loading"})] * 3
        fake.not_ready = 3
        evaluate_stage(make_request(tmp_path, fake.url), tmp_path / "work")
    assert [method for method, path, _ in fake.calls if path.startswith("/adapters")] == ["PUT"] * 4 + ["DELETE"]


def test_a_server_that_never_comes_is_given_up_in_time(tmp_path: Path) -> None:
    request = make_request(tmp_path, "http://127.0.0.1:9", spec=sweep(start_timeout_s=0.2))
    with pytest.raises(TransientError, match=r"GET /readyz within 0.2 s"):
        evaluate_stage(request, tmp_path / "work")


def test_only_the_first_records_are_scored_under_a_limit(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url, spec=sweep(limit=5))
        evaluate_stage(request, tmp_path / "work")
    assert sorted(map(index_of, fake.prompts())) == [0, 1, 2, 3, 4]


def test_solved_examples_are_shown_as_the_model_was_trained_on_them(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url, spec=sweep(num_fewshot=2))
        evaluate_stage(request, tmp_path / "work")
    for prompt in fake.prompts():
        first, second, last = prompt.split("\n\n")
        for example in (first, second):
            assert example.startswith("Întrebare: train ")
            assert example.endswith("?\nRăspuns: Gândim.\n#### 1,234")
        assert last.startswith("Întrebare: test ")
        assert last.endswith("?\nRăspuns:")


def test_examples_stay_the_same_when_a_lost_server_is_asked_again(tmp_path: Path) -> None:
    failing = {"left": 3}

    def answer(prompt: str) -> str | int:
        if failing["left"]:
            failing["left"] -= 1
            return 503
        return answer_by_table(prompt)

    with serving(answer) as fake:
        evaluate_stage(make_request(tmp_path, fake.url, spec=sweep(num_fewshot=2)), tmp_path / "work")
    assert len(set(fake.prompts())) == len(ANSWERS)


def test_progress_counts_answers(tmp_path: Path) -> None:
    progress = []

    def answer(prompt: str) -> str:
        progress.append(read_progress(tmp_path / "work"))
        return answer_by_table(prompt)

    with serving(answer) as fake:
        evaluate_stage(make_request(tmp_path, fake.url), tmp_path / "work")
    assert progress[0] is not None
    assert (progress[0].phase, progress[0].step, progress[0].total) == ("evaluating", 0, len(ANSWERS))
    assert getattr(read_progress(tmp_path / "work"), "phase", None) == "uploading"


def test_a_request_for_another_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not for the evaluator"):
        handle(PrepareRequest(sweep=sweep(), store=str(tmp_path / "store")), tmp_path / "work")


def test_as_a_process_it_evaluates_and_later_ends_at_once_without_the_heavy_libraries(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url)
        first = _run_process(request, tmp_path)
        second = _run_process(request, tmp_path, "-X", "importtime")
    assert (first.returncode, second.returncode) == (ExitCode.OK, ExitCode.OK)
    assert open_store(request.store).exists(manifest_key(request.layout.eval(RUN)))
    assert "surogate_bench_evaluator.stage" in imported(second)
    assert not imported(second) & {"lm_eval", "datasets", "torch", "pandas"}


def test_as_a_process_it_scores_without_torch_and_leaves_word_when_it_fails(tmp_path: Path) -> None:
    with serving(lambda prompt: 422 if index_of(prompt) == 3 else answer_by_table(prompt)) as fake:
        request = make_request(tmp_path, fake.url)
        done = _run_process(request, tmp_path, "-X", "importtime")
    assert done.returncode == ExitCode.PERMANENT
    assert "lm_eval" in imported(done)
    assert not imported(done) & {"torch", "transformers"}
    word = read_termination(tmp_path / "process")
    assert word is not None
    assert word.reason == "PermanentError"
    assert "vLLM refuses a question (HTTP 422)" in word.message


def test_terminated_it_unloads_the_adapter_and_may_be_started_again(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url, spec=sweep(num_concurrent=2))
        gate = Gate(tmp_path / "gate")
        gate.close_progress(1)
        process = _start_process(request, tmp_path, environment=gate.environment())
        until(lambda: gate.waiting() or process.poll() is not None, "the first answer")
        process.terminate()
        gate.open()
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == ExitCode.TRANSIENT
        assert ("DELETE", f"/adapters/{RUN}", None) in fake.calls
        assert not fake.adapters
        assert _run_process(request, tmp_path).returncode == ExitCode.OK


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}


def _start_process(
    request: EvaluateRequest, folder: Path, *flags: str, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    path = folder / "request.json"
    path.write_text(request.model_dump_json())
    command = [
        sys.executable,
        *flags,
        "-m",
        "surogate_bench_evaluator",
        str(path),
        "--work-dir",
        str(folder / "process"),
    ]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _run_process(request: EvaluateRequest, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    process = _start_process(request, folder, *flags)
    out, err = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
