"""Conversations: their shapes, and how a tokenizer's chat template renders them."""
