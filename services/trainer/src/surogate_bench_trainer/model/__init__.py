"""The model while it trains: loading, recipe, LoRA, attention, and forward and backward passes."""
