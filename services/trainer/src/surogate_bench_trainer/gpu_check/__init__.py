"""``python -m surogate_bench_trainer.gpu_check``: does this machine compute the recipes correctly, and how fast.

Groups of checks, most important first:

- ``engines``: number formats and products of every engine against formulas in NumPy.
- ``passes``: CUDA graphs against plain passes, resumed states, noise of stochastic rounding.
- ``train-stage``: a whole train stage of the embedded model against the losses of the CPU.
- ``speed``: optimizer steps of a model in the shape of Qwen3-0.6B, and a loop of Transformers and PEFT alone.

On a CPU the same code runs at smaller shapes, and checks that need a GPU are reported as not run.
"""
