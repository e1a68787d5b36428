"""helm test: the controller is ready."""

import sys
import time
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

inside = build_opener(ProxyHandler({}))  # the Service is in the cluster, whatever proxy the environment names
url, deadline = sys.argv[1], time.monotonic() + 60
while True:
    try:
        with inside.open(url, timeout=5):  # raises unless it answers well
            break
    except (URLError, OSError) as error:
        if time.monotonic() > deadline:
            sys.exit(f"the controller is not ready: {url}: {error}. See the logs of the orchestrator's pods.")
        time.sleep(1)
