"""HTTP to a pod's port through the API server, so that neither a Service's address nor a NetworkPolicy matters."""

import http.client
import json
from http import HTTPStatus

from kubernetes.client import ApiClient, ApiException, CoreV1Api
from kubernetes.stream import portforward

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench_orchestrator.runtimes.kubernetes.api import translate

_TIMEOUT_S = 60.0
_MAX_BODY_BYTES = 512 * 1024**2


def get_from_pod(client: ApiClient, *, namespace: str, pod: str, port: int, path: str) -> bytes:
    """GET a path from a pod.

    Raises:
        TransientError: the pod cannot be reached, or answers with a server error.
        PermanentError: it answers with another error, such as 404.
    """
    what = f"GET {path} from pod {pod}"
    try:
        forward = portforward(CoreV1Api(client).connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
    except ApiException as error:
        raise translate(error, what) from error
    except OSError as error:
        raise TransientError(f"{what}: {error}") from error
    connection = http.client.HTTPConnection("localhost", port)
    try:
        connection.sock = forward.socket(port)
        connection.sock.settimeout(_TIMEOUT_S)
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read(_MAX_BODY_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(f"{what}: {forward.error(port) or error}") from error
    finally:
        connection.close()
        forward.close()
    if response.status == HTTPStatus.OK:
        return body
    message = f"{what}: {response.status} {_explanation(body) or response.reason}"
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise TransientError(message)
    raise PermanentError(message)


def _explanation(body: bytes) -> str:
    text = body[:2000].decode(errors="replace").strip()
    try:
        document = json.loads(text)
    except ValueError:
        return text
    return str(document.get("message", text)) if isinstance(document, dict) else text
