"""The model server with a real vLLM: one process for the whole module where the test allows it."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from sweeps import small_sweep
from waiting import PATIENCE_S, until

from surogate_bench.errors import ExitCode, PermanentError
from surogate_bench.processes.progress import read_progress, read_termination
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.model_source import locate_model
from surogate_bench.stages.publication import publish_stage
from surogate_bench.stages.requests import ServeRequest
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_model_server.adapters.mixing import MixingProbe, distance
from surogate_bench_model_server.vllm.client import VllmClient

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]

service_folders: list[Path] = []
PROMPT = "Întrebare: Ana are 3 mere și primește încă 4. Câte mere are?\nRăspuns:"


@dataclass
class Service:
    request: ServeRequest
    work_dir: Path
    metrics_port: int
    process: "subprocess.Popen[bytes]"

    def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        url = f"http://127.0.0.1:{self.request.port}{path}"
        return httpx.request(method, url, timeout=PATIENCE_S, trust_env=False, **arguments)

    def vllm(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        url = f"http://127.0.0.1:{self.request.vllm_port}{path}"
        return httpx.request(method, url, timeout=PATIENCE_S, trust_env=False, **arguments)

    def load(self, run: str) -> httpx.Response:
        return self.call("PUT", f"/adapters/{run}", json={"prefix": self.request.layout.train(run)})

    def answer(self, model: str) -> dict[str, float]:
        """Log-probabilities of the likeliest first tokens."""
        body = {"model": model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 5}
        choice = self.vllm("POST", "/v1/completions", json=body).raise_for_status().json()["choices"][0]
        answer: dict[str, float] = choice["logprobs"]["top_logprobs"][0]
        return answer

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            assert self.process.poll() is None, (self.work_dir / "service.log").read_text()[-4000:]
            return condition()

        until(holds, what)

    def is_ready(self) -> bool:
        try:
            return self.call("GET", "/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> None:
        self.wait(self.is_ready, "ready")

    def vllm_processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    return open_store(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def request_(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> ServeRequest:
    request = make_request(store, max_lora_rank=16)
    adapters = tmp_path_factory.mktemp("adapters")
    for run, rank, b_std in (("bf16-s0", 8, 0.05), ("fp8-s0", 16, 0.05), ("fp4-s0", 32, 0.05), ("qfp4-s0", 8, 0.0)):
        publish_adapter(store, request, run, make_adapter(request, adapters / run, rank=rank, b_std=b_std))
    return request


@pytest.fixture(scope="module")
def service(request_: ServeRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service with variables and a long TMPDIR with which vLLM alone would not start."""
    long = tmp_path_factory.mktemp("long") / ("t" * 100)
    long.mkdir()
    added = {"VLLM_PLUGINS": "", "TMPDIR": str(long), "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    started = start_service(request_, tmp_path_factory.mktemp("work"), added)
    try:
        started.wait_until_ready()
        yield started
    finally:
        stop_service(started)


def test_an_adapter_is_loaded_listed_answers_differently_and_is_unloaded(service: Service) -> None:
    loaded = service.load("bf16-s0")
    assert loaded.status_code == 200, loaded.text
    name = loaded.json()["model"]
    assert name.startswith("bf16-s0-")
    assert service.load("bf16-s0").json() == {"model": name}
    assert name in served_models(service)
    assert service.answer(name) != service.answer("base")
    status = service.call("GET", "/status").json()
    assert status["adapters"] == {"bf16-s0": name}
    assert status["vllm_url"] == f"http://127.0.0.1:{service.request.vllm_port}"
    assert status["max_model_len"] == service.request.sweep.serving.max_model_len
    for _ in range(2):
        assert service.call("DELETE", "/adapters/bf16-s0").status_code == 204
    assert name not in served_models(service)


def test_a_rank_above_the_servers_is_refused_before_vllm_is_asked(service: Service) -> None:
    refused = service.load("fp4-s0")
    assert refused.status_code == 422
    assert refused.json()["reason"] == "PermanentError"
    assert "rank 32 is above serving.max_lora_rank 16" in refused.json()["message"]
    assert "fp4-s0" not in (service.work_dir / "vllm.log").read_text()


def test_an_untrained_adapter_answers_as_the_base_model_does(service: Service) -> None:
    name = service.load("qfp4-s0").raise_for_status().json()["model"]
    assert service.answer(name) == service.answer("base")
    assert service.call("POST", "/probe").status_code == 200
    assert service.call("DELETE", "/adapters/qfp4-s0").status_code == 204


def test_models_asked_together_answer_as_alone_although_the_environment_names_no_plug_in(service: Service) -> None:
    names = [service.load(run).raise_for_status().json()["model"] for run in ("bf16-s0", "fp8-s0")]
    alone = service.answer("base")
    assert service.call("GET", "/status").json()["model"] == "base"
    assert service.call("POST", "/probe").status_code == 200
    assert max(distance((alone,), (answer,)) for answer in answers_together(service, "base", names)) < 0.05
    for run in ("bf16-s0", "fp8-s0"):
        service.call("DELETE", f"/adapters/{run}").raise_for_status()


def test_sockets_lie_in_a_short_private_folder_that_goes_with_vllm(service: Service) -> None:
    environment = next(
        process.environ() for process in service.vllm_processes() if "api_server" in " ".join(process.cmdline())
    )
    folder = Path(environment["VLLM_RPC_BASE_PATH"])
    assert len(str(folder)) <= 60
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(environment["TMPDIR"]) <= 60
    assert len(str(Path(environment["TMPDIR"]).resolve())) > 100
    assert any(path.is_socket() for path in folder.iterdir())
    service_folders.append(folder)


def test_vllm_comes_back_with_its_adapters_after_it_was_killed(service: Service) -> None:
    name = service.load("fp8-s0").json()["model"]
    before = service.answer(name)
    api_server = next(process for process in service.vllm_processes() if "api_server" in " ".join(process.cmdline()))
    old = service.vllm_processes()
    api_server.send_signal(signal.SIGKILL)
    service.wait(lambda: service.call("GET", "/status").json()["restarts"] > 0, "vLLM is started again")
    service.wait_until_ready()
    assert [process for process in old if process.is_running()] == []
    assert service.call("GET", "/status").json()["restarts"] == 1
    assert service.answer(name) == before
    assert 'surogate_bench_vllm_restarts_total{sweep="model-server-test"} 1.0' in service.call("GET", "/metrics").text


def test_the_metrics_port_passes_vllms_own_metrics_on(service: Service) -> None:
    service.answer("base")

    def scrape() -> str:
        """Every part of the metrics; what does not come within the time of a scrape is left out."""
        url = f"http://127.0.0.1:{service.metrics_port}/metrics"
        text = httpx.get(url, timeout=PATIENCE_S, trust_env=False).text
        return text if "vllm:" in text and 'surogate_bench_vllm_up{sweep="model-server-test"} 1.0' in text else ""

    text = until(scrape, "vLLM's metrics and our own")
    made = list(text_string_to_metric_families(text))
    values = {each.name: [sample.value for sample in each.samples] for each in made}
    assert values["surogate_bench_vllm_up"] == [1]
    assert values["vllm:prompt_tokens"][0] > 0
    assert len(values) == len(made), "no family comes twice"


def test_nothing_is_left_when_the_supervisor_is_killed(service: Service) -> None:
    processes = service.vllm_processes()
    assert len(processes) >= 3  # launcher, API server, engine
    service.process.kill()
    service.process.wait()
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert alive == []
    assert [folder for folder in service_folders if folder.exists()] == []


def test_where_the_plug_in_steps_aside_the_base_is_still_scored_as_itself(
    request_: ServeRequest, tmp_path: Path
) -> None:
    """Stock vLLM gives the base model's tokens an adapter: the probe finds it, and the empty adapter avoids it."""
    (tmp_path / "sitecustomize.py").write_text(
        "from surogate_bench_model_server import cpu_lora\ncpu_lora.register = lambda: None\n"
    )
    request = request_.model_copy(update={"port": free_port(), "vllm_port": free_port()})
    stock = start_service(request, tmp_path / "work", {"PYTHONPATH": str(tmp_path)})
    try:
        stock.wait_until_ready()
        alone = stock.answer("base")
        names = [stock.load(run).raise_for_status().json()["model"] for run in ("bf16-s0", "fp8-s0")]
        base = stock.call("GET", "/status").json()["model"]
        assert base == "base-as-an-adapter"
        assert stock.call("POST", "/probe").status_code == 200
        assert max(distance((alone,), (answer,)) for answer in answers_together(stock, base, names)) < 0.05
        with pytest.raises(PermanentError, match="mixes up the models of one batch: base gives other"):
            asyncio.run(probe_together(request.vllm_port, "base", names))
    finally:
        stop_service(stock)


def test_a_supervisor_that_starts_again_serves_the_same_and_ends_on_sigterm(service: Service) -> None:
    again = start_service(service.request, service.work_dir)
    try:
        again.wait_until_ready()
        assert set(again.call("GET", "/status").json()["adapters"]) == {"fp8-s0"}
        progress = read_progress(again.work_dir)
        assert progress is not None
        assert progress.phase == "ready"
        processes = again.vllm_processes()
    finally:
        code = stop_service(again)
    assert code == 75
    assert [process for process in processes if process.is_running()] == []


def test_a_port_in_use_is_named(request_: ServeRequest, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        request = request_.model_copy(update={"vllm_port": taken.getsockname()[1]})
        assert start_service(request, tmp_path).process.wait(PATIENCE_S) == 2
    termination = read_termination(tmp_path)
    assert termination is not None
    assert termination.reason == "ConfigError"
    assert f"vllm_port: port {request.vllm_port} of 127.0.0.1 is in use" in termination.message


def test_a_vllm_that_cannot_start_is_reported_with_the_end_of_its_log(store: ObjectStore, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_folder(store), model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"architectures": ["NoSuchArchitecture"]}))
    request = make_request(store, max_lora_rank=16, model={"path": str(model)})
    assert start_service(request, tmp_path / "work").process.wait(PATIENCE_S) == ExitCode.PERMANENT
    termination = read_termination(tmp_path / "work")
    assert termination is not None
    assert termination.reason == "PermanentError"
    assert "vLLM ended with code 1 while it started" in termination.message
    assert "NoSuchArchitecture" in termination.message


