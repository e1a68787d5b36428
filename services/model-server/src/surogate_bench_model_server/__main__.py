"""Run the service."""

import sys

from surogate_bench_model_server.main import main

sys.exit(main())
