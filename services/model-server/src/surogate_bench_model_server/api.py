"""The control API, for the evaluator and for Kubernetes.

::

    GET    /healthz            the supervisor runs
    GET    /readyz             200 when vLLM lists every desired adapter, else 503 and a reason
    GET    /status             what is served, under which recipe, what is merged into it, and the address of vLLM
    PUT    /adapters/{run}     {"prefix": "<the run's train stage>"} → {"model": "<name in vLLM>"}, loaded and verified
    DELETE /adapters/{run}     no longer served
    POST   /probe              {} if the served models answer together as each does alone; before every score
    GET    /metrics            Prometheus

PUT, POST and DELETE may be repeated. Failures are ``{"reason", "message"}``: status 422 is permanent, 503 transient.

Under a recipe with FP8 inputs, /status and the answer to PUT have ``input_scales``: where the scales of the inputs come
from, ``training`` or ``calibration`` (by run in /status, the base model as ``base``).
"""

import asyncio
from dataclasses import dataclass

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from surogate_bench.contract import (
    ADAPTERS_PATH,
    HEALTH_PATH,
    LOOPBACK,
    METRICS_PATH,
    PROBE_PATH,
    READY_PATH,
    STATUS_PATH,
)
from surogate_bench.control_api import LoadedAdapter, LoadRequest, ServerStatus
from surogate_bench.errors import BenchError, ConfigError, TransientError
from surogate_bench.machine.hardware import package_versions
from surogate_bench.processes.metrics import expose, families
from surogate_bench.stages.identity import SERVING_VERSION
from surogate_bench_model_server.addresses import bracketed
from surogate_bench_model_server.supervisor import Supervisor

_SCRAPE_S = 2.0
"""Longer than a healthy vLLM takes to list its models, and shorter than a scraper waits."""


@dataclass(frozen=True, slots=True)
class ControlApi:
    """The endpoints over one supervisor."""

    supervisor: Supervisor
    vllm_port: int

    def application(self) -> Starlette:
        """Build the ASGI application."""
        return Starlette(
            routes=[
                Route(HEALTH_PATH, self.healthz, methods=["GET"]),
                Route(READY_PATH, self.readyz, methods=["GET"]),
                Route(STATUS_PATH, self.status, methods=["GET"]),
                Route(f"{ADAPTERS_PATH}/{{run}}", self.load, methods=["PUT"]),
                Route(f"{ADAPTERS_PATH}/{{run}}", self.unload, methods=["DELETE"]),
                Route(PROBE_PATH, self.probe, methods=["POST"]),
                Route(METRICS_PATH, self.metrics, methods=["GET"]),
            ],
            exception_handlers={BenchError: _failure},
        )

    async def healthz(self, _request: Request) -> Response:
        """Respond that the process is alive."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, _request: Request) -> Response:
        """Check that vLLM lists every desired adapter."""
        reason = await self.supervisor.not_ready_reason()
        return JSONResponse({"ready": reason is None, "reason": reason}, status_code=200 if reason is None else 503)

    async def status(self, request: Request) -> Response:
        """Describe what is served. vLLM is reached under the same host name as this API."""
        supervisor = self.supervisor
        status = ServerStatus(
            ready=await supervisor.not_ready_reason() is None,
            model=supervisor.base_model,
            max_model_len=supervisor.max_model_len,
            vllm_url=f"http://{bracketed(request.url.hostname or LOOPBACK)}:{self.vllm_port}",
            adapters=supervisor.adapters,
            under=supervisor.under,
            merged=supervisor.merged.run if supervisor.merged else None,
            input_scales=supervisor.input_scales,
            restarts=supervisor.restarts,
            versions=package_versions(),
            serving_version=SERVING_VERSION,
        )
        return JSONResponse(status.model_dump(mode="json"))

    async def load(self, request: Request) -> Response:
        """Load an adapter."""
        try:
            body = LoadRequest.model_validate_json(await request.body())
        except ValidationError as error:
            raise ConfigError(
                str(error), field="request body", remedy='Send {"prefix": "<the run\'s train stage>"}.'
            ) from error
        run = request.path_params["run"]
        name = await self.supervisor.load(run, body.prefix)
        loaded = LoadedAdapter(model=name, input_scales=self.supervisor.input_scales.get(run))
        return JSONResponse(loaded.model_dump(mode="json"))

    async def unload(self, request: Request) -> Response:
        """Unload an adapter."""
        await self.supervisor.unload(request.path_params["run"])
        return Response(status_code=204)

    async def probe(self, _request: Request) -> Response:
        """Check that models requested together answer as each does alone."""
        await self.supervisor.probe()
        return JSONResponse({})

    async def metrics(self, _request: Request) -> Response:
        """Export the supervisor's state in Prometheus' text format."""
        try:
            async with asyncio.timeout(_SCRAPE_S):
                up = await self.supervisor.not_ready_reason() is None
        except TimeoutError:
            up = False
        values = {
            "surogate_bench_vllm_up": up,
            "surogate_bench_adapters_loaded": len(self.supervisor.adapters),
            "surogate_bench_vllm_restarts_total": self.supervisor.restarts,
        }
        text = expose(families({"sweep": self.supervisor.layout.name}, values))
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _failure(_request: Request, error: Exception) -> Response:
    return JSONResponse(
        {"reason": type(error).__name__, "message": str(error)},
        status_code=503 if isinstance(error, TransientError) else 422,
    )
