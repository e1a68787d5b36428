"""Write the CustomResourceDefinition: ``python -m surogate_bench_orchestrator.resource``."""

import sys

from surogate_bench_orchestrator.resource.definition import definition_yaml

sys.stdout.write(definition_yaml())