def make_request(store: ObjectStore, *, max_lora_rank: int, model: dict[str, Any] | None = None) -> ServeRequest:
    sweep = small_sweep(
        name="model-server-test",
        training={"max_steps": 1, "lora": {"r": 8}},
        recipes=["bf16", "fp8", "fp4", "qfp4"],
        serving={
            "max_lora_rank": max_lora_rank, "max_loras": 2, "max_model_len": 256, "kv_cache_gib": 0.25,
            "start_timeout_s": PATIENCE_S,
        },
        **({"model": model} if model else {}),
    )  # fmt: skip
    return ServeRequest(sweep=sweep, store=store.url, threads=2, port=free_port(), vllm_port=free_port())


def model_folder(store: ObjectStore) -> Path:
    request = make_request(store, max_lora_rank=16)
    located = locate_model(request.sweep.model, store=store, layout=request.layout, cache=Path("unused"))
    return Path(located.name_or_path)


def make_adapter(request: ServeRequest, folder: Path, *, rank: int, b_std: float) -> Path:
    """Make a random adapter with PEFT; B matrices of standard deviation 0 are what training starts from."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(rank)
    base = AutoModelForCausalLM.from_pretrained(model_folder(open_store(request.store)))
    targets = list(request.sweep.training.lora.target_modules)
    model = get_peft_model(base, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=b_std) if b_std else parameter.zero_()
    model.save_pretrained(str(folder / "adapter"))
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    return folder


def publish_adapter(store: ObjectStore, request: ServeRequest, run: str, folder: Path) -> None:
    manifest = Manifest(
        stage="train",
        run=run,
        spec_hash=request.sweep.spec_hash,
        created=datetime.now(UTC),
        files={},
        hardware={},
        versions={},
        result={},
    )
    assert publish_stage(store, request.layout.train(run), folder, manifest)


def answers_together(service: Service, base: str, adapters: list[str]) -> list[dict[str, float]]:
    """Ask the base model eight times while adapters are asked too; returns the base model's answers."""
    models = [model for _ in range(8) for model in (*adapters, base)]
    with ThreadPoolExecutor(len(models)) as pool:
        answers = list(pool.map(service.answer, models))
    return [answer for model, answer in zip(models, answers, strict=True) if model == base]


