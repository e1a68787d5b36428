"""The models in one running vLLM: loaded, and each verified to give its own answers."""

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from surogate_bench.contract import INPUT_SCALES_FILE
from surogate_bench.control_api import ScaleSource
from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.layout import BASE_RUN
from surogate_bench_model_server.adapters.calibration import InputCalibration, scale_source
from surogate_bench_model_server.adapters.delivery import LocalAdapter, amplified_copy, is_zero, make_empty_adapter
from surogate_bench_model_server.adapters.mixing import MixingProbe
from surogate_bench_model_server.vllm.client import Logprobs, VllmClient
from surogate_bench_model_server.vllm.command import BASE_MODEL

_log = logging.getLogger(__name__)
_EMPTY_ADAPTER = "base-as-an-adapter"
_UNADAPTED = "-unadapted"


@dataclass(kw_only=True, slots=True)
class ServedModels:
    """The base model and the adapters of one vLLM process. The client's TransientError passes through every method."""

    client: VllmClient
    folder: Path
    """Folder of local adapters."""
    layer: str
    """Last part of the name of linear layers of the model, for adapters that change nothing."""
    max_model_len: int
    base_model: str
    """Name under which the base model is requested."""
    adapters: dict[str, str] = field(default_factory=dict)
    """Name in vLLM by run."""
    input_scales: dict[str, ScaleSource] = field(default_factory=dict)
    """Where the scales of FP8 inputs come from, by run; empty where inputs have none."""
    calibration: InputCalibration | None = None
    """Calibration of FP8 inputs; None where inputs have no scales of their own."""
    _base_logprobs: Logprobs
    _mixing: MixingProbe

    @classmethod
    async def start(
        cls,
        client: VllmClient,
        folder: Path,
        *,
        layer: str,
        base_needs_adapter: bool,
        calibration: InputCalibration | None = None,
        merged: LocalAdapter | None = None,
    ) -> "ServedModels":
        """Measure a vLLM that has just started.

        Args:
            client: Client of vLLM.
            folder: Folder of local adapters.
            layer: Last part of the name of linear layers of the model.
            base_needs_adapter: Serve the base model as an empty adapter: vLLM's own LoRA code for CPUs gives tokens
                without an adapter those of another adapter in the batch.
            calibration: Calibration of FP8 inputs. The base model is then served as an empty adapter, which has scales
                as the others do.
            merged: Adapter that the base model includes: the scales stored by its training are those of the base model.

        Raises:
            PermanentError: vLLM refuses the empty adapter, or computes with it something else than the base model.
        """
        max_model_len = int((await client.models())[BASE_MODEL]["max_model_len"])
        mixing = MixingProbe(client)
        sources: dict[str, ScaleSource] = {}
        base = BASE_MODEL
        if calibration is not None:
            has_scales = merged is not None and (merged.folder / INPUT_SCALES_FILE).exists()
            empty = make_empty_adapter(_EMPTY_ADAPTER, folder, layer=layer, scales_of=merged if has_scales else None)
            await calibration.measure(empty, client)
            await client.load_adapter(empty.name, empty.folder.resolve())
            sources[BASE_RUN] = scale_source(empty) or "calibration"
            base = empty.name
        logprobs = await mixing.add_base(base)
        if base_needs_adapter and calibration is None:
            _log.warning(
                "vLLM runs without surogate-bench's LoRA plug-in for CPUs: the base model is requested through an "
                "empty adapter"
            )
            empty = make_empty_adapter(_EMPTY_ADAPTER, folder, layer=layer)
            await client.load_adapter(empty.name, empty.folder.resolve())
            await mixing.replace_base(BASE_MODEL, empty.name)
            base = empty.name
        return cls(
            client=client,
            folder=folder,
            layer=layer,
            max_model_len=max_model_len,
            base_model=base,
            input_scales=sources,
            calibration=calibration,
            _base_logprobs=logprobs,
            _mixing=mixing,
        )

    async def add(self, adapter: LocalAdapter) -> None:
        """Load an adapter and verify that it is listed and applied.

        Raises:
            PermanentError: vLLM refuses it or does not apply it.
        """
        if self.calibration is not None:
            await self.calibration.measure(adapter, self.client)
        await self.client.load_adapter(adapter.name, adapter.folder.resolve())
        if adapter.name not in await self.client.models():
            raise TransientError(f"vLLM accepted {adapter.name} but does not list it")
        unadapted = await self._unadapted_logprobs(adapter)
        # Any difference counts: a hardly trained adapter moves log-probabilities by little, but by more than nothing.
        if await self._mixing.add(adapter.name) == unadapted:
            if not is_zero(adapter) and not await self._acts_when_amplified(adapter, unadapted):
                await self._unload(adapter.name)
                raise PermanentError(
                    f"the adapter changes nothing: {adapter.name} answers exactly as the base model does"
                )
            _log.warning(
                "the adapter answers as the base model does: its B matrices are zero, or too small for bfloat16",
                extra={"adapter": adapter.name},
            )
        self.adapters[adapter.run] = adapter.name
        source = scale_source(adapter)
        if source is not None:
            self.input_scales[adapter.run] = source
        _log.info("adapter loaded", extra={"adapter": adapter.name, "input_scales": source})

    async def remove(self, run: str) -> None:
        """Unload a run's adapter; nothing happens if it is not served."""
        if (name := self.adapters.pop(run, None)) is not None:
            self.input_scales.pop(run, None)
            await self._unload(name)
            _log.info("adapter unloaded", extra={"adapter": name})

    async def check_mixing(self) -> None:
        """Check that models requested together answer as each does alone.

        Raises:
            PermanentError: they do not.
        """
        await self._mixing.check()

    async def _unadapted_logprobs(self, adapter: LocalAdapter) -> Logprobs:
        """Return what an adapter would answer if vLLM did not apply it: what the base model does, with its scales."""
        if self.calibration is None:
            return self._base_logprobs
        name = f"{adapter.name}{_UNADAPTED}"
        return await self._probe_once(make_empty_adapter(name, self.folder, layer=self.layer, scales_of=adapter))

    async def _acts_when_amplified(self, adapter: LocalAdapter, unadapted: Logprobs) -> bool:
        """Return whether vLLM applies an adapter whose effect rounding may hide, by loading it with a large scale."""
        return await self._probe_once(amplified_copy(adapter)) != unadapted

    async def _probe_once(self, adapter: LocalAdapter) -> Logprobs:
        """Load an adapter, probe it, and remove it with its folder."""
        try:
            await self.client.load_adapter(adapter.name, adapter.folder.resolve())
            logprobs = await self.client.probe(adapter.name)
            await self.client.unload_adapter(adapter.name)
        finally:
            shutil.rmtree(adapter.folder, ignore_errors=True)
        return logprobs

    async def _unload(self, name: str) -> None:
        self._mixing.remove(name)
        await self.client.unload_adapter(name)
