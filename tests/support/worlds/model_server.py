"""A supervisor over fake vLLMs, for the tests of the model server."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
from ports import free_port
from safetensors.numpy import save_file
from waiting import PATIENCE_S

from surogate_bench.layout import SweepLayout
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.publication import publish_stage
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_model_server.api import ControlApi
from surogate_bench_model_server.limits import Limits
from surogate_bench_model_server.supervisor import Supervisor
from surogate_bench_model_server.vllm.client import VllmClient
from surogate_bench_model_server.vllm.command import Command, Platform
from surogate_bench_model_server.vllm.process import VllmProcess, start_vllm

FAKE_VLLM = Path(__file__).parents[2] / "unit" / "model_server" / "fake_vllm.py"
LAYOUT = SweepLayout("served", "0123456789ab")
RUNS = ("bf16-s0", "fp8-s0", "fp4-s0")
LIMITS = Limits(
    start_s=PATIENCE_S,
    start_poll_s=0.05,
    health_poll_s=0.1,
    unhealthy_s=PATIENCE_S,
    up_s=PATIENCE_S,
    restarts=2,
    first_pause_s=0.05,
)


@dataclass
class World:
    """A supervisor over fake vLLMs: one per start, each with the next of the behaviours (the last one stays)."""

    store: ObjectStore
    work_dir: Path
    behaviours: list[str]
    limits: Limits = LIMITS
    platform: Platform = "cuda"
    processes: list[VllmProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port = free_port()
        self.client = VllmClient.open(f"http://127.0.0.1:{self.port}", None)
        self.supervisor = Supervisor(
            layout=LAYOUT,
            store=self.store,
            work_dir=self.work_dir,
            client=self.client,
            start=self.start,
            limits=self.limits,
            max_lora_rank=16,
            platform=self.platform,
            layer="o_proj",
        )

    def start(self) -> VllmProcess:
        behaviour = self.behaviours[min(len(self.processes), len(self.behaviours) - 1)]
        arguments = [sys.executable, str(FAKE_VLLM), str(self.port), behaviour]
        self.processes.append(start_vllm(Command(arguments=arguments, environment=dict(os.environ)), self.work_dir))
        return self.processes[-1]

    async def until_it_fails(self) -> None:
        """Supervise; raises what the supervisor raises."""
        try:
            await self.supervisor.run()
        finally:
            await self.client.close()

    @asynccontextmanager
    async def api(self) -> AsyncIterator[httpx.AsyncClient]:
        """Yield a client of the control API."""
        transport = httpx.ASGITransport(ControlApi(self.supervisor, self.port).application())
        async with httpx.AsyncClient(
            transport=transport, base_url="http://server.example:8100", timeout=PATIENCE_S
        ) as api:
            yield api

    @asynccontextmanager
    async def running(self) -> AsyncIterator[httpx.AsyncClient]:
        """Supervise in the background; yields a client of the control API."""
        supervising = asyncio.create_task(self.supervisor.run())
        async with self.api() as api:
            try:
                yield api
            finally:
                supervising.cancel()
                with suppress(asyncio.CancelledError):
                    await supervising
                await self.client.close()


async def put(api: httpx.AsyncClient, run: str) -> httpx.Response:
    return await api.put(f"/adapters/{run}", json={"prefix": LAYOUT.train(run)})


async def ready(api: httpx.AsyncClient) -> bool:
    return (await api.get("/readyz")).status_code == 200


async def started(world: World, times: int) -> bool:
    return len(world.processes) >= times


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.02)


def publish_adapter(store: ObjectStore, run: str, folder: Path, *, b: float) -> None:
    adapter = folder / "adapter"
    adapter.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{layer}.lora_A.weight": np.ones((8, 32), np.float32),
        f"{layer}.lora_B.weight": np.full((64, 8), b, np.float32),
    }
    save_file(tensors, str(adapter / "adapter_model.safetensors"))
    manifest = Manifest(
        stage="train",
        run=run,
        spec_hash=LAYOUT.spec_hash,
        created=datetime.now(UTC),
        files={},
        hardware={},
        versions={},
        result={},
    )
    assert publish_stage(store, LAYOUT.train(run), folder, manifest)
