"""A vLLM plug-in that makes LoRA decoding fast on CPU (entry point ``vllm.general_plugins``).

vLLM's CPU path multiplies every token with a gathered copy of its adapter's matrices, padded to ``--max-lora-rank``.
Here tokens are grouped by adapter instead, and only ranks that an adapter really has are computed. The plug-in replaces
the implementation of vLLM's CPU platform. Under a version of vLLM that it was not tested with it does nothing, and logs
a warning.
"""

import logging

_log = logging.getLogger("vllm.surogate_bench_cpu_lora")

PLUGIN = "surogate_bench_cpu_lora"
"""Name of the entry point."""


def register() -> None:
    """Install the plug-in in this process; vLLM calls it in each of its processes, perhaps more than once."""
    from vllm.platforms import current_platform  # noqa: PLC0415 - vLLM is imported inside its own processes only

    if not current_platform.is_cpu():
        return
    from surogate_bench_model_server.cpu_lora import compatibility  # noqa: PLC0415 - imports vLLM

    reason = compatibility.find_obstacle()
    if reason is not None:
        _log.warning("LoRA on CPU uses vLLM's own, slower implementation: %s", reason)
        return
    compatibility.install()
