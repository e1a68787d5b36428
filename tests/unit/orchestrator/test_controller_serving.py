"""What the controller answers over HTTP, its reports, and its loop."""

import io
import logging
import os
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from waiting import PATIENCE_S

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.layout import SweepLayout
from surogate_bench.metrics import METRICS
from surogate_bench.store import ObjectStore
from surogate_bench_orchestrator.adapters.kubernetes.settings import StoreSettings
from surogate_bench_orchestrator.controller.http_server import Answers, HttpServer
from surogate_bench_orchestrator.controller.metrics.exposition import Metrics
from surogate_bench_orchestrator.controller.metrics.figures import RunFigures, SweepFigures
from surogate_bench_orchestrator.controller.queue.loop import Loop
from surogate_bench_orchestrator.controller.queue.work_queue import WorkQueue
from surogate_bench_orchestrator.controller.reports.maker import ReportMaker, ReportState
from surogate_bench_orchestrator.controller.reports.process import ReportRequest
from surogate_bench_orchestrator.controller.sweep.store_gate import NOT_USABLE, StoreGate


@dataclass
class Site:
    """A server, and what it answers from."""

    metrics: Metrics = field(default_factory=Metrics)
    trouble: str = ""
    store: ObjectStore | None = None
    prefixes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = HttpServer(
            0,
            Answers(
                registry=self.metrics.registry,
                unhealthy=lambda: self.trouble,
                unready=lambda: self.trouble,
                store=lambda: self.store,
                report_prefix=self.prefixes.get,
            ),
        )
        self.server.start()

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}{path}", timeout=PATIENCE_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.server.stop()


FIGURES = SweepFigures(
    sweep="small", spec_hash="abc", model="m", task="ro_gsm8k", states={"Succeeded": 1, "Failed": 0},
    runs=(
        RunFigures(
            recipe="base", seed="", accuracy=0.25, stderr=0.1, samples=8, train_seconds=None, eval_seconds=2.0,
            final_loss=None, tokens_per_second=None,
        ),
    ),
)  # fmt: skip


def test_health_and_readiness_say_what_is_wrong(site: Site) -> None:
    assert site.get("/healthz") == (200, b"ok\n")
    site.trouble = "waits for the object store"
    assert site.get("/readyz") == (503, b"waits for the object store\n")


@pytest.mark.parametrize("path", ["/", "/reports/", "/reports/..tar", "/reports/a/../b.tar", "/reports/UP.tar"])
def test_other_paths_are_not_found(site: Site, path: str) -> None:
    site.prefixes[".."] = "secrets"
    assert site.get(path)[0] == 404


def test_metrics_can_be_parsed_and_show_the_figures(site: Site) -> None:
    site.metrics.board.show("small", FIGURES)
    status, body = site.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert status == 200
    (accuracy,) = families["surogate_bench_accuracy"].samples
    assert (accuracy.labels, accuracy.value) == ({"sweep": "small", "recipe": "base", "seed": ""}, 0.25)
    assert families["surogate_bench_train_seconds"].samples == []
    assert families["surogate_bench_leader"].samples[0].value == 0
    assert "process_resident_memory_bytes" in families
    site.metrics.board.remove("small")
    assert b'sweep="small"' not in site.get("/metrics")[1]


def test_every_metric_is_in_the_documented_table_and_the_other_way_round(site: Site) -> None:
    site.metrics.board.show("small", FIGURES)
    families = text_string_to_metric_families(site.get("/metrics")[1].decode())
    shown = {(family.name, family.type, family.documentation) for family in families if "_created" not in family.name}
    documented = {
        (info.name.removesuffix("_total"), info.kind, info.meaning) for info in METRICS if info.pod == "controller"
    }
    assert {each for each in shown if each[0].startswith("surogate_bench_")} == documented


def test_a_report_comes_as_a_tar_file(site: Site, report_world: Callable[..., Any]) -> None:
    world = report_world()
    folder = world.layout.report
    site.store, site.prefixes = world.store, {"embedded": folder}
    site.server.stop()
    site.__post_init__()
    assert site.get("/reports/other.tar") == (404, b"there is no such sweep\n")
    world.store.put(f"{folder}/charts/all.png", b"picture")
    assert site.get("/reports/embedded.tar") == (404, b"the sweep has no report yet\n")
    world.store.put(f"{folder}/summary.json", b"{}")
    status, body = site.get("/reports/embedded.tar")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert archive.getnames() == ["charts/all.png", "summary.json"]
        member = archive.extractfile("charts/all.png")
        assert member is not None
        assert member.read() == b"picture"


def test_a_report_cannot_be_had_while_the_store_cannot_be_used(site: Site) -> None:
    site.prefixes["small"] = "sweeps/small/report"
    assert site.get("/reports/small.tar")[0] == 503


def wait_for_report(maker: ReportMaker, request: ReportRequest) -> tuple[ReportState, str]:
    deadline = time.monotonic() + PATIENCE_S
    while (state := maker.advance("small/uid", request))[0] is ReportState.WORKING:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return state


