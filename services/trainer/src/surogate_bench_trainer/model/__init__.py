"""The model in training: loading, recipe, LoRA, attention, and forward and backward passes."""
