"""helm test: the object store keeps what is written, and honours conditional writes."""

import sys
import uuid

from surogate_bench.errors import BenchError
from surogate_bench.store.object_store import open_store

KEY = f".probes/helm-test-{uuid.uuid4().hex}"
try:
    store = open_store(sys.argv[1])
    store.put(KEY, b"written")
    read = store.get(KEY)
    store.delete([KEY])
    store.verify_conditional_writes()
except BenchError as error:
    sys.exit(f"the object store does not work: {error}")
sys.exit(None if read == b"written" else f"the object store returned {read!r} for what was just written to {KEY}")
