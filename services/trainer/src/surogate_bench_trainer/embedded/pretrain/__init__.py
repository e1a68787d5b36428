"""Pre-training of the embedded base model: ``python -m surogate_bench_trainer.embedded.pretrain --out DIR``.

The model is trained on English word problems, bare equations and plain Romanian statements, but on no Romanian problem,
which is left to fine-tuning.
"""
