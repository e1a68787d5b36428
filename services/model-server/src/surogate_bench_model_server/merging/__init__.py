"""Merging an adapter into its base: the checkpoint that vLLM loads in place of the published one.

Adapters are often deployed this way. W + scale * (B @ A) is computed in fp32 and rounded once to bf16, as
``merge_and_unload`` of PEFT does on a CPU with an adapter in fp32.

vLLM takes one set of base weights at its start, so each merged model has a server of its own, and merging is the first
step of the command that the supervisor starts: it ends with the process, may be killed at any moment, and its time is
part of that to become ready. The alternative, exchanging the weights of a running vLLM, saves its start; but a process
that is killed in between would answer with weights of two models, what vLLM derives from weights when it loads them
(packed and quantized copies) would have to be made again, and a merged checkpoint is what is deployed.
"""
