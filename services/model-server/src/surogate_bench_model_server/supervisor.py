"""Keep vLLM running, with the desired adapters loaded."""

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from surogate_bench.control_api import ScaleSource
from surogate_bench.errors import BenchError, ConfigError, PermanentError, TransientError
from surogate_bench.layout import SweepLayout
from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_model_server.adapters.calibration import InputCalibration
from surogate_bench_model_server.adapters.delivery import LocalAdapter, check_run_name, deliver_adapter, find_adapter
from surogate_bench_model_server.adapters.desired import DesiredAdapter, read_desired_adapters, write_desired_adapters
from surogate_bench_model_server.adapters.served_models import ServedModels
from surogate_bench_model_server.limits import Limits
from surogate_bench_model_server.vllm.client import VllmClient
from surogate_bench_model_server.vllm.command import BASE_MODEL, Platform
from surogate_bench_model_server.vllm.log_tail import log_tail
from surogate_bench_model_server.vllm.process import VllmProcess

_log = logging.getLogger(__name__)
_ADAPTERS = "adapters"
_SIGNAL_EXIT = 128


def adapter_folder(work_dir: Path, under: str | None) -> Path:
    """Return the folder of local adapters. Input scales in it belong to one recipe."""
    return work_dir / (_ADAPTERS if under is None else f"{_ADAPTERS}-under-{under}")


