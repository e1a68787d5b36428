"""What a service answers on its metrics port: over real HTTP, in this process."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from waiting import PATIENCE_S

from surogate_bench.errors import ConfigError
from surogate_bench.processes.metrics import METRICS, expose, families, family, reference
from surogate_bench.processes.metrics_endpoint import serving_metrics
from surogate_bench.processes.progress import Progress, write_progress

Serve = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    @contextmanager
    def serving(*expositions: Callable[[], bytes]) -> Iterator[httpx.Client]:
        port = free_port()
        with (
            serving_metrics(str(port), tmp_path, expositions),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE_S) as http,
        ):
            yield http

    return serving


def test_metrics_of_the_process_and_of_the_service_are_answered_in_the_text_format(serve: Serve) -> None:
    labels = {"sweep": 'a "quoted" name'}
    with serve(lambda: expose(families(labels, {"surogate_bench_vllm_restarts_total": 2}))) as http:
        answer = http.get("/metrics?name[]=ignored")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {made.name: made for made in text_string_to_metric_families(answer.text)}
    assert found["process_resident_memory_bytes"].samples[0].value > 1 << 20
    assert {"python_info", "python_gc_objects_collected", "process_cpu_seconds"} <= set(found)
    (restarts,) = found["surogate_bench_vllm_restarts"].samples
    assert (restarts.name, restarts.labels, restarts.value) == ("surogate_bench_vllm_restarts_total", labels, 2)


def test_progress_is_missing_until_there_is_some(serve: Serve, tmp_path: Path) -> None:
    with serve() as http:
        assert http.get("/progress").status_code == 404
        write_progress(tmp_path, Progress(phase="training", step=3, total=9, memory_bytes=5))
        answer = http.get("/progress")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"phase": "training", "step": 3, "total": 9, "memory_bytes": 5}


@pytest.mark.parametrize("path", ["/", "/metrics/", "/progress.json", "/../termination.json", "/debug"])
def test_there_is_nothing_else(serve: Serve, tmp_path: Path, path: str) -> None:
    (tmp_path / "termination.json").write_text("secret")
    with serve() as http:
        assert http.get(path).status_code == 404
        assert http.post("/metrics").status_code == 501


def test_a_client_that_says_nothing_keeps_nobody_waiting(serve: Serve) -> None:
    with serve() as http, socket.create_connection((http.base_url.host, http.base_url.port or 0)):
        assert http.get("/metrics").status_code == 200


def test_scrapes_at_the_same_time_ask_a_service_one_after_another(serve: Serve) -> None:
    inside, overlaps = threading.Lock(), []

    def exposition() -> bytes:
        overlaps.append(not inside.acquire(blocking=False))
        threading.Event().wait(0.05)
        inside.release()
        return b""

    with serve(exposition) as http:
        threads = [threading.Thread(target=http.get, args=("/metrics",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert overlaps == [False] * 4


def test_a_scrape_that_fails_is_logged_and_the_next_one_works(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    failures = [ValueError("odd")]

    def exposition() -> bytes:
        if failures:
            raise failures.pop()
        return b""

    with serve(exposition) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            http.get("/metrics")
        assert http.get("/metrics").status_code == 200
    assert "a request for metrics or progress failed" in caplog.text


def test_the_port_is_free_again_afterwards(tmp_path: Path) -> None:
    port = free_port()
    for _ in range(2):
        with serving_metrics(str(port), tmp_path, ()):
            second = serving_metrics(str(port), tmp_path, ())
            with pytest.raises(ConfigError) as caught:
                second.__enter__()
        assert caught.value.field == "SUROGATE_BENCH_METRICS_PORT"
        assert "in use" in str(caught.value)
        assert str(port) in str(caught.value)


@pytest.mark.parametrize("setting", ["metrics", "0", "65536", "-1", "tcp://10.0.0.1:9400", "²"])
def test_what_is_no_port_is_refused(tmp_path: Path, setting: str) -> None:
    endpoint = serving_metrics(setting, tmp_path, ())
    with pytest.raises(ConfigError, match="SUROGATE_BENCH_METRICS_PORT: is not a port number"):
        endpoint.__enter__()


def test_every_metric_says_its_unit_and_labels_and_is_in_the_reference() -> None:
    assert len({info.name for info in METRICS}) == len(METRICS)
    text = reference()
    for info in METRICS:
        assert info.name.startswith("surogate_bench_")
        assert info.name.endswith("_total") == (info.kind == "counter")
        assert f"| `{info.name}` | {info.kind} | {info.unit} | {', '.join(info.labels)} | {info.meaning} |" in text
        if info.kind == "histogram":  # kept by prometheus_client, not made here
            continue
        labels = dict.fromkeys(info.labels, "x")
        (made,) = text_string_to_metric_families(expose([family(info.name, [(labels, 1.5)])]).decode())
        assert (made.type, made.documentation, made.samples[0].labels) == (info.kind, info.meaning, labels)


def test_the_documented_table_is_the_one_in_the_code() -> None:
    file = Path(__file__).parents[3] / "configs" / "METRICS.md"
    assert file.read_text(encoding="utf-8") == reference(), "run `make reference`"


def test_what_is_not_known_is_left_out() -> None:
    labels = {"sweep": "s", "run": "r", "task": "t", "served_under": "bf16", "merged": "false"}
    text = expose(families(labels, {"surogate_bench_eval_requests": None, "surogate_bench_eval_requests_done": 0}))
    assert b"surogate_bench_eval_requests_done{" in text
    assert b"surogate_bench_eval_requests{" not in text
