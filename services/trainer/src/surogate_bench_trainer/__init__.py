"""Fine-tunes one LoRA adapter under one precision recipe."""
