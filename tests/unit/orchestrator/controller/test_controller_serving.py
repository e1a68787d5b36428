"""The controller's HTTP server, and its reports."""

import io
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from waiting import PATIENCE_S
from worlds.report import MakeWorld, failures_of

from surogate_bench.layout import SweepLayout
from surogate_bench.processes.metrics import METRICS
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.controller.http_server import Answers, HttpServer
from surogate_bench_orchestrator.controller.metrics.exposition import Metrics
from surogate_bench_orchestrator.controller.metrics.figures import RunFigures, SweepFigures, TaskFigures
from surogate_bench_orchestrator.controller.reports.maker import ReportMaker, ReportState, ReportStatus
from surogate_bench_orchestrator.controller.reports.process import ReportRequest


@dataclass
class Site:
    """A server, and the sources of its responses."""

    metrics: Metrics = field(default_factory=Metrics)
    reason: str = ""
    store: ObjectStore | None = None
    prefixes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = HttpServer(
            0,
            Answers(
                registry=self.metrics.registry,
                unhealthy=lambda: self.reason,
                unready=lambda: self.reason,
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
            final_loss=None, tokens_per_second=None, served=(),
            tasks=(TaskFigures(task="en_gsm8k", accuracy=0.75, stderr=0.05),),
        ),
    ),
)  # fmt: skip


def test_health_and_readiness_have_the_reason(site: Site) -> None:
    assert site.get("/healthz") == (200, b"ok\n")
    site.reason = "waits for the object store"
    assert site.get("/readyz") == (503, b"waits for the object store\n")


@pytest.mark.parametrize("path", ["/", "/reports/", "/reports/..tar", "/reports/a/../b.tar", "/reports/UP.tar"])
def test_other_paths_are_not_found(site: Site, path: str) -> None:
    site.prefixes[".."] = "secrets"
    assert site.get(path)[0] == 404


def test_metrics_can_be_parsed_and_show_the_figures(site: Site) -> None:
    site.metrics.results.update("small", FIGURES)
    status, body = site.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert status == 200
    (accuracy,) = families["surogate_bench_accuracy"].samples
    assert (accuracy.labels, accuracy.value) == ({"sweep": "small", "recipe": "base", "seed": ""}, 0.25)
    (of_task,) = families["surogate_bench_task_accuracy"].samples
    assert (of_task.labels["task"], of_task.value) == ("en_gsm8k", 0.75)
    (stderr,) = families["surogate_bench_task_accuracy_stderr"].samples
    assert (stderr.labels, stderr.value) == (of_task.labels, 0.05)
    assert families["surogate_bench_train_seconds"].samples == []
    assert families["surogate_bench_leader"].samples[0].value == 0
    assert "process_resident_memory_bytes" in families
    site.metrics.results.remove("small")
    assert b'sweep="small"' not in site.get("/metrics")[1]


def test_every_metric_is_in_the_documented_table_and_the_other_way_round(site: Site) -> None:
    site.metrics.results.update("small", FIGURES)
    families = text_string_to_metric_families(site.get("/metrics")[1].decode())
    shown = {(family.name, family.type, family.documentation) for family in families if "_created" not in family.name}
    documented = {
        (info.name.removesuffix("_total"), info.kind, info.meaning) for info in METRICS if info.pod == "controller"
    }
    assert {each for each in shown if each[0].startswith("surogate_bench_")} == documented


def test_a_report_comes_as_a_tar_file(site: Site, report_world: MakeWorld) -> None:
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


def advance(maker: ReportMaker, request: ReportRequest, key: str = "small/uid") -> ReportStatus:
    maker.make(key, request)
    return maker.status(key)


def wait_for_report(maker: ReportMaker, request: ReportRequest) -> tuple[ReportState, str]:
    deadline = time.monotonic() + PATIENCE_S
    while (status := advance(maker, request)).state is ReportState.WORKING:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return status.state, status.message


def test_a_report_is_written_by_a_process_of_its_own(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_prepare()
    world.publish_eval("base")
    world.publish_run("bf16")
    request = ReportRequest(
        sweep=world.sweep, store=world.store.url, failed=failures_of({"fp8-s0": "Killed: exit code 137"}), skipped={}
    )
    assert ReportRequest.model_validate_json(request.model_dump_json()) == request
    assert wait_for_report(ReportMaker(), request) == (ReportState.DONE, "")
    assert b"Killed: exit code 137" in world.report_file("report.html")
    assert SweepLayout(world.sweep.name, world.sweep.spec_hash).report == world.layout.report


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def request_of(world: Any) -> ReportRequest:
    return ReportRequest(sweep=world.sweep, store=world.store.url, failed={}, skipped={})


def test_a_report_that_fails_three_times_is_given_up_with_the_last_line_of_its_errors(
    report_world: MakeWorld,
) -> None:
    maker = ReportMaker(script("import sys; sys.stderr.write('first\\nno space left\\n'); sys.exit(1)"))
    assert wait_for_report(maker, request_of(report_world())) == (ReportState.GIVEN_UP, "no space left")


def test_a_report_that_hangs_is_killed(report_world: MakeWorld) -> None:
    now = [0.0]
    maker = ReportMaker(script("import time; time.sleep(600)"), lambda: now[0])
    request = request_of(report_world())
    states: list[ReportStatus] = []
    for _ in range(6):
        states.append(advance(maker, request))
        now[0] += 601
    assert (states[-1].state, states[-1].message) == (ReportState.GIVEN_UP, "not ready within 600 s")


def test_reports_are_made_one_after_the_other(report_world: MakeWorld) -> None:
    maker = ReportMaker(script("import time; time.sleep(600)"))
    request = request_of(report_world())
    advance(maker, request, "one/uid")
    assert advance(maker, request, "two/uid") == ReportStatus()
    maker.stop()
    quick = ReportMaker(script(""))
    assert wait_for_report(quick, request)[0] is ReportState.DONE


def test_the_report_of_a_deleted_sweep_does_not_keep_others_waiting(report_world: MakeWorld) -> None:
    maker = ReportMaker(script("import sys, time; time.sleep(600 if 'gone' in sys.stdin.read() else 0)"))
    request = request_of(report_world())
    advance(maker, request.model_copy(update={"failed": failures_of({"gone": "x"})}), "deleted/uid")
    assert advance(maker, request) == ReportStatus()
    maker.forget("deleted/uid")
    assert wait_for_report(maker, request) == (ReportState.DONE, "")


def test_a_report_that_is_done_is_not_made_again_until_it_is_forgotten(report_world: MakeWorld, tmp_path: Path) -> None:
    count = tmp_path / "count"
    maker = ReportMaker(script(f"open({str(count)!r}, 'a').write('x')"))
    request = request_of(report_world())
    for _ in range(2):
        assert wait_for_report(maker, request) == (ReportState.DONE, "")
    assert count.read_text() == "x"
    maker.forget("small/uid")
    assert wait_for_report(maker, request) == (ReportState.DONE, "")
    assert count.read_text() == "xx"
