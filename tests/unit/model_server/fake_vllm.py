"""A stand-in for vLLM's HTTP API with the real one's ways, started as a process: ``fake_vllm.py PORT BEHAVIOUR``.

Behaviours: ``well``; ``fails`` at once; ``silent``: never healthy; ``deaf``: healthy until it was asked to complete a
prompt; ``stalls``: slow to list its models once it was; ``refuses`` to load; ``forgets``: does not list what it loaded;
``ignores``: adapters answer as the base does; ``faint``: they do unless amplified; ``mixes``: the base answers as an
adapter while one is loaded, unless it is an adapter itself; ``differs``: an empty adapter does not answer as the base.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT, BEHAVIOUR = int(sys.argv[1]), sys.argv[2]
STALL_S = 2.0
EMPTY_ADAPTER = "base-as-an-adapter"
KEY = os.environ.get("VLLM_API_KEY")
METRICS = """# HELP process_open_fds Number of open file descriptors.
# TYPE process_open_fds gauge
process_open_fds 61.0
# HELP python_info Python platform information.
# TYPE python_info gauge
python_info{implementation="CPython"} 1.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="base"} 3.0
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="base"} 1.5e+03
"""
adapters: list[str] = []
completed: list[str] = []


def first_logprob(model: str) -> float:
    base, hardly_trained, trained = -1.0, -1.0001, -3.0
    if BEHAVIOUR == "mixes":
        with_adapters = any(name != EMPTY_ADAPTER for name in adapters)
        return base if model == EMPTY_ADAPTER or (model == "base" and not with_adapters) else trained
    if model == EMPTY_ADAPTER and BEHAVIOUR == "differs":
        return trained
    if model in {"base", EMPTY_ADAPTER} or BEHAVIOUR == "ignores":
        return base
    return base if BEHAVIOUR == "faint" and not model.endswith("-amplified") else hardly_trained


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            deaf = BEHAVIOUR == "deaf" and completed
            self.answer(503 if deaf or BEHAVIOUR == "silent" else 200)
        elif self.path == "/metrics":
            self.send(200, METRICS.encode())
        elif self.is_allowed():
            if BEHAVIOUR == "stalls" and completed:
                time.sleep(STALL_S)
            listed = [] if BEHAVIOUR == "forgets" else adapters
            self.answer(200, {"data": [{"id": "base", "max_model_len": 64}, *({"id": name} for name in listed)]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.is_allowed():
            return
        if self.path == "/v1/completions" and body["model"] not in {"base", *adapters}:
            self.answer(404, {"error": {"message": "does not exist"}})
        elif self.path == "/v1/completions":
            completed.append(body["model"])
            logprobs = {"top_logprobs": [{"token_id:1": first_logprob(body["model"]), "token_id:2": -4.0}]}
            self.answer(200, {"choices": [{"index": 0, "logprobs": logprobs}]})
        elif self.path == "/v1/load_lora_adapter":
            self.load(body["lora_name"])
        elif body["lora_name"] in adapters:
            adapters.remove(body["lora_name"])
            self.answer(200)
        else:
            self.answer(404, {"error": {"message": "cannot be found"}})

    def is_allowed(self) -> bool:
        allowed = KEY is None or self.headers["Authorization"] == f"Bearer {KEY}"
        if not allowed:
            self.answer(401, {"error": "Unauthorized"})
        return allowed

    def load(self, name: str) -> None:
        if BEHAVIOUR == "refuses":
            self.answer(500, {"error": {"message": "no space for adapters"}})
        elif name in adapters:
            self.answer(400, {"error": {"message": "already loaded"}})
        else:
            adapters.append(name)
            print("loaded", name, flush=True)  # noqa: T201 - read by the tests
            self.answer(200)

    def answer(self, status: int, document: dict[str, Any] | None = None) -> None:
        self.send(status, json.dumps(document or {}).encode())

    def send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    if BEHAVIOUR == "fails":
        sys.exit("RuntimeError: there is no memory")
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
