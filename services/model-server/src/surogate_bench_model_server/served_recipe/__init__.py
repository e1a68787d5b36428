"""A vLLM plug-in that serves a base model under a recipe (entry point ``vllm.general_plugins``).

vLLM is started with ``--quantization surogate-bench-recipe``, and an environment variable with the path of a file that
holds the recipe. The linear layers of the transformer blocks then hold the weights that the recipe stores and multiply
as its training does, with the code of :mod:`surogate_bench_quantization`. Everything else, LoRA included, stays as it
is. Without the variable the plug-in does nothing.
"""

import os

from surogate_bench.contract import SERVED_RECIPE_VARIABLE

PLUGIN = "surogate_bench_served_recipe"
"""Name of the entry point."""


def register() -> None:
    """Register the quantization method; vLLM calls it in each of its processes, perhaps more than once."""
    if SERVED_RECIPE_VARIABLE not in os.environ:
        return
    # vLLM is imported inside its own processes only.
    from vllm.model_executor.layers.quantization import register_quantization_config  # noqa: PLC0415

    from surogate_bench_model_server.served_recipe.quantization import RecipeQuantization  # noqa: PLC0415
    from surogate_bench_model_server.served_recipe.settings import QUANTIZATION  # noqa: PLC0415

    register_quantization_config(QUANTIZATION)(RecipeQuantization)
