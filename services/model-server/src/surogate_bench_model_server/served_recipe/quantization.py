"""vLLM's quantization method: which layers a recipe covers, and what they compute."""

import os
from pathlib import Path
from typing import Any, Self

import torch
from vllm.config import get_current_vllm_config_or_none
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.linear import (
    LinearBase,
    UnquantizedLinearMethod,
    register_weight_loader_v2_supported_method,
)
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase
from vllm.utils.torch_utils import set_default_torch_dtype

from surogate_bench.contract import SERVED_RECIPE_VARIABLE
from surogate_bench.recipes import ComputePrecision
from surogate_bench_model_server.served_recipe.input_scales import InputScales
from surogate_bench_model_server.served_recipe.products import FusedFP8, FusedNVFP4, FusedProducts
from surogate_bench_model_server.served_recipe.settings import QUANTIZATION, ServedRecipe
from surogate_bench_quantization.cpu_products import ensure_fast_bf16_products
from surogate_bench_quantization.engines import select_engine
from surogate_bench_quantization.engines.forward import stored_values


class RecipeQuantization(QuantizationConfig):  # type: ignore[misc]  # vLLM is not followed by the type checker
    """Serves a bf16 checkpoint under a recipe.

    Args:
        served: The recipe; read from the file that the supervisor wrote if None, as vLLM makes it.
    """

    def __init__(self, served: ServedRecipe | None = None) -> None:
        super().__init__()
        self.served = ServedRecipe.read(Path(os.environ[SERVED_RECIPE_VARIABLE])) if served is None else served
        self._blocks = 0
        self._scales: InputScales | None = None

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Refuse a checkpoint that names this method: a recipe is applied to bf16 weights."""
        raise ValueError(f"{QUANTIZATION} is not a checkpoint format; found {config}")

    def get_name(self) -> str:
        """Name of the method."""
        return QUANTIZATION

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        """Recipes start from bf16."""
        return [torch.bfloat16]

    @classmethod
    def get_min_capability(cls) -> int:
        """Any GPU: what it cannot do is emulated."""
        return 0

    @staticmethod
    def get_config_filenames() -> list[str]:
        """None: the settings are not part of a checkpoint."""
        return []

    def maybe_update_config(self, model_name: str, hf_config: Any = None, revision: str | None = None) -> None:  # noqa: ANN401
        """Take the number of transformer blocks from the model's configuration."""
        del model_name, revision
        self._blocks = int(hf_config.get_text_config().num_hidden_layers)

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        """Choose the method of a layer.

        Raises:
            ValueError: the recipe cannot be applied to this model, or not in several processes.
        """
        covered = self._is_covered(prefix)
        if covered and isinstance(layer, RoutedExperts):
            raise ValueError(f"recipe {self.served.recipe.name} does not cover experts ({prefix}): use a dense model")
        if not isinstance(layer, LinearBase):
            return None
        if not covered or self._is_kept(layer, prefix):
            return UnquantizedLinearMethod()
        _require_one_process()
        return RecipeLinearMethod(self)

    def products(self, weights: dict[str, torch.Tensor]) -> FusedProducts:
        """Make the products with the stored weights of fused projections, by module path.

        Raises:
            ValueError: the recipe's products are vLLM's own.
        """
        recipe = self.served.recipe
        match recipe.compute:
            case ComputePrecision.NVFP4:
                return FusedNVFP4(weights, recipe)
            case ComputePrecision.FP8_HYBRID:
                engine = select_engine(recipe, next(iter(weights.values())).device, self.served.engine)
                return FusedFP8(weights, engine.name, self.fp8_input_scales())
            case ComputePrecision.BF16:
                raise ValueError(f"recipe {recipe.name} has bf16 products, which are vLLM's own")

    def projections(self, prefix: str, sizes: list[int]) -> list[tuple[str, int]]:
        """Return module path and rows of each projection that the checkpoint has in the place of a layer.

        Args:
            prefix: The layer's module path.
            sizes: Rows of its parts.

        Raises:
            ValueError: the parts are not those of the checkpoint.
        """
        parent, _, last = prefix.rpartition(".")
        names = [f"{parent}.{name}" for name in self.packed_modules_mapping.get(last, [last])]
        if len(names) == 1:
            return [(names[0], sum(sizes))]
        if len(names) != len(sizes):
            raise ValueError(f"{prefix} has {len(sizes)} parts, and its projections are {', '.join(names)}")
        return list(zip(names, sizes, strict=True))

    def _is_covered(self, prefix: str) -> bool:
        numbers = [int(part) for part in prefix.split(".") if part.isdigit()]
        recipe = self.served.recipe
        return bool(numbers) and recipe.skip_first_layers <= numbers[0] < self._blocks - recipe.skip_last_layers

    def _is_kept(self, layer: LinearBase, prefix: str) -> bool:
        """Return whether the recipe leaves a layer in bf16 because its blocks do not divide the dimensions."""
        recipe = self.served.recipe
        if recipe.on_indivisible != "keep":
            return False
        sizes = getattr(layer, "output_sizes", [layer.output_size])
        fit = {recipe.fits(layer.input_size, size) for _, size in self.projections(prefix, sizes)}
        if len(fit) > 1:
            raise ValueError(
                f"{prefix}: recipe {recipe.name} keeps some of its projections in bf16 (on_indivisible), and vLLM "
                "multiplies them as one. Leave the recipe out of serving.under"
            )
        return not fit.pop()

    def fp8_input_scales(self) -> InputScales:
        """Return the scales of FP8 inputs of this process; the first call makes vLLM report its adapters to them."""
        if self._scales is None:
            from surogate_bench_model_server.served_recipe import adapters  # noqa: PLC0415 - only FP8 needs it

            self._scales = InputScales(margin=self.served.recipe.fp8_margin)
            adapters.install(self._scales)
        return self._scales


