"""``python -m surogate_bench_orchestrator`` is ``surogate-bench``."""

from surogate_bench_orchestrator.cli.app import main

main()
