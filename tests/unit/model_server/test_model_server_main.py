"""The service as a whole, in this process, over a process that speaks vLLM's API."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from sweeps import small_sweep
from waiting import PATIENCE_S

from surogate_bench.errors import ConfigError
from surogate_bench.processes.progress import read_progress, read_termination
from surogate_bench.processes.service import Terminated
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.requests import ServeRequest, TrainRequest
from surogate_bench_model_server import api, main, metrics_exposition
from surogate_bench_model_server.vllm.command import Command, vllm_command

FAKE_VLLM = Path(__file__).with_name("fake_vllm.py")


@pytest.fixture
def sweep(tmp_path: Path) -> RecipeSweep:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    return small_sweep(name="served", model={"path": str(model)})


@pytest.fixture
def request_(sweep: RecipeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServeRequest:
    """A request whose vLLM is the stand-in."""

    def fake_command(*arguments: Any, **settings: Any) -> Command:
        command = vllm_command(*arguments, **settings)
        fake = [sys.executable, str(FAKE_VLLM), str(request.vllm_port), "well"]
        return Command(arguments=fake, environment=command.environment)

    monkeypatch.setattr(main, "vllm_command", fake_command)
    monkeypatch.setattr(main, "detect_platform", lambda: "cpu")
    for module, deadline in ((api, "_SCRAPE_S"), (metrics_exposition, "_TIMEOUT_S")):  # where both are only slow
        monkeypatch.setattr(module, deadline, PATIENCE_S)
    port, vllm_port = free_port(), free_port()
    request = ServeRequest(sweep=sweep, store=str(tmp_path / "store"), port=port, vllm_port=vllm_port)
    return request


def visit(request: ServeRequest, work_dir: Path, visitor: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Serve while the visitor, who is given a client of the control API once it is ready, is there."""

    async def scenario() -> None:
        serving = asyncio.create_task(main._serve(request, work_dir))
        url = f"http://127.0.0.1:{request.port}"
        try:
            async with (
                httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as api,
                asyncio.timeout(PATIENCE_S),
            ):
                while not await answers_ready(api):
                    assert not serving.done()
                    await asyncio.sleep(0.05)
                await visitor(api)
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving

    asyncio.run(scenario())


def test_the_metrics_port_shows_its_own_metrics_and_passes_vllms_on(request_: ServeRequest, tmp_path: Path) -> None:
    (exposition,) = main._metrics(request_, tmp_path)
    assert exposition() == b""  # neither is there yet

    async def visitor(api: httpx.AsyncClient) -> None:
        own = (await api.get("/metrics")).text
        text = (await asyncio.to_thread(exposition)).decode()
        assert 'surogate_bench_vllm_up{sweep="served"} 1.0' in own
        assert own in text
        found = {made.name: made.samples[0].value for made in text_string_to_metric_families(text)}
        assert found == {
            "surogate_bench_vllm_up": 1,
            "surogate_bench_adapters_loaded": 0,
            "surogate_bench_vllm_restarts": 0,
            "vllm:num_requests_running": 3,
            "vllm:prompt_tokens": 1500,
        }

    visit(request_, tmp_path, visitor)


def test_while_vllm_is_away_its_own_metrics_still_come(request_: ServeRequest, tmp_path: Path) -> None:
    away = request_.model_copy(update={"vllm_port": free_port()})
    (exposition,) = main._metrics(away, tmp_path)

    async def visitor(_api: httpx.AsyncClient) -> None:
        text = (await asyncio.to_thread(exposition)).decode()
        assert "surogate_bench_vllm_up" in text
        assert "vllm:" not in text

    visit(request_, tmp_path, visitor)


def test_in_a_pod_it_listens_everywhere_and_uses_vllms_key(
    request_: ServeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUROGATE_BENCH_VLLM_API_KEY", "sesame-open")
    everywhere = request_.model_copy(update={"host": "0.0.0.0"})  # noqa: S104 - as in a pod
    (exposition,) = main._metrics(everywhere, tmp_path)

    async def visitor(api: httpx.AsyncClient) -> None:
        status = (await api.get("/status", headers={"Host": "served-server.lab:8100"})).json()
        assert status["vllm_url"] == f"http://served-server.lab:{request_.vllm_port}"
        assert b"vllm:num_requests_running" in await asyncio.to_thread(exposition)
        models = f"http://127.0.0.1:{request_.vllm_port}/v1/models"
        assert httpx.get(models, timeout=PATIENCE_S, trust_env=False).status_code == 401
        key = {"Authorization": "Bearer sesame-open"}
        allowed = httpx.get(models, timeout=PATIENCE_S, trust_env=False, headers=key)
        assert allowed.status_code == 200

    visit(everywhere, tmp_path, visitor)
    assert "sesame-open" not in (tmp_path / "vllm.log").read_text()


def test_another_services_request_has_no_metrics(sweep: RecipeSweep, tmp_path: Path) -> None:
    assert main._metrics(TrainRequest(sweep=sweep, store="x", recipe="bf16", seed=0), tmp_path) == ()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_asked_to_stop(request_: ServeRequest, tmp_path: Path, number: signal.Signals) -> None:
    async def ask() -> None:
        url = f"http://127.0.0.1:{request_.port}"
        async with (
            httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as api,
            asyncio.timeout(PATIENCE_S),
        ):
            while not await answers_ready(api):
                await asyncio.sleep(0.05)
        os.kill(os.getpid(), number)

    async def scenario() -> None:
        asking = asyncio.create_task(ask())
        try:
            await main._serve(request_, tmp_path)
        finally:
            await asking

    with pytest.raises(Terminated):
        asyncio.run(scenario())
    progress = read_progress(tmp_path)
    assert progress is not None
    assert progress.phase == "ready"
    for port in (request_.port, request_.vllm_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_in_use_stops_it(request_: ServeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "PORT_WAIT_S", 0.1)
    for field in ("port", "vllm_port"):
        port = getattr(request_, field)
        refused = pytest.raises(ConfigError, match=rf"{field}: port {port} of 127\.0\.0\.1 is in")
        with socket.create_server(("127.0.0.1", port)), refused:
            asyncio.run(main._serve(request_, tmp_path))


def test_a_request_for_another_service_is_bad_input(sweep: RecipeSweep, tmp_path: Path) -> None:
    request = TrainRequest(sweep=sweep, store=str(tmp_path / "store"), recipe="bf16", seed=0)
    (tmp_path / "request.json").write_text(request.model_dump_json())
    arguments = [str(tmp_path / "request.json"), "--work-dir", str(tmp_path / "work")]
    done = subprocess.run([sys.executable, "-P", "-m", "surogate_bench_model_server", *arguments], check=False)
    assert done.returncode == 2
    termination = read_termination(tmp_path / "work")
    assert termination is not None
    assert "request.kind: is not for this service (got 'train')" in termination.message


async def answers_ready(api: httpx.AsyncClient) -> bool:
    try:
        return (await api.get("/readyz")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
