"""The supervisor and its API over a process that speaks vLLM's API; the real vLLM is in tests/e2e."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from worlds.model_server import LAYOUT, LIMITS, RUNS, World, publish_adapter, put, ready, started, until

from surogate_bench.errors import PermanentError
from surogate_bench.machine.hardware import package_versions
from surogate_bench.processes.progress import read_progress
from surogate_bench.stages.identity import SERVING_VERSION
from surogate_bench.store.object_store import open_store
from surogate_bench_model_server import api as api_module
from surogate_bench_model_server.adapters.delivery import LocalAdapter
from surogate_bench_model_server.vllm.process import session_members


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., World]:
    store = open_store(str(tmp_path / "store"))
    for number, run in enumerate(RUNS):
        publish_adapter(store, run, tmp_path / "made" / run, b=number + 1.0)

    def make(*behaviours: str, **limits: Any) -> World:
        return World(store, tmp_path / "work", list(behaviours or ("well",)), replace(LIMITS, **limits))

    (tmp_path / "work").mkdir()
    return make


def test_adapters_are_served_until_they_are_deleted(world: Callable[..., World]) -> None:
    served = world()

    async def scenario() -> None:
        async with served.running() as api:
            assert (await api.get("/healthz")).json() == {"status": "ok"}
            not_yet = await api.get("/readyz")
            assert (not_yet.status_code, not_yet.json()["reason"]) == (503, "vLLM is starting")
            assert b'surogate_bench_vllm_up{sweep="served"} 0.0' in (await api.get("/metrics")).content
            name = (await put(api, "bf16-s0")).json()["model"]
            assert (await put(api, "bf16-s0")).json() == {"model": name}
            assert (await api.get("/readyz")).json() == {"ready": True, "reason": None}
            assert (await api.get("/status")).json() == {
                "ready": True,
                "model": "base",
                "max_model_len": 64,
                "vllm_url": f"http://server.example:{served.port}",
                "adapters": {"bf16-s0": name},
                "under": None,
                "merged": None,
                "input_scales": {},
                "restarts": 0,
                "versions": package_versions(),
                "serving_version": SERVING_VERSION,
            }
            await until(lambda: shows(api, 'surogate_bench_vllm_up{sweep="served"} 1.0'))  # it may have been slow once
            metrics = (await api.get("/metrics")).text
            assert 'surogate_bench_adapters_loaded{sweep="served"} 1.0' in metrics
            for _ in range(2):
                assert (await api.delete("/adapters/bf16-s0")).status_code == 204
            assert (await api.get("/status")).json()["adapters"] == {}
            assert await served.client.models() == {"base": {"id": "base", "max_model_len": 64}}

    asyncio.run(scenario())
    assert session_members(served.processes[0].pid) == []


def test_on_a_base_with_a_merged_adapter_no_other_is_served(world: Callable[..., World], tmp_path: Path) -> None:
    served = world()
    served.supervisor.merged = LocalAdapter(run="fp8-s0", name="fp8-s0-0123", folder=tmp_path)

    async def scenario() -> None:
        async with served.running() as api:
            refused = await put(api, "bf16-s0")
            assert refused.status_code == 422
            assert "the adapter of fp8-s0 is merged into" in refused.json()["message"]
            assert (await api.get("/status")).json()["merged"] == "fp8-s0"

    asyncio.run(scenario())


def test_many_requests_at_once_load_every_adapter_once(world: Callable[..., World]) -> None:
    served = world()

    async def scenario() -> None:
        async with served.running() as api:
            answers = await asyncio.gather(*(put(api, run) for run in RUNS * 5))
            assert {answer.status_code for answer in answers} == {200}
            names = {answer.json()["model"] for answer in answers}
            assert len(names) == len(RUNS)
            log = served.processes[0].log.read_text().splitlines()
            assert sorted(log) == sorted(f"loaded {name}" for name in names)

    asyncio.run(scenario())


def test_metrics_do_not_wait_for_a_vllm_that_stalls(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "_SCRAPE_S", 0.1)  # far below the time for which it stalls

    async def scenario() -> None:
        async with world("stalls").running() as api:
            await until(lambda: ready(api))
            await until(lambda: shows(api, 'vllm_up{sweep="served"} 0.0'))
            assert await shows(api, "surogate_bench_adapters_loaded")
            assert (await api.get("/readyz")).status_code == 200  # it is well, only slow

    asyncio.run(scenario())


def test_a_vllm_that_dies_is_started_again_with_its_adapters(world: Callable[..., World]) -> None:
    served = world()

    async def scenario() -> None:
        async with served.running() as api:
            name = (await put(api, "bf16-s0")).json()["model"]
            os.kill(served.processes[0].pid, signal.SIGKILL)
            await until(lambda: started(served, 2))
            await until(lambda: ready(api))
            assert name in await served.client.models()
            assert (await put(api, "bf16-s0")).json() == {"model": name}
            assert (await api.get("/status")).json()["restarts"] == 1
            assert 'surogate_bench_vllm_restarts_total{sweep="served"} 1.0' in (await api.get("/metrics")).text

    asyncio.run(scenario())


def test_a_vllm_that_stops_answering_is_started_again(world: Callable[..., World]) -> None:
    served = world("deaf", "well", unhealthy_s=0.5)

    async def scenario() -> None:
        async with served.running() as api:
            await until(lambda: started(served, 2))
            await until(lambda: ready(api))
        assert session_members(served.processes[0].pid) == []

    asyncio.run(scenario())


def test_restarts_are_bounded(world: Callable[..., World]) -> None:
    served = world("well", "fails")

    async def scenario() -> None:
        supervising = asyncio.create_task(served.until_it_fails())
        await until(lambda: asyncio.sleep(0, served.supervisor.max_model_len is not None))
        os.kill(served.processes[0].pid, signal.SIGKILL)
        with pytest.raises(PermanentError, match=r"after 2 restarts within 600 s(.|\n)*there is no memory"):
            await supervising

    asyncio.run(scenario())
    assert len(served.processes) == 1 + served.limits.restarts


def test_a_vllm_that_cannot_start_at_all_is_not_tried_again(world: Callable[..., World]) -> None:
    served = world("fails")
    with pytest.raises(
        PermanentError, match=r"ended with code 1 while it started: RuntimeError: .*memory\. Its log ends:\n"
    ):
        asyncio.run(served.until_it_fails())
    assert len(served.processes) == 1


def test_a_vllm_that_is_not_ready_in_time_has_failed(world: Callable[..., World]) -> None:
    served = world("silent", start_s=0.5)
    with pytest.raises(PermanentError, match=r"was not ready after 0 s \(serving\.start_timeout_s\)"):
        asyncio.run(served.until_it_fails())
    assert session_members(served.processes[0].pid) == []


def test_a_supervisor_that_starts_again_serves_the_desired_adapters(world: Callable[..., World]) -> None:
    async def first() -> str:
        async with world().running() as api:
            await put(api, "fp8-s0")
            await put(api, "bf16-s0")
            await api.delete("/adapters/fp8-s0")
            return str((await put(api, "bf16-s0")).json()["model"])

    async def second() -> dict[str, str]:
        again = world()
        async with again.running() as api:
            await until(lambda: ready(api))
            progress = read_progress(again.work_dir)
            assert progress is not None
            assert progress.phase == "ready"
            return again.supervisor.adapters

    name = asyncio.run(first())
    assert asyncio.run(second()) == {"bf16-s0": name}


def test_an_adapter_whose_copy_is_gone_is_dropped_and_can_be_asked_for_again(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    async def first() -> Path:
        served = world()
        async with served.running() as api:
            name: str = (await put(api, "bf16-s0")).json()["model"]
            return served.work_dir / "adapters" / name

    async def second() -> None:
        again = world()
        async with again.running() as api:
            await until(lambda: ready(api))
            assert again.supervisor.adapters == {}
            assert (await put(api, "bf16-s0")).status_code == 200

    folder = asyncio.run(first())
    (folder / "adapter_model.safetensors").unlink()
    asyncio.run(second())
    assert "is gone or damaged" in caplog.text


@pytest.mark.parametrize(
    ("behaviour", "status", "reason", "message"),
    [
        ("refuses", 422, "PermanentError", "vLLM refuses to load bf16-s0-.*: no space for adapters"),
        ("ignores", 422, "PermanentError", "the adapter changes nothing: bf16-s0-.* answers exactly as the base"),
        ("forgets", 503, "TransientError", "does not list it"),
    ],
)
def test_what_vllm_does_not_serve_is_reported_and_not_kept(
    world: Callable[..., World], behaviour: str, status: int, reason: str, message: str
) -> None:
    served = world(behaviour)

    async def scenario() -> None:
        async with served.running() as api:
            answer = await put(api, "bf16-s0")
            assert (answer.status_code, answer.json()["reason"]) == (status, reason)
            assert_matches(message, answer.json()["message"])
            assert served.supervisor.adapters == {}
            assert (await api.get("/readyz")).status_code == 200

    asyncio.run(scenario())
    assert not (served.work_dir / "desired-adapters.json").exists() or json.loads(
        (served.work_dir / "desired-adapters.json").read_text()
    ) == {"adapters": {}}


@pytest.mark.parametrize(
    ("run", "body", "message"),
    [
        ("Bf16", {"prefix": LAYOUT.train("Bf16")}, "run: is not a run name"),
        ("bf16-s0", {"prefix": LAYOUT.train("fp8-s0")}, "prefix: is not the train stage of this run"),
        ("bf16-s0", {"prefix": "sweeps/other/0123456789ab/runs/bf16-s0/train"}, "prefix: is not the train stage"),
        ("bf16-s0", {"prefix": f"{LAYOUT.root}/../../x"}, "prefix: is not the train stage"),
        ("bf16-s0", {}, "request body: .*prefix"),
        ("bf16-s0", {"prefix": LAYOUT.train("bf16-s0"), "more": 1}, "request body: .*more"),
        ("qbnb-s0", {"prefix": LAYOUT.train("qbnb-s0")}, "the stage is not finished"),
    ],
)
def test_bad_requests_are_answered_with_422_and_the_field(
    world: Callable[..., World], run: str, body: dict[str, Any], message: str
) -> None:
    async def scenario() -> None:
        async with world().running() as api:
            answer = await api.put(f"/adapters/{run}", json=body)
            assert answer.status_code == 422
            assert_matches(message, answer.json()["message"])

    asyncio.run(scenario())


def test_a_request_while_vllm_is_away_is_answered_with_503(world: Callable[..., World]) -> None:
    async def scenario() -> None:
        async with world("silent", up_s=0.2).running() as api:
            answer = await put(api, "bf16-s0")
            assert (answer.status_code, answer.json()["reason"]) == (503, "TransientError")
            assert (await api.delete("/adapters/bf16-s0")).status_code == 204

    asyncio.run(scenario())


async def shows(api: httpx.AsyncClient, line: str) -> bool:
    return line in (await api.get("/metrics")).text


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text, re.DOTALL), text
