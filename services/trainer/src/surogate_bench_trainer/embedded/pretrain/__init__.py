"""Pre-trains the embedded base model: ``python -m surogate_bench_trainer.embedded.pretrain --out DIR``.

The model reads English word problems, bare equations and plain Romanian statements, but never a Romanian problem,
so that fine-tuning on those has something to teach.
"""
