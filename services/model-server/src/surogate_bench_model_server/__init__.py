"""Supervises vLLM and delivers LoRA adapters to it."""
