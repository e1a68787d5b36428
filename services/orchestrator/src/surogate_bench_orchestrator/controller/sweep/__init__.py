"""One RecipeSweep: observe, decide, act."""
