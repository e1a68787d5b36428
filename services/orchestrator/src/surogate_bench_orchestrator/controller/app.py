"""``surogate-bench controller``: one replica of the controller."""

import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from surogate_bench.errors import ConfigError, ExitCode, TransientError
from surogate_bench.layout import SweepLayout
from surogate_bench.processes.logs import configure_logging
from surogate_bench_orchestrator.controller.election import Election
from surogate_bench_orchestrator.controller.http_server import Answers, HttpServer
from surogate_bench_orchestrator.controller.metrics.exposition import Metrics
from surogate_bench_orchestrator.controller.queue.work_queue import WorkQueue
from surogate_bench_orchestrator.controller.queue.workers import Workers
from surogate_bench_orchestrator.controller.reports.maker import ReportMaker
from surogate_bench_orchestrator.controller.status.writer import StatusWriter
from surogate_bench_orchestrator.controller.sweep.reconciler import Dependencies, SweepReconciler
from surogate_bench_orchestrator.controller.sweep.store_connection import RETRY_S, StoreConnection
from surogate_bench_orchestrator.resource import API_VERSION, KIND, PLURAL
from surogate_bench_orchestrator.resource.model import ResourceSweep, parse_resource
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api
from surogate_bench_orchestrator.runtimes.kubernetes.cluster import Cluster
from surogate_bench_orchestrator.runtimes.kubernetes.connecting import connect
from surogate_bench_orchestrator.runtimes.kubernetes.observation.informers import Informer
from surogate_bench_orchestrator.runtimes.kubernetes.release import Release
from surogate_bench_orchestrator.runtimes.kubernetes.runtime import KubernetesRuntime
from surogate_bench_orchestrator.runtimes.kubernetes.settings import ClusterSettings, load_settings

_log = logging.getLogger(__name__)

_GAP_S = 0.5
_SYNC_S = 60.0
_STOP_S = 10.0


class Controller:
    """One replica.

    Args:
        settings: Settings of the installation.
        port: For HTTP; 0 takes a free one.
    """

    def __init__(self, settings: ClusterSettings, *, port: int) -> None:
        client = connect(None).client
        self._settings = settings
        self._stopping = threading.Event()
        self._leading = threading.Event()
        self._synced = threading.Event()
        self._metrics = Metrics()
        self._queue = WorkQueue(gap_s=_GAP_S)
        self._reports = ReportMaker()
        self._sweeps = Informer(
            client,
            f"/apis/{API_VERSION}/namespaces/{settings.namespace}/{PLURAL}",
            on_change=lambda item: self._queue.add(item["metadata"]["name"]),
        )
        api = Api(client, self._metrics.count_request)
        release = Release(api, settings.namespace, settings.instance)
        self._connection = StoreConnection(settings.store, release.why_store_is_not_ready)
        self._cluster = Cluster(api, settings.namespace, settings.instance, self._queue.add)
        self._workers = Workers(self._queue, SweepReconciler(self._dependencies(api)), self._metrics)
        self._election = Election(
            client,
            settings.namespace,
            f"{socket.gethostname()}_{os.getpid()}",
            on_started=self._leading.set,
            on_lost=self._on_lost,
        )
        self.http = HttpServer(port, self._answers())

    def run(self) -> None:
        """Run until :meth:`stop` is called.

        Raises:
            TransientError: the API server does not answer.
        """
        self.http.start()
        threading.Thread(target=self._check_store, name="store", daemon=True).start()
        self._sweeps.start()
        self._cluster.start()
        try:
            self._sync()
            if not self._stopping.is_set():
                self._election.start()
                self._lead()
            self._stopping.wait()
        finally:
            self._end()

    def stop(self) -> None:
        """Request the end of :meth:`run`; may be called from any thread."""
        self._stopping.set()
        self._leading.set()

    def _sync(self) -> None:
        deadline = time.monotonic() + _SYNC_S
        self._sweeps.wait_until_synced(_SYNC_S)
        self._cluster.wait_until_synced(max(1.0, deadline - time.monotonic()))
        self._synced.set()

    def _lead(self) -> None:
        self._leading.wait()
        if self._stopping.is_set():
            return
        _log.info("this replica is the leader")
        self._metrics.leader.set(1)
        self._cluster.poll_progress()
        self._enqueue_all()
        self._workers.start()

    def _on_lost(self) -> None:
        if not self._stopping.is_set():  # otherwise it was released
            _exit_at_once()

    def _end(self) -> None:
        self._workers.stop(_STOP_S)
        self._reports.stop()
        self._election.release()
        self.http.stop()
        watches = threading.Thread(target=self._stop_watches, name="watches", daemon=True)
        watches.start()
        watches.join(_STOP_S)  # a watch on a dead connection would end much later

    def _stop_watches(self) -> None:
        self._cluster.stop()
        self._sweeps.stop()

    def _check_store(self) -> None:
        while not self._stopping.is_set():
            self._connection.check()
            self._enqueue_all()
            if self._connection.store is not None:
                return
            self._stopping.wait(RETRY_S)

    def _enqueue_all(self) -> None:
        for item in self._sweeps.objects():
            self._queue.add(item["metadata"]["name"])

    def _dependencies(self, api: Api) -> Dependencies:
        return Dependencies(
            resources=self._sweeps,
            connection=self._connection,
            make_runtime=self._make_runtime,
            reports=self._reports,
            writer=StatusWriter(api, clock=time.monotonic),
            results=self._metrics.results,
            clock=time.monotonic,
        )

    def _make_runtime(self, resource: ResourceSweep) -> KubernetesRuntime:
        return KubernetesRuntime(
            self._cluster,
            self._settings,
            sweep=resource.name,
            owner=owner_of(resource),
            scheduling=resource.scheduling,
        )

    def _answers(self) -> Answers:
        return Answers(
            registry=self._metrics.registry,
            unhealthy=self._workers.unhealthy_reason,
            unready=self._unready,
            store=lambda: self._connection.store,
            report_prefix=self._report_prefix,
        )

    def _unready(self) -> str:
        if not self._synced.is_set():
            return "waiting for the Kubernetes API"
        return "" if self._connection.is_checked else "waiting for the object store"

    def _report_prefix(self, name: str) -> str | None:
        item = self._sweeps.get(name)
        if item is None:
            return None
        try:
            return SweepLayout(name, parse_resource(item).sweep.spec_hash).report
        except ConfigError:
            return None


def owner_of(resource: ResourceSweep) -> dict[str, Any]:
    """Return the ownerReference by which all objects of a sweep are deleted with it."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": resource.name,
        "uid": resource.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def run_controller(config: Path, *, port: int) -> int:
    """Run one replica until SIGTERM.

    Returns:
        The exit code.

    Raises:
        ConfigError: the configuration is invalid.
        TransientError: the API server does not answer.
    """
    settings = load_settings(config)
    configure_logging("controller")
    controller = Controller(settings, port=port)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # In a thread: the main thread may hold the locks of the events that are set.
        threading.Thread(target=controller.stop, name="stop", daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        controller.run()
    except TransientError as error:
        _log.error("%s", error)
        return ExitCode.TRANSIENT
    return ExitCode.OK


def _exit_at_once() -> None:
    """End the process: another replica may be the leader already, and hanging threads cannot be interrupted."""
    _log.error("the Lease is lost; another replica continues")
    logging.shutdown()
    os._exit(ExitCode.TRANSIENT)
