"""Stand-in for model server and vLLM on one port: whatever is asked, a function of the prompt answers."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Completions:
    """A server of the base model."""

    answer: Callable[[str], str]
    url: str = ""
    tokens_of: Callable[[str], list[int]] = lambda text: list(text.encode())
    """Tokens of a text; log-likelihoods follow from them and their places."""
    _bodies: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> list[dict[str, Any]]:
        """Requests for completions since the last call."""
        with self._lock:
            taken, self._bodies = self._bodies, []
        return taken

    def respond(self, path: str, body: Any) -> dict[str, Any]:
        """Answer one request."""
        if path == "/tokenize":
            return {"tokens": self.tokens_of(body["prompt"])}
        if path not in ("/v1/completions", "/v1/chat/completions"):
            return {"vllm_url": self.url, "model": "base", "max_model_len": 4096, "versions": {}}
        with self._lock:
            self._bodies.append(body)
        if body.get("echo"):
            likelihoods = [-((token * 37 + place) % 101) / 7 for place, token in enumerate(body["prompt"][0])]
            tops = [{"this": each, "other": -5.0} for each in [*likelihoods, -1.0]]
            logprobs = {"token_logprobs": [*likelihoods, -1.0], "top_logprobs": tops}
            return {"choices": [{"index": 0, "text": "", "finish_reason": "length", "logprobs": logprobs}]}
        if "messages" in body:
            content = self.answer(body["messages"][-1]["content"])
            return {"choices": [{"index": 0, "message": {"content": content}, "finish_reason": "stop"}]}
        prompts = [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
        answers = [
            {"index": i, "text": self.answer(prompt), "finish_reason": "stop"} for i, prompt in enumerate(prompts)
        ]
        return {"choices": answers}


@contextmanager
def completing(answer: Callable[[str], str]) -> Iterator[Completions]:
    """Serve from a thread on a free port."""
    server = Completions(answer)

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            payload = json.dumps(server.respond(self.path, json.loads(self.rfile.read(length)) if length else None))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload.encode())

        do_GET = do_PUT = do_POST = do_DELETE = _respond  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        server.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            httpd.shutdown()
            thread.join()
