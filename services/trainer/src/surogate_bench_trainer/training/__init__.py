"""Training one LoRA adapter.

The loop uses transformers' models and learning-rate schedules and PEFT's adapters, but not ``transformers.Trainer``:
its checkpoints are pickles, it cannot restore amax histories, and it trains on padded batches.
"""