@register_weight_loader_v2_supported_method
class RecipeLinearMethod(UnquantizedLinearMethod):  # type: ignore[misc]  # vLLM is not followed by the type checker
    """Loads bf16 weights, stores them as the recipe does, and multiplies as its training does.

    A recipe with bf16 products is left to vLLM's own bf16 products, with the weight that its storage gives.
    """

    supports_pre_processed_weights = False

    def __init__(self, config: RecipeQuantization) -> None:
        super().__init__()
        self._config = config

    def process_weights_after_loading(self, layer: Any) -> None:  # noqa: ANN401 - any of vLLM's linear layers
        """Store the weight of each projection; the bf16 copy of the checkpoint is dropped."""
        with set_default_torch_dtype(torch.float32):  # vLLM loads with bf16 as torch's default, training does not
            weights = self._stored_weights(layer)
            if self._config.served.has_products:
                ensure_fast_bf16_products()
                layer.recipe_products = self._config.products(weights)
                # LoRA takes the device from the weight.
                layer.weight = torch.nn.Parameter(layer.weight.data.new_empty(0), requires_grad=False)
                return
        layer.weight.data = torch.cat(tuple(weights.values()))
        super().process_weights_after_loading(layer)

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:  # noqa: ANN401
        """Multiply (..., in_features); bf16 (..., out_features)."""
        products: FusedProducts | None = getattr(layer, "recipe_products", None)
        if products is None:
            outputs: torch.Tensor = super().apply(layer, x, bias)
            return outputs
        outputs = products(x.reshape(-1, x.shape[-1]).contiguous())
        outputs = outputs.view(*x.shape[:-1], outputs.shape[-1])
        return outputs if bias is None else outputs + bias

    def _stored_weights(self, layer: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - as above
        """Return what the recipe's storage makes of each projection's weight, by module path."""
        projections = self._config.projections(layer.prefix, layer.output_partition_sizes)
        parts = layer.weight.data.split([size for _, size in projections])
        names = [name for name, _ in projections]
        recipe = self._config.served.recipe
        return {name: stored_values(part.contiguous(), recipe) for name, part in zip(names, parts, strict=True)}


def _require_one_process() -> None:
    config = get_current_vllm_config_or_none()
    if config is not None and config.parallel_config.world_size > 1:
        raise ValueError(
            f"a recipe is served by one process, and vLLM was started with {config.parallel_config.world_size}: parts "
            "of a weight would have other scales. Remove tensor and pipeline parallelism from serving.extra_args"
        )
