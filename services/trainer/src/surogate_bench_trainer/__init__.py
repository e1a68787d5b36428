"""The trainer service: fine-tunes one LoRA adapter under one precision recipe."""
