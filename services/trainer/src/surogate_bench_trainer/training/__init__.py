"""Training one LoRA adapter.

The loop is our own on transformers' models, schedules and PEFT's adapters, not ``transformers.Trainer``: its
checkpoints are pickles, it cannot resume amax histories, and it trains padded batches.
"""
