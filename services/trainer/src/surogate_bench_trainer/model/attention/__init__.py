"""Attention within each sample of a packed stream of tokens."""