async def probe_together(vllm_port: int, base: str, adapters: list[str]) -> None:
    client = VllmClient.open(f"http://127.0.0.1:{vllm_port}", None)
    try:
        probe = MixingProbe(client)
        await probe.add_base(base)
        for name in adapters:
            await probe.add(name)
        await probe.check()
    finally:
        await client.close()


def start_service(request: ServeRequest, work_dir: Path, added: dict[str, str] | None = None) -> Service:
    work_dir.mkdir(parents=True, exist_ok=True)
    request_file = work_dir / "request.json"
    request_file.write_text(request.model_dump_json())
    metrics_port = free_port()
    environment = {"SUROGATE_BENCH_PARENT_PID": str(os.getpid()), "SUROGATE_BENCH_METRICS_PORT": str(metrics_port)}
    with (work_dir / "service.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "surogate_bench_model_server", str(request_file), "--work-dir", str(work_dir)],
            env=os.environ | environment | (added or {}),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return Service(request, work_dir, metrics_port, process)


def stop_service(service: Service) -> int:
    if service.process.poll() is None:
        service.process.terminate()
    return service.process.wait(PATIENCE_S)


def served_models(service: Service) -> set[str]:
    return {card["id"] for card in service.vllm("GET", "/v1/models").raise_for_status().json()["data"]}
