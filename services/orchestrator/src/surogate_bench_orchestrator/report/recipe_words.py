"""Recipes in words: how weights are kept, how products are computed, and how that differs from serving."""

from collections.abc import Sequence

from surogate_bench.recipes import ComputePrecision, Recipe, WeightStorage
from surogate_bench_orchestrator.report.formats import listed
from surogate_bench_orchestrator.report.summary import RecipeText

_STORAGE = {
    WeightStorage.BF16: "bf16, 2 bytes per weight",
    WeightStorage.FP8_128X128: "FP8 E4M3 with one fp32 scale per 128×128 tile, 1 byte per weight",
    WeightStorage.NVFP4: "NVFP4: E2M1 with one E4M3 scale per 16 weights and one fp32 scale per tensor, 0.56 bytes "
    "per weight",
    WeightStorage.NF4: "NF4 in blocks of 64 with double quantization (bitsandbytes), 0.52 bytes per weight",
}
_COMPUTE = {
    ComputePrecision.BF16: "bf16 operands in both passes",
    ComputePrecision.FP8_HYBRID: "FP8: E4M3 activations (delayed scaling) and weights forward, E5M2 gradients backward",
    ComputePrecision.NVFP4: "NVFP4: 4-bit operands in blocks of 16, four-over-six scaling forward, stochastic "
    "rounding of gradients",
}
_SHORT_STORAGE = {
    WeightStorage.BF16: "bf16",
    WeightStorage.FP8_128X128: "FP8",
    WeightStorage.NVFP4: "NVFP4",
    WeightStorage.NF4: "NF4",
}
_SHORT_COMPUTE = {
    ComputePrecision.BF16: "bf16",
    ComputePrecision.FP8_HYBRID: "FP8",
    ComputePrecision.NVFP4: "NVFP4",
}


def recipe_text(recipe: Recipe) -> RecipeText:
    """Describe one recipe: how weights are kept, how products are computed, what deviates from the default."""
    details = []
    if recipe.skip_first_layers or recipe.skip_last_layers:
        details.append(f"The first {recipe.skip_first_layers} and last {recipe.skip_last_layers} blocks stay in bf16.")
    if recipe.compute is ComputePrecision.NVFP4:
        details.append(
            "Weights in 16×16 blocks shared by both passes (profile “paper”)."
            if recipe.fp4_profile == "paper"
            else "Weights in 1×16 blocks, requantized for the backward pass (profile “surogate”)."
        )
    if recipe.compute is ComputePrecision.FP8_HYBRID:
        details.append(
            f"Scales look back {recipe.fp8_amax_history_length:,} steps"
            + (f", margin {recipe.fp8_margin}." if recipe.fp8_margin else ".")
        )
    return RecipeText(
        name=recipe.name,
        title=recipe.title,
        storage=_STORAGE[recipe.weight_storage],
        compute=_COMPUTE[recipe.compute],
        details=" ".join(details),
    )


def mismatch(recipes: Sequence[Recipe]) -> str:
    """Say in one sentence which recipes were trained in other arithmetic than they are served in; empty if none was."""
    stored, computed, both = _mismatched(recipes)
    all_kinds = bool(stored and computed and both)
    parts = [
        f"{what} ({listed(titles)})"
        for titles, what in (
            (computed, "quantized products"),
            (stored, "quantized weights"),
            (both, "both" if all_kinds else "quantized weights and products"),
        )
        if titles
    ]
    if not parts:
        return ""
    kinds = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"
    several = len(stored) + len(computed) + len(both) > 1
    return (
        "All adapters were served on bf16 weights with bf16 products; the "
        f"{'accuracies of those' if several else 'accuracy of the one'} trained with {kinds} "
        f"{'include' if several else 'includes'} that mismatch."
    )


def mismatch_details(recipes: Sequence[Recipe]) -> str:
    """Say for each recipe in which formats it was trained where these are not those of serving; empty if none."""
    formats = [
        f"{recipe.title} on {_SHORT_STORAGE[recipe.weight_storage]} weights with {_SHORT_COMPUTE[recipe.compute]} "
        "products"
        for recipe in recipes
        if recipe.quantizes
    ]
    if not formats:
        return ""
    return (
        "All adapters are served on bf16 weights with bf16 products, as in the reference procedure, but were not all "
        f"trained so: {listed(formats)}. These rows differ from the reference by recipe and mismatch together; what a "
        "recipe costs by itself is not measured."
    )


def _mismatched(recipes: Sequence[Recipe]) -> tuple[list[str], list[str], list[str]]:
    """Titles of recipes that quantize weights only, products only, and both."""
    stored, computed, both = list[str](), list[str](), list[str]()
    for recipe in recipes:
        weights = recipe.weight_storage is not WeightStorage.BF16
        products = recipe.compute is not ComputePrecision.BF16
        if weights or products:
            (both if weights and products else stored if weights else computed).append(recipe.title)
    return stored, computed, both
