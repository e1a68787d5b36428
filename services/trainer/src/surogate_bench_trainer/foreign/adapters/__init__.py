"""Adapters that were trained elsewhere: fetched, checked, and written as vLLM serves them."""