def test_a_report_is_written_by_a_process_of_its_own(report_world: Callable[..., Any]) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_prepare()
    world.publish_eval("base")
    world.publish_run("bf16")
    request = ReportRequest(
        sweep=world.sweep, store=world.store.url, failed={"fp8-s0": "Killed: exit code 137"}, skipped={}
    )
    assert wait_for_report(ReportMaker(), request) == (ReportState.DONE, "")
    assert b"Killed: exit code 137" in world.report_file("report.html")
    assert SweepLayout(world.sweep.name, world.sweep.spec_hash).report == world.layout.report


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def request_of(world: Any) -> ReportRequest:
    return ReportRequest(sweep=world.sweep, store=world.store.url, failed={}, skipped={})


def test_a_report_that_fails_three_times_is_given_up_with_the_last_line_of_its_errors(
    report_world: Callable[..., Any],
) -> None:
    maker = ReportMaker(script("import sys; sys.stderr.write('first\\nno space left\\n'); sys.exit(1)"))
    assert wait_for_report(maker, request_of(report_world())) == (ReportState.GIVEN_UP, "no space left")


def test_a_report_that_hangs_is_killed(report_world: Callable[..., Any]) -> None:
    now = [0.0]
    maker = ReportMaker(script("import time; time.sleep(600)"), lambda: now[0])
    request = request_of(report_world())
    states = []
    for _ in range(6):
        states.append(maker.advance("small/uid", request))
        now[0] += 601
    assert states[-1] == (ReportState.GIVEN_UP, "not ready within 600 s")


def test_reports_are_made_one_after_the_other(report_world: Callable[..., Any]) -> None:
    maker = ReportMaker(script("import time; time.sleep(600)"))
    request = request_of(report_world())
    maker.advance("one/uid", request)
    assert maker.advance("two/uid", request) == (ReportState.WORKING, "")
    maker.stop()
    quick = ReportMaker(script(""))
    assert wait_for_report(quick, request)[0] is ReportState.DONE


def test_a_report_that_nobody_asks_about_any_more_does_not_keep_others_waiting(
    report_world: Callable[..., Any],
) -> None:
    now = [0.0]
    maker = ReportMaker(
        script("import sys, time; time.sleep(600 if 'gone' in sys.stdin.read() else 0)"), lambda: now[0]
    )
    request = request_of(report_world())
    maker.advance("deleted/uid", request.model_copy(update={"failed": {"gone": "x"}}))
    now[0] = 29
    assert maker.advance("small/uid", request) == (ReportState.WORKING, "")
    now[0] = 31
    assert wait_for_report(maker, request) == (ReportState.DONE, "")


def test_a_store_that_can_be_used_opens_the_gate(tmp_path: Any) -> None:
    gate = StoreGate(StoreSettings(url=str(tmp_path)))
    assert not gate.is_settled
    assert gate.check()
    assert gate.is_settled
    assert gate.trouble is None
    assert gate.store is not None


@pytest.mark.parametrize("error", [TransientError("no route"), PermanentError("denied")])
def test_a_store_that_cannot_be_used_is_told_until_it_can(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: ObjectStore) -> None:
        raise error

    gate = StoreGate(StoreSettings(url=str(tmp_path)))
    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "verify_conditional_writes", fail)
        assert not gate.check()
    assert gate.trouble is not None
    assert gate.trouble.reason == NOT_USABLE
    assert str(error.args[0]) in gate.trouble.message
    assert gate.store is None
    assert gate.check()
    assert gate.trouble is None


def test_credentials_are_taken_as_the_secret_has_them_now(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_KEY", "of before")
    mounted = tmp_path / "secret"
    mounted.mkdir()
    gate = StoreGate(StoreSettings(url=str(tmp_path / "store"), secret="bench-store", credentials=mounted))
    assert not gate.check()
    assert gate.trouble is not None
    assert "Secret: does not exist, or is empty (got 'bench-store')" in gate.trouble.message
    (mounted / "STORE_KEY").write_text("of now")
    assert gate.check()
    assert os.environ["STORE_KEY"] == "of now"


class Turns:
    """Stands for the reconciler."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.seen = threading.Condition()
        self.hold = threading.Event()

    def turn(self, name: str) -> float | None:
        with self.seen:
            self.names.append(name)
            self.seen.notify_all()
        if name == "hangs":
            assert self.hold.wait(PATIENCE_S)
        if name == "away" and self.names.count("away") == 1:
            raise TransientError("no route")
        if name == "broken" and self.names.count("broken") == 1:
            raise ValueError("a mistake of ours")
        return None

    def wait(self, names: list[str]) -> None:
        with self.seen:
            assert self.seen.wait_for(lambda: sorted(self.names) == sorted(names), PATIENCE_S)


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def queue(turns: Turns) -> Iterator[WorkQueue]:
    made = WorkQueue(gap_s=0.01)
    loop = Loop(made, turns, Metrics())  # type: ignore[arg-type] # stands for a Reconciler
    assert loop.trouble() == ""
    loop.start()
    yield made
    turns.hold.set()
    loop.stop(PATIENCE_S)
    assert loop.trouble() == ""


def test_a_turn_that_hangs_does_not_hold_up_other_sweeps(queue: WorkQueue, turns: Turns) -> None:
    queue.add("hangs")
    turns.wait(["hangs"])
    queue.add("other")
    turns.wait(["hangs", "other"])


def test_a_turn_that_fails_is_repeated_whatever_the_reason(
    queue: WorkQueue, turns: Turns, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        queue.add("away")
        queue.add("broken")
        turns.wait(["away", "away", "broken", "broken"])
    assert "no route" in caplog.text
    assert "a mistake of ours" in caplog.text
