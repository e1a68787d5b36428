"""Supervises lm-eval against an OpenAI-compatible completions endpoint."""