@dataclass(kw_only=True, slots=True)
class Supervisor:
    """The state machine: starting → ready → (vLLM dies) → starting → …, until cancelled or beyond its budget."""

    layout: SweepLayout
    store: ObjectStore
    work_dir: Path
    client: VllmClient
    start: Callable[[], VllmProcess]
    limits: Limits
    max_lora_rank: int
    platform: Platform
    layer: str  # last part of the name of linear layers of the model
    under: str | None = None
    """Name of the recipe that the base model is served under; None: as it is published."""
    merged: LocalAdapter | None = None
    """Adapter that the base model includes; no other one is served then."""
    calibration: InputCalibration | None = None
    """Calibration of FP8 inputs; None where inputs have no scales of their own."""
    restarts: int = 0
    _desired: dict[str, DesiredAdapter] = field(default_factory=dict)
    _models: ServedModels | None = None
    """Models of the vLLM that runs now or, while it starts, of the one before."""
    _mixed_up: PermanentError | None = None
    _process: VllmProcess | None = None
    _was_healthy: bool = False
    _up: asyncio.Event = field(default_factory=asyncio.Event)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while adapters are loaded into vLLM or unloaded."""
    _run_locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """Held while a run's adapter is fetched and loaded; taken before ``_lock``."""
    _restart_times: deque[float] = field(default_factory=deque)

    async def run(self) -> None:
        """Serve until cancelled; whatever happens, no process is left.

        Raises:
            PermanentError: vLLM cannot start, needed more restarts than the budget allows, or mixes up its models.
        """
        self._desired = read_desired_adapters(self.work_dir, self.layout)
        try:
            while True:
                reason = await self._serve_once()
                self._up.clear()
                if self._models is not None:
                    self._models.adapters.clear()
                _log.warning("vLLM %s; restarting it", reason, extra={"restarts": self.restarts})
                await self._stop_process()
                await self._before_restart(reason)
        finally:
            self._up.clear()
            await self._stop_process()

    @property
    def adapters(self) -> dict[str, str]:
        """Adapters served: run → name in vLLM."""
        return dict(self._models.adapters) if self._models else {}

    @property
    def input_scales(self) -> dict[str, ScaleSource]:
        """Where the scales of FP8 inputs come from: run → source; empty where inputs have none."""
        return dict(self._models.input_scales) if self._models else {}

    @property
    def base_model(self) -> str:
        """Name under which the base model is requested."""
        return self._models.base_model if self._models else BASE_MODEL

    @property
    def max_model_len(self) -> int | None:
        """Tokens that prompt and answer may have together; None before vLLM was up."""
        return self._models.max_model_len if self._models else None

    async def not_ready_reason(self) -> str | None:
        """Return why not every desired adapter is served; None when vLLM lists all of them."""
        if not self._up.is_set():
            return "vLLM is starting"
        try:
            listed = await self.client.models()
        except BenchError as error:
            return str(error)
        missing = sorted({desired.name for desired in self._desired.values()} - listed.keys())
        return f"vLLM does not list {', '.join(missing)}" if missing else None

    async def load(self, run: str, prefix: str) -> str:
        """Serve a run's adapter; returns its name in vLLM. One that is served already is left as it is.

        Raises:
            ConfigError: the run's name or the prefix is not one of this sweep.
            PermanentError: the adapter cannot be served.
            TransientError: the store or vLLM is unavailable.
        """
        check_run_name(run)
        if self.merged is not None:
            raise ConfigError(
                f"no adapter is served on a base that the adapter of {self.merged.run} is merged into",
                field="run",
                value=run,
                remedy="Request the base model.",
            )
        if prefix != self.layout.train(run):
            raise ConfigError(
                "is not the train stage of this run in the sweep that is served",
                field="prefix",
                value=prefix,
                remedy=f"It is {self.layout.train(run)}.",
            )
        await self._wait_until_up()
        async with self._run_locks[run]:
            if (name := self.adapters.get(run)) is not None:
                return name
            adapter = await asyncio.to_thread(
                deliver_adapter,
                self.store,
                run,
                prefix,
                into=self._folder,
                max_rank=self.max_lora_rank,
                with_input_scales=self.calibration is not None and run in self.calibration.runs,
            )
            await self._wait_until_up()
            async with self._lock:
                if run not in self.adapters:  # else it was desired before, and a restart has just served it
                    await self._running_models().add(adapter)
                self._desired[run] = DesiredAdapter(name=adapter.name, prefix=prefix)
                write_desired_adapters(self.work_dir, self._desired)
        return adapter.name

    async def unload(self, run: str) -> None:
        """Stop serving a run's adapter; nothing happens if it is not served.

        Raises:
            ConfigError: that is not a run name.
            TransientError: vLLM is unavailable; it will start again without the adapter.
        """
        check_run_name(run)
        async with self._lock:
            if self._desired.pop(run, None) is not None:
                write_desired_adapters(self.work_dir, self._desired)
            if self._models is not None and self._up.is_set():
                await self._models.remove(run)

    async def probe(self) -> None:
        """Check that the models served now answer together as each does alone.

        Raises:
            PermanentError: they do not. The supervisor ends: no score in progress may be published.
            TransientError: vLLM is unavailable.
        """
        await self._wait_until_up()
        async with self._lock:
            try:
                await self._running_models().check_mixing()
            except PermanentError as error:
                self._mixed_up = error
                raise

    async def _serve_once(self) -> str:
        """Start vLLM, load the desired adapters, watch it; returns why it has to be started again."""
        write_progress(self.work_dir, Progress(phase=Activity.STARTING))
        began = time.monotonic()
        self._process = self.start()
        reason = await self._wait_until_ready(self._process, began)
        if reason is not None:
            return reason
        try:
            async with self._lock:
                await self._restore(self._process)
        except TransientError as error:
            return f"failed while adapters were loaded: {error}"
        self._up.set()
        write_progress(self.work_dir, Progress(phase=Activity.READY))
        _log.info("vLLM is ready", extra={"seconds": round(time.monotonic() - began, 1), "pid": self._process.pid})
        return await self._watch(self._process)

    async def _wait_until_ready(self, process: VllmProcess, began: float) -> str | None:
        while not await self.client.is_healthy():
            code = process.exit_code()
            if code is not None:
                if self._was_healthy or code > _SIGNAL_EXIT:
                    return f"ended with code {code} while it started"
                raise PermanentError(f"vLLM ended with code {code} while it started{log_tail(process.log)}")
            if time.monotonic() - began > self.limits.start_s:
                raise PermanentError(
                    f"vLLM was not ready after {self.limits.start_s:.0f} s (serving.start_timeout_s)"
                    f"{log_tail(process.log)}"
                )
            await asyncio.sleep(self.limits.start_poll_s)
        self._was_healthy = True  # so its settings work: from now on, an end at start-up is retried
        return None

    async def _watch(self, process: VllmProcess) -> str:
        last_healthy = time.monotonic()
        while True:
            await asyncio.sleep(self.limits.health_poll_s)
            if self._mixed_up is not None:
                raise self._mixed_up
            if (code := process.exit_code()) is not None:
                return f"ended with code {code}"
            if await self.client.is_healthy():
                last_healthy = time.monotonic()
            elif time.monotonic() - last_healthy > self.limits.unhealthy_s:
                return f"did not answer for {self.limits.unhealthy_s:.0f} s"

    async def _before_restart(self, reason: str) -> None:
        now = time.monotonic()
        while self._restart_times and now - self._restart_times[0] > self.limits.restart_window_s:
            self._restart_times.popleft()
        recent = len(self._restart_times)
        if recent >= self.limits.restarts:
            tail = log_tail(self._process.log) if self._process else ""
            raise PermanentError(
                f"vLLM {reason}, after {recent} restarts within {self.limits.restart_window_s:.0f} s{tail}"
            )
        self._restart_times.append(now)
        self.restarts += 1
        if recent:
            await asyncio.sleep(self.limits.first_pause_s * 2 ** (recent - 1))

    async def _restore(self, process: VllmProcess) -> None:
        """Load the desired adapters again; one that cannot be served any more is dropped."""
        sound = self.platform != "cpu" or process.uses_cpu_lora()
        self._models = await ServedModels.start(
            self.client,
            self._folder,
            layer=self.layer,
            base_needs_adapter=not sound,
            calibration=self.calibration,
            merged=self.merged,
        )
        for run, desired in list(self._desired.items()):
            try:
                await self._models.add(await self._local_copy(run, desired))
            except PermanentError:
                _log.exception("an adapter that was served before cannot be served again", extra={"run_name": run})
                del self._desired[run]
        write_desired_adapters(self.work_dir, self._desired)

    async def _local_copy(self, run: str, desired: DesiredAdapter) -> LocalAdapter:
        adapter = await asyncio.to_thread(find_adapter, run, desired.name, self._folder)
        if adapter is None:
            raise PermanentError(f"the copy of {desired.name} in {self._folder} is gone or damaged")
        return adapter

    @property
    def _folder(self) -> Path:
        return adapter_folder(self.work_dir, self.under)

    def _running_models(self) -> ServedModels:
        if self._models is None:
            raise TransientError("vLLM is starting")
        return self._models

    async def _wait_until_up(self) -> None:
        try:
            await asyncio.wait_for(self._up.wait(), self.limits.up_s)
        except TimeoutError as error:
            raise TransientError(f"vLLM was not up within {self.limits.up_s:.0f} s") from error

    async def _stop_process(self) -> None:
        if self._process is not None:
            await self._process.stop()
