"""The whole stage, with real lm-eval, against an HTTP server that plays the model server and vLLM."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from gates import Gate
from waiting import PATIENCE_S, until

from surogate_bench.errors import ConfigError, ExitCode, PermanentError, TransientError
from surogate_bench.hardware import describe_machine
from surogate_bench.layout import manifest_key
from surogate_bench.manifest import Manifest, fetch_stage, publish_stage, read_manifest
from surogate_bench.progress import read_progress, read_termination
from surogate_bench.requests import EvaluateRequest, PrepareRequest
from surogate_bench.results import EvalResult, SampleLine
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.store import ObjectStore, open_store
from surogate_bench_evaluator import server as server_module
from surogate_bench_evaluator.main import handle
from surogate_bench_evaluator.stage import evaluate_stage

RUN = "bf16-s0"
MODEL = "adapter-0123"

# (answer of the model, right by the number after ####, right by the last number); the reference is always 1,234.
ANSWERS = (
    (" so\n#### 1234", True, True),
    (" so\n#### 1,234", True, True),
    (" so\n#### $1234", False, True),
    (" so\n#### 1234.", True, True),
    (" so\n#### -1234", False, False),
    (" 1234", False, True),
    (" first\n#### 1234\nthen\n#### 99", True, False),
    (" first\n#### 99\nthen\n#### 1234", False, True),
    (" it is $1,234.", False, True),
    (" none at all", False, False),
    ("", False, False),
    ("####1234", False, True),
    (" Întâi 7, apoi\n#### 1234 de lei", True, True),
    ("\n#### 1234.0", False, False),
)


@dataclass(slots=True)
class FakeServer:
    """Control API and completions on one port. `answer` maps a prompt to a text, or to an HTTP status."""

    answer: Callable[[str], str | int]
    url: str = ""
    not_ready: int = 0
    """So often it answers that it is not ready."""
    can_unload: bool = True
    adapters: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    load_answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    authorization: set[str | None] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def prompts(self) -> list[str]:
        return [body["prompt"] for _, path, body in self.calls if path == "/v1/completions"]

    def respond(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.calls.append((method, path, body))
            if path.startswith("/adapters/"):
                return self._load_or_unload(method, path.removeprefix("/adapters/"), body)
            if path == "/v1/completions":
                return self._complete(body)
            if path == "/readyz" and self.not_ready:
                self.not_ready -= 1
                return 503, {}
            status = {"vllm_url": self.url, "model": "base", "max_model_len": 512, "versions": {"vllm": "7.0"}}
            return 200, status

    def _load_or_unload(self, method: str, run: str, body: Any) -> tuple[int, dict[str, Any]]:
        if method == "PUT" and self.load_answers:
            return self.load_answers.pop(0)
        if method == "PUT":
            self.adapters[run] = body["prefix"]
            return 200, {"model": MODEL}
        if not self.can_unload:
            return 500, {"reason": "VllmError", "message": "cannot unload"}
        return (200, {}) if self.adapters.pop(run, None) else (404, {})

    def _complete(self, body: Any) -> tuple[int, dict[str, Any]]:
        if body["model"] == MODEL and not self.adapters:
            return 404, {"error": {"message": "no such model"}}
        given = self.answer(body["prompt"])
        if isinstance(given, int):
            return given, {"error": {"message": "too long"}}
        return 200, {"choices": [{"index": 0, "text": given}]}


@contextmanager
def serving(answer: Callable[[str], str | int]) -> Iterator[FakeServer]:
    fake = FakeServer(answer)

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            if self.path == "/v1/completions":
                fake.authorization.add(self.headers.get("Authorization"))
            status, document = fake.respond(self.command, self.path, body)
            payload = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_PUT = do_POST = do_DELETE = _respond  # noqa: N815 - the names http.server looks for

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        fake.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield fake
        finally:
            httpd.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(os.environ)
    monkeypatch.setattr(server_module, "_POLL_S", 0.01)
    yield
    os.environ.clear()
    os.environ.update(before)


def sweep(**evaluation: Any) -> dict[str, Any]:
    return {
        "name": "toy",
        "model": {"builtin": "tiny-qwen3-en"},
        "data": {
            "builtin": "word-problems-ro",
            "train_size": 8,
            "test_size": 14,
            "prompt": "Întrebare: {question}\nRăspuns:",
        },
        "training": {"max_steps": 2},
        "recipes": ["bf16"],
        "serving": {"start_timeout_s": PATIENCE_S},
        "evaluation": {"num_concurrent": 4, "max_retries": 1, "max_gen_toks": 32, **evaluation},
    }


def make_request(
    folder: Path, server_url: str, *, run: str = RUN, spec: dict[str, Any] | None = None
) -> EvaluateRequest:
    """Prepare a store whose test split has one question for each of ANSWERS."""
    request = EvaluateRequest(
        sweep=parse_sweep(spec or sweep()), store=str(folder / "store"), run=run, server_url=server_url
    )
    data = folder / "prepared" / "data"
    data.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        records = [{"question": f"{split} {i}?", "answer": "Gândim.\n#### 1,234"} for i in range(len(ANSWERS))]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    store = open_store(request.store)
    publish_stage(store, request.layout.prepare, data.parent, _manifest("prepare", request))
    return request


def _manifest(stage: str, request: EvaluateRequest) -> Manifest:
    return Manifest.model_validate(
        {
            "stage": stage,
            "run": request.run,
            "spec_hash": request.layout.spec_hash,
            "created": "2026-01-01T00:00:00Z",
            "files": {},
            "hardware": describe_machine(),
            "versions": {},
            "result": {},
        }
    )


def index_of(prompt: str) -> int:
    return int(prompt.rpartition("test ")[2].partition("?")[0])


def answer_by_table(prompt: str) -> str:
    return ANSWERS[index_of(prompt)][0]


def published(store: ObjectStore, request: EvaluateRequest, folder: Path) -> tuple[EvalResult, list[SampleLine], Any]:
    manifest = fetch_stage(store, request.layout.eval(request.run), folder)
    lines = (folder / "samples.jsonl").read_text().splitlines()
    results = json.loads((folder / "results.json").read_text())
    return EvalResult.model_validate(manifest.result), [SampleLine.model_validate_json(line) for line in lines], results


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
    assert {path for _, path, _ in fake.calls} == {"/readyz", "/status", "/v1/completions"}
    assert {body["model"] for _, path, body in fake.calls if path == "/v1/completions"} == {"base"}


def test_finished_work_is_not_done_again(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url)
        evaluate_stage(request, tmp_path / "work")
        asked = len(fake.calls)
        evaluate_stage(request, tmp_path / "again")
        assert len(fake.calls) == asked


def test_a_lost_server_costs_only_the_answers_under_way(tmp_path: Path) -> None:
    failing = {"left": 3}

    def answer(prompt: str) -> str | int:
        if index_of(prompt) >= 7 and failing["left"]:
            failing["left"] -= 1
            fake.adapters.clear()
            return 500
        return answer_by_table(prompt)

    with serving(answer) as fake:
        request = make_request(tmp_path, fake.url, spec=sweep(num_concurrent=2))
        evaluate_stage(request, tmp_path / "work")
    result, samples, _ = published(open_store(request.store), request, tmp_path / "out")
    assert [(line.response, line.strict_match) for line in samples] == [(text, right) for text, right, _ in ANSWERS]
    assert result.samples == len(ANSWERS)
    asked = [index_of(prompt) for prompt in fake.prompts()]
    assert {i for i in range(len(ANSWERS)) if asked.count(i) > 1} <= set(range(7, len(ANSWERS)))
    assert len(asked) > len(ANSWERS)
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
        publish_stage(open_store(request.store), request.layout.eval(RUN), other, _manifest("eval", request))
        return answer_by_table(prompt)

    with serving(answer) as fake:
        request = make_request(tmp_path, fake.url)
        evaluate_stage(request, tmp_path / "work")
    standing = read_manifest(open_store(request.store), request.layout.eval(RUN))
    assert standing is not None
    assert standing.files == {}


def test_a_refused_question_is_permanent_and_names_the_settings(tmp_path: Path) -> None:
    with serving(lambda _: 400) as fake:
        request = make_request(tmp_path, fake.url)
        with pytest.raises(PermanentError, match=r"max_gen_toks .* serving.max_model_len \(512 tokens\).*too long"):
            evaluate_stage(request, tmp_path / "work")
    assert not fake.adapters


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
    request = make_request(tmp_path, "http://127.0.0.1:9", spec=sweep() | {"serving": {"start_timeout_s": 0.2}})
    with pytest.raises(TransientError, match=r"GET /readyz within 0.2 s"):
        evaluate_stage(request, tmp_path / "work")


def test_too_many_empty_answers_fail_and_are_counted(tmp_path: Path) -> None:
    with serving(lambda prompt: "" if index_of(prompt) < 3 else " \n#### 1234") as fake:
        request = make_request(tmp_path, fake.url)
        with pytest.raises(PermanentError, match="3 of 14 answers are empty"):
            evaluate_stage(request, tmp_path / "work")


def test_only_the_first_records_are_scored_under_a_limit(tmp_path: Path) -> None:
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url, spec=sweep(limit=5))
        evaluate_stage(request, tmp_path / "work")
    assert sorted(map(index_of, fake.prompts())) == [0, 1, 2, 3, 4]


def test_a_single_record_has_no_standard_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few test records"):
        evaluate_stage(make_request(tmp_path, "http://127.0.0.1:9", spec=sweep(limit=1)), tmp_path / "work")


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
    seen = []

    def answer(prompt: str) -> str:
        seen.append(read_progress(tmp_path / "work"))
        return answer_by_table(prompt)

    with serving(answer) as fake:
        evaluate_stage(make_request(tmp_path, fake.url), tmp_path / "work")
    assert seen[0] is not None
    assert (seen[0].phase, seen[0].step, seen[0].total) == ("evaluating", 0, len(ANSWERS))
    assert getattr(read_progress(tmp_path / "work"), "phase", None) == "uploading"


def test_vllms_key_is_sent_and_kept_out_of_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUROGATE_BENCH_VLLM_API_KEY", "sesame-open")
    with serving(answer_by_table) as fake:
        request = make_request(tmp_path, fake.url)
        evaluate_stage(request, tmp_path / "work")
    assert fake.authorization == {"Bearer sesame-open"}
    store = open_store(request.store)
    for info in store.list(request.layout.root):
        assert b"sesame-open" not in (store.get(info.key) or b"")


def test_a_request_for_another_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not for the evaluator"):
        handle(PrepareRequest(sweep=parse_sweep(sweep()), store=str(tmp_path / "store")), tmp_path / "work")


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
    with serving(lambda _: "") as fake:
        request = make_request(tmp_path, fake.url)
        done = _run_process(request, tmp_path, "-X", "importtime")
    assert done.returncode == ExitCode.PERMANENT
    assert "lm_eval" in imported(done)
    assert not imported(done) & {"torch", "transformers"}
    word = read_termination(tmp_path / "process")
    assert word is not None
    assert word.reason == "PermanentError"
    assert "14 of 14 answers are empty" in word.message


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
        assert fake.calls[-1][:2] == ("DELETE", f"/adapters/{RUN}")
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
