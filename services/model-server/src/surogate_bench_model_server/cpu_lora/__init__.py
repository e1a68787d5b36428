"""A vLLM plug-in that makes LoRA decoding fast on CPU (entry point ``vllm.general_plugins``).

vLLM's CPU path multiplies every token with a gathered copy of its adapter's matrices, padded to ``--max-lora-rank``.
Here tokens are grouped by adapter instead, and only ranks that an adapter really has are computed. The plug-in offers
vLLM its own implementation where vLLM asks the platform for one, and steps aside, with a warning, when vLLM is not of
the version it was proven with.
"""

import logging

_log = logging.getLogger("vllm.surogate_bench_cpu_lora")

PLUGIN = "surogate_bench_cpu_lora"
"""Name of the entry point."""


def register() -> None:
    """Take part in this vLLM process; vLLM calls it in each of its processes, perhaps more than once."""
    from vllm.platforms import current_platform  # noqa: PLC0415 - vLLM is imported inside its own processes only

    if not current_platform.is_cpu():
        return
    from surogate_bench_model_server.cpu_lora import compatibility  # noqa: PLC0415 - imports vLLM

    reason = compatibility.find_obstacle()
    if reason is not None:
        _log.warning("LoRA on CPU stays as slow as vLLM has it: %s", reason)
        return
    compatibility.install()
