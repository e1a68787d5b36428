"""Before a release is uninstalled: stop the controller, so that it starts nothing more, and then its tasks.

RecipeSweeps and their results in the object store are kept; a controller that is installed again continues them.
"""

import sys
import time
from collections.abc import Callable

from surogate_bench.errors import BenchError
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api
from surogate_bench_orchestrator.runtimes.kubernetes.connecting import connect
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import selector_of

namespace, instance, controller = sys.argv[1:]
api = Api(connect(None).client)
batch, apps = f"/apis/batch/v1/namespaces/{namespace}", f"/apis/apps/v1/namespaces/{namespace}"
core = f"/api/v1/namespaces/{namespace}"
ours = selector_of(instance)


def wait(done: Callable[[], bool], patience_s: float) -> None:
    """Wait with a deadline: a lost node cannot confirm that its pods have ended."""
    deadline = time.monotonic() + patience_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.5)


def controllers() -> list[dict]:
    """Pods of the controller."""
    component = f"app.kubernetes.io/instance={instance},app.kubernetes.io/component=orchestrator"
    return api.list(f"{core}/pods", labelSelector=component)


try:
    api.patch(f"{apps}/deployments/{controller}", {"spec": {"replicas": 0}})
    wait(lambda: not controllers(), 60)
    for collection in (f"{batch}/jobs", f"{apps}/deployments", f"{core}/services"):
        for item in api.list(collection, labelSelector=ours):
            api.delete(f"{collection}/{item['metadata']['name']}")
    wait(lambda: not api.list(f"{core}/pods", labelSelector=ours), 60)
except BenchError as error:
    sys.exit(f"the tasks of the release could not be stopped: {error}")
