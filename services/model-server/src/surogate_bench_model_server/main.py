"""The service's entry: ``python -m surogate_bench_model_server REQUEST.json --work-dir DIR``."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import uvicorn

from surogate_bench.contract import VLLM_API_KEY_VARIABLE, Service
from surogate_bench.errors import ConfigError
from surogate_bench.processes.service import Exposition, Terminated, run_service
from surogate_bench.specs.adapters import attention_output
from surogate_bench.stages.model_source import locate_model
from surogate_bench.stages.requests import AnyRequest, CheckRequest, ServeRequest
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_model_server.adapters.calibration import InputCalibration, read_prompts
from surogate_bench_model_server.adapters.delivery import LocalAdapter, check_run_name, deliver_adapter
from surogate_bench_model_server.addresses import url_of
from surogate_bench_model_server.api import ControlApi
from surogate_bench_model_server.check import check_stage
from surogate_bench_model_server.limits import Limits
from surogate_bench_model_server.merging.step import MergeStep, plan_step, remove_merged
from surogate_bench_model_server.served_recipe.settings import (
    ServedRecipe,
    read_config,
    require_unquantized,
    runs_trained_under,
    served_recipe,
)
from surogate_bench_model_server.supervisor import Supervisor, adapter_folder
from surogate_bench_model_server.vllm.client import VllmClient
from surogate_bench_model_server.vllm.command import ServerSettings, detect_platform, vllm_command
from surogate_bench_model_server.vllm.process import VllmProcess, bind_port, start_vllm

PORT_WAIT_S = 5.0
"""How long a port may still be held by a process that is ending: a server that was killed and is started again."""


class _ControlServer(uvicorn.Server):
    """Uvicorn without signal handlers: the service decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the service."""
        yield


def main() -> int:
    """Run the service; returns the exit code."""
    return run_service(Service.MODEL_SERVER.module, _handle, _metrics)


def _metrics(request: AnyRequest, _work_dir: Path) -> Sequence[Exposition]:
    if not isinstance(request, ServeRequest):
        return ()
    from surogate_bench_model_server.metrics_exposition import ServerExposition  # noqa: PLC0415 - only where metrics are served

    return (ServerExposition(request),)


def _handle(request: AnyRequest, work_dir: Path) -> None:
    if isinstance(request, CheckRequest) and request.subject == "serving":
        check_stage(request, work_dir.resolve())
        return
    if not isinstance(request, ServeRequest):
        raise ConfigError(
            "is not for this service", field="request.kind", value=request.kind, remedy="Send a serve request."
        )
    asyncio.run(_serve(request, work_dir.resolve()))


async def _serve(request: ServeRequest, work_dir: Path) -> None:
    """Serve until SIGTERM or SIGINT, or until vLLM cannot be kept running."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    api_key = os.environ.get(VLLM_API_KEY_VARIABLE)
    client = VllmClient.open(url_of(request.host, request.vllm_port), api_key)
    with bind_port(request.host, request.port, name="port", wait_s=PORT_WAIT_S) as listening:
        supervisor = _supervisor(request, work_dir, client, api_key)
        server = _ControlServer(_uvicorn_config(ControlApi(supervisor, request.vllm_port)))
        supervising = asyncio.create_task(supervisor.run())
        answering = asyncio.create_task(server.serve(sockets=[listening]))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({supervising, answering, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.should_exit = True
            supervising.cancel()
            await asyncio.gather(supervising, answering, return_exceptions=True)
            stopping.cancel()
            await client.close()
            remove_merged(work_dir)
    if not supervising.cancelled():
        supervising.result()
    raise Terminated


def _supervisor(request: ServeRequest, work_dir: Path, client: VllmClient, api_key: str | None) -> Supervisor:
    sweep = request.sweep
    store = open_store(request.store)
    model = locate_model(sweep.model, store=store, layout=request.layout, cache=work_dir / "models")
    served = served_recipe(sweep, request.under)
    if served is not None:
        require_unquantized(Path(model.name_or_path), f"recipe {served.recipe.name} starts from")
    calibration = _calibration(request, served, store, work_dir)
    merged = _adapter_to_merge(request, store, calibration, work_dir)
    platform = detect_platform()
    settings = ServerSettings(
        host=request.host,
        port=request.vllm_port,
        platform=platform,
        threads=request.threads,
        api_key=api_key,
        served=served,
        recipe_file=None if served is None else served.write(work_dir),
        merge=None if merged is None else _merge_step(Path(model.name_or_path), merged, work_dir),
    )
    command = vllm_command(sweep, model, settings, inherited=os.environ)

    def start() -> VllmProcess:
        bind_port(request.host, request.vllm_port, name="vllm_port", wait_s=PORT_WAIT_S).close()
        return start_vllm(command, work_dir)

    return Supervisor(
        layout=request.layout,
        store=store,
        work_dir=work_dir,
        client=client,
        start=start,
        limits=Limits(start_s=sweep.serving.start_timeout_s),
        max_lora_rank=sweep.serving.max_lora_rank,
        platform=platform,
        layer=attention_output(str(read_config(Path(model.name_or_path)).get("model_type"))),
        under=None if served is None else served.recipe.name,
        merged=merged,
        calibration=calibration,
    )


def _adapter_to_merge(
    request: ServeRequest, store: ObjectStore, calibration: InputCalibration | None, work_dir: Path
) -> LocalAdapter | None:
    if request.merged is None:
        return None
    return deliver_adapter(
        store,
        check_run_name(request.merged),
        request.layout.train(request.merged),
        into=adapter_folder(work_dir, request.under),
        max_rank=request.sweep.serving.max_lora_rank,
        with_input_scales=calibration is not None and request.merged in calibration.runs,
    )


def _merge_step(base: Path, adapter: LocalAdapter, work_dir: Path) -> MergeStep:
    require_unquantized(base, "an adapter is merged into")
    return plan_step(base, adapter.folder, work_dir)


def _calibration(
    request: ServeRequest, served: ServedRecipe | None, store: ObjectStore, work_dir: Path
) -> InputCalibration | None:
    if served is None or not served.scales_inputs:
        return None
    return InputCalibration(
        runs=runs_trained_under(request.sweep, served.recipe),
        prompts=partial(read_prompts, store, request.layout, request.sweep.data, scratch=work_dir / "prepared"),
    )


def _uvicorn_config(api: ControlApi) -> uvicorn.Config:
    return uvicorn.Config(
        api.application(), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2
    )
