"""``python -m surogate_bench_orchestrator`` is ``surogate-bench``."""

from surogate_bench_orchestrator.cli import main

main()
