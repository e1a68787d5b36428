"""Run the evaluator service as a module."""

import sys

from surogate_bench_evaluator.main import main

sys.exit(main())
