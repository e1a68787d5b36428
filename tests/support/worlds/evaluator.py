"""An HTTP server that plays the model server and vLLM, and evaluations to run against it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from finished_stages import manifest_of
from sweeps import small_sweep
from waiting import PATIENCE_S

from surogate_bench.results import EvalResult, SampleLine
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.publication import fetch_stage, publish_stage
from surogate_bench.stages.requests import EvaluateRequest, PrepareRequest, StageRequest
from surogate_bench.store.object_store import ObjectStore, open_store

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
    hold: Callable[[str], object] = lambda _: None
    """Called with each prompt before it is answered; may wait, without keeping other requests from being answered."""
    not_ready: int = 0
    """So often it answers that it is not ready."""
    can_unload: bool = True
    finish_reason: str = "stop"
    is_cut_off: Callable[[str], bool] = lambda _: False
    """Of the text of an answer: whether it was ended by the maximum number of tokens."""
    states_usage: bool = True
    """Whether it states the number of tokens: here the words of the answer."""
    adapters: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    load_answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    authorization: set[str | None] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    counting: threading.Lock = field(default_factory=threading.Lock)
    at_once: int = 0
    most_at_once: int = 0
    probe_status: int = 200
    max_model_len: int | None = 512
    """None while vLLM starts."""
    under: str | None = None
    """Recipe that it serves the base under."""
    merged: str | None = None
    """Run whose adapter is merged into the base."""

    def count(self, change: int) -> None:
        """Count the requests under way."""
        with self.counting:
            self.at_once += change
            self.most_at_once = max(self.most_at_once, self.at_once)

    def prompts(self) -> list[str]:
        return [body["prompt"] for _, path, body in self.calls if path == "/v1/completions"]

    def respond(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.calls.append((method, path, body))
            if path.startswith("/adapters/"):
                return self._load_or_unload(method, path.removeprefix("/adapters/"), body)
            if path == "/tokenize":
                return 200, {"tokens": list(body["prompt"].encode())}
            if path in ("/v1/completions", "/v1/chat/completions"):
                return self._complete(body)
            status = {
                "vllm_url": self.url, "model": "base", "under": self.under, "merged": self.merged,
                "max_model_len": self.max_model_len, "versions": {"vllm": "7.0"}, "serving_version": 7,
            }  # fmt: skip
            if path == "/probe" and self.probe_status != 200:
                return self.probe_status, {"reason": "PermanentError", "message": "vLLM mixes up"}
            if path == "/readyz" and self.not_ready:
                self.not_ready -= 1
                return 503, {}
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

    def conversations(self) -> list[dict[str, Any]]:
        """Requests for an answer to messages."""
        return [body for _, path, body in self.calls if path == "/v1/chat/completions"]

    def _complete(self, body: Any) -> tuple[int, dict[str, Any]]:
        if body["model"] == MODEL and not self.adapters:
            return 404, {"error": {"message": "no such model"}}
        if body.get("echo"):
            return 200, self._likelihoods(bytes(body["prompt"][0]).decode())
        messages = body.get("messages")
        given = self.answer(messages[-1]["content"] if messages else body["prompt"])
        if isinstance(given, int):
            return given, {"error": {"message": "too long"}}
        text = {"message": {"content": given or None}} if messages else {"text": given}
        usage = {"usage": {"completion_tokens": len(given.split())}} if self.states_usage else {}
        reason = "length" if self.is_cut_off(given) else self.finish_reason
        return 200, {"choices": [{"index": 0, "finish_reason": reason, **text}], **usage}

    def _likelihoods(self, text: str) -> dict[str, Any]:
        """Log-likelihoods of the bytes of a text, the last of which is generated: `answer` gives that of each."""
        each = float(self.answer(text))
        tops = [{"the likeliest": each}] * (len(text.encode()) + 1)
        logprobs = {"token_logprobs": [each] * len(tops), "top_logprobs": tops}
        return {"choices": [{"index": 0, "finish_reason": "length", "text": text, "logprobs": logprobs}]}


@contextmanager
def serving(answer: Callable[[str], str | int]) -> Iterator[FakeServer]:
    fake = FakeServer(answer)

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            if self.path == "/v1/completions":
                fake.authorization.add(self.headers.get("Authorization"))
            fake.count(+1)
            try:
                if self.path == "/v1/completions":
                    fake.hold(str(body["prompt"]))
                status, document = fake.respond(self.command, self.path, body)
            finally:
                fake.count(-1)
            payload = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_PUT = do_POST = do_DELETE = _respond  # noqa: N815 - the names that http.server calls

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


def sweep(*, start_timeout_s: float = PATIENCE_S, **evaluation: object) -> RecipeSweep:
    return small_sweep(
        data={"test_size": 14, "prompt": "Întrebare: {question}\nRăspuns:"},
        serving={"start_timeout_s": start_timeout_s},
        evaluation={"num_concurrent": 4, "max_retries": 1, "max_gen_toks": 32, **evaluation},
    )


def make_request(
    folder: Path,
    server_url: str,
    *,
    run: str = RUN,
    spec: RecipeSweep | None = None,
    under: str | None = None,
    merged: bool = False,
    **found: object,
) -> EvaluateRequest:
    """Prepare a store whose test split has one question for each of ANSWERS; ``found``: what preparation found too."""
    request = EvaluateRequest(
        sweep=spec or sweep(), store=str(folder / "store"), run=run, server_url=server_url, under=under, merged=merged
    )
    data = folder / "prepared" / "data"
    data.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        records = [{"question": f"{split} {i}?", "answer": "Gândim.\n#### 1,234"} for i in range(len(ANSWERS))]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    publish_prepared(request, data.parent, **found)
    return request


def publish_prepared(request: StageRequest, folder: Path, **changes: object) -> None:
    """Publish a folder as the prepare stage of a request's sweep."""
    prepare = PrepareRequest(sweep=request.sweep, store=request.store)
    manifest = manifest_of(prepare, inputs={}, **changes)
    publish_stage(open_store(request.store), request.layout.prepare, folder, manifest)


def index_of(prompt: str) -> int:
    return int(prompt.rpartition("test ")[2].partition("?")[0])


def answer_by_table(prompt: str) -> str:
    return ANSWERS[index_of(prompt)][0]


def published(store: ObjectStore, request: EvaluateRequest, folder: Path) -> tuple[EvalResult, list[SampleLine], Any]:
    manifest = fetch_stage(store, request.layout.eval(request.run), folder)
    lines = (folder / "samples.jsonl").read_text().splitlines()
    results = json.loads((folder / "results.json").read_text())
    return manifest.require_result(EvalResult), [SampleLine.model_validate_json(line) for line in lines], results
